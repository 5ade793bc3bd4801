"""The server's settings, with their defaults; its limits are in ``limits``."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from btkeras.errors import ConfigError
from btkeras.server.limits import Limits


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
