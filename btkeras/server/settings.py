"""The server's settings and limits, with their defaults."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from btkeras.errors import ConfigError
from btkeras.preprocessing.image_file import MAX_PIXELS

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """What one request, or all together, may take.

    Attributes:
        body_bytes: Size of one request's body, as sent and after gzip; 413 beyond.
        instances: Images of one request; 413 beyond.
        values: Numbers, strings, lists and objects in one request's JSON; 413 beyond. It bounds what parsing takes: a
            list of numbers is about twenty times as large in memory as in the request.
        pixels: Pixels of one PNG or JPEG, by its header; 400 beyond.
        queued_images: Images of all requests under way, at least one each; 503 beyond.
        queued_bytes: Bodies of all requests under way; 503 beyond.
        connections: Open connections; 503 beyond.
        body_seconds: Time for a body to arrive; 408 beyond.
        request_seconds: Time from the whole request to its response; 504 beyond.
        idle_seconds: Time that a connection is kept open between requests, or while a client does not read.
    """

    body_bytes: int = 32 * MIB
    instances: int = 64
    values: int = 2_000_000
    pixels: int = 10_000_000
    queued_images: int = 256
    queued_bytes: int = 128 * MIB
    connections: int = 512
    body_seconds: float = 30.0
    request_seconds: float = 30.0
    idle_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ConfigError(f"limits.{name} must be above 0", received=value)
        # A request beyond these would never find a place: it would get 503, "try again later", for ever.
        for name, value, most, remedy in (
            ("pixels", self.pixels, MAX_PIXELS, "Lower --max-pixels"),
            ("instances", self.instances, self.queued_images, "Lower --max-instances or raise --max-queue"),
            ("body_bytes", self.body_bytes, self.queued_bytes, f"--max-mib may be {self.queued_bytes / MIB:g} at most"),
        ):
            if value > most:
                raise ConfigError(f"limits.{name} must be at most {most}", received=value, remedy=remedy)


@dataclass(frozen=True)
class ServerSettings:
    """Settings of one server.

    Attributes:
        name: The model's name in paths; "" takes the name of its folder.
        host: The address to listen on.
        port: The port to listen on; 0 takes a free one.
        token: What clients send as ``Authorization: Bearer TOKEN``; None for no such check.
        drain_seconds: Time from SIGTERM, when ``/readyz`` turns to 503, until no connection is accepted any more.
        limits: The limits on requests.
    """

    name: str = ""
    host: str = "127.0.0.1"
    port: int = 8501
    token: str | None = None
    drain_seconds: float = 0.0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if "/" in self.name or ":" in self.name:
            raise ConfigError("A model's name must hold neither / nor :", received=repr(self.name))
        if not 0 <= self.port <= 65535:
            raise ConfigError("A port must be between 0 and 65535", received=self.port)
        if not self.drain_seconds >= 0:
            raise ConfigError("drain_seconds must be at least 0", received=self.drain_seconds)
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and self.token.strip()):
            raise ConfigError("A token must be printable ASCII and not empty", received="another text")

    @property
    def is_public(self) -> bool:
        """Whether other machines can reach the server, and need no token."""
        try:
            loopback = ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            loopback = self.host == "localhost"
        return self.token is None and not loopback
