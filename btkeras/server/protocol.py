"""uvicorn's HTTP/1.1 connections with bounds on how many there are and how long a client may take."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

from btkeras.server.settings import Limits

_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_SLOW = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class BoundedProtocol(H11Protocol):
    """A connection within limits.

    uvicorn itself ends connections that are idle, and refuses malformed requests; it waits without end for the rest of
    a request's headers, and for a client that does not read its answer. ``bounded.Bounded`` watches the bodies.

    Attributes:
        limits: The limits.
    """

    limits: ClassVar[Limits] = Limits()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._headers_timer: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            transport.write(_BUSY)
            transport.close()
            return
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing():
            return
        # Also while the rest of a refused body is thrown away.
        if self.cycle is None or self.cycle.response_complete:
            self._await_headers()
        else:
            self._headers_arrived()

    def on_response_complete(self) -> None:
        self._headers_arrived()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader_timer = self.loop.call_later(self.limits.request_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reader_timer is not None:
            self._reader_timer.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self._headers_arrived()
        super().connection_lost(exc)

    def _await_headers(self) -> None:
        if self._headers_timer is None:
            self._headers_timer = self.loop.call_later(self.limits.header_seconds, self._too_slow)

    def _headers_arrived(self) -> None:
        if self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None

    def _too_slow(self) -> None:
        self._headers_timer = None
        if not self.transport.is_closing():
            self.transport.write(_SLOW)
            self.transport.close()


def bounded_protocol(limits: Limits) -> type[BoundedProtocol]:
    """The class of connections for uvicorn's ``http`` setting, within these limits."""
    return type("BoundedProtocol", (BoundedProtocol,), {"limits": limits})
