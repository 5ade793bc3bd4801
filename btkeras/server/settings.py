"""What can be set about the server, with the defaults and what each protects."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from btkeras.errors import ConfigError
from btkeras.preprocessing.image_file import MAX_PIXELS

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """What one client, or all together, may ask for. Beyond it a request is refused and nothing is kept of it.

    Attributes:
        body_bytes: Of one request, as it is sent and after gzip; 413 beyond.
        instances: Images of one request; 413 beyond.
        values: Numbers, strings, lists and objects in one request's JSON; 413 beyond. Bounds what parsing takes:
            a list of numbers is about twenty times as large in memory as in the request.
        pixels: Of one image, by its header, before it is decoded; 400 beyond.
        queued_images: Images of all requests under way, each request counting at least one; 503 beyond.
        queued_bytes: Bodies of all requests under way; 503 beyond.
        connections: Open connections; 503 and closed beyond.
        header_seconds: For a request's headers to arrive in full; 408 and closed beyond.
        body_seconds: For a request's body to arrive in full; 408 and closed beyond.
        request_seconds: From the whole request to its answer; 504 beyond.
        idle_seconds: That a connection is kept open without a request.
    """

    body_bytes: int = 32 * MIB
    instances: int = 64
    values: int = 2_000_000
    pixels: int = 10_000_000
    queued_images: int = 256
    queued_bytes: int = 128 * MIB
    connections: int = 512
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    request_seconds: float = 30.0
    idle_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            _positive(f"limits.{name}", value)
        if self.pixels > MAX_PIXELS:
            raise ConfigError(f"limits.pixels must be at most {MAX_PIXELS}", received=self.pixels)


@dataclass(frozen=True)
class Batching:
    """How images of several requests are put together for the network.

    Attributes:
        max_images: Images in one batch; 1 switches batching off.
        wait_ms: How long the first image of a batch waits for others, milliseconds.
    """

    max_images: int = 32
    wait_ms: float = 2.0

    def __post_init__(self) -> None:
        _positive("batching.max_images", self.max_images)
        if not self.wait_ms >= 0:
            raise ConfigError("batching.wait_ms must be at least 0", received=self.wait_ms)


@dataclass(frozen=True)
class ServerSettings:
    """All about one server.

    Attributes:
        model: The exported model's folder, ``saved_models/NAME``, with its versions in it.
        name: The model's name in paths; by default the folder's.
        host: The address to listen on.
        port: The port to listen on; 0 takes a free one.
        token: What clients have to send as ``Authorization: Bearer TOKEN``; None for no such check.
        origins: Web origins whose pages may call the server (CORS); none by default.
        keep: How many of the highest versions are served; requests without a version get the highest.
        poll_seconds: Between two looks at the folder.
        drain_seconds: From the signal to stop, when readiness goes off, until no more connections are taken.
        wait: Whether to start without a model and wait for one.
        limits: See ``Limits``.
        batching: See ``Batching``.
    """

    model: Path
    name: str = ""
    host: str = "127.0.0.1"
    port: int = 8501
    token: str | None = None
    origins: tuple[str, ...] = ()
    keep: int = 1
    poll_seconds: float = 2.0
    drain_seconds: float = 0.0
    wait: bool = False
    limits: Limits = field(default_factory=Limits)
    batching: Batching = field(default_factory=Batching)

    def __post_init__(self) -> None:
        _positive("keep", self.keep)
        _positive("poll_seconds", self.poll_seconds)
        if not self.name:
            object.__setattr__(self, "name", self.model.resolve().name)
        if not self.name or "/" in self.name or ":" in self.name:
            raise ConfigError("A model's name must hold neither / nor :", received=repr(self.name))
        if not 0 <= self.port <= 65535:
            raise ConfigError("A port must be between 0 and 65535", received=self.port)
        if not self.drain_seconds >= 0:
            raise ConfigError("drain_seconds must be at least 0", received=self.drain_seconds)
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and self.token.strip()):
            raise ConfigError("A token must be printable ASCII and not empty", received="another text")

    @property
    def open_to_others(self) -> bool:
        """Whether other machines can reach the server, and none of them has to show a token."""
        return self.token is None and not is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ConfigError(f"{name} must be above 0", received=value)
