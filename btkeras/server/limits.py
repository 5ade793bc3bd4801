"""Limits on requests: size, time and a place in the queue; and the responses where one is exceeded."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from btkeras.errors import ConfigError, DataError, ModelError
from btkeras.preprocessing.image_file import MAX_PIXELS
from btkeras.server.telemetry import log_event

MIB = 2**20
# Inflated at a time, so that a few kilobytes of gzip cannot take gigabytes before they are counted.
_INFLATE_BYTES = 2**18


@dataclass(frozen=True)
class Limits:
    """What one request, or all together, may take.

    Attributes:
        body_bytes: Size of one request's body, as sent and after gzip; 413 beyond.
        instances: Images of one request; 413 beyond.
        values: Numbers, strings, lists and objects in one request's JSON; 413 beyond. It bounds what parsing takes: a
            list of numbers is about twenty times as large in memory as in the request.
        pixels: Pixels of one image, by its header; 400 beyond.
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


class Admission:
    """Counts ``images`` and ``nbytes`` of all requests under way. Only the event loop's thread uses it."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.images = 0
        self.nbytes = 0

    def add(self, images: int, nbytes: int) -> None:
        """Takes places, or none of them.

        Raises:
            HTTPException: 503 if there are not so many.
        """
        if self.images + images > self._limits.queued_images or self.nbytes + nbytes > self._limits.queued_bytes:
            raise HTTPException(503, "The server is busy: the queue is full. Try again later.", {"Retry-After": "1"})
        self.images += images
        self.nbytes += nbytes


class Ticket:
    """One request's places in the queue, freed when it and all its work in threads have ended.

    Work of a request that timed out cannot be stopped; what it holds stays counted.
    """

    def __init__(self, admission: Admission) -> None:
        admission.add(1, 0)
        self._admission = admission
        self._holders = 1
        self.images = 1
        self.nbytes = 0

    def reserve(self, *, images: int = 0, nbytes: int = 0) -> None:
        """Raises the places to at least these, in all; HTTPException (503) if there are not so many."""
        more_images, more_bytes = max(0, images - self.images), max(0, nbytes - self.nbytes)
        self._admission.add(more_images, more_bytes)
        self.images += more_images
        self.nbytes += more_bytes

    def hold(self) -> None:
        """Counts work that begins."""
        self._holders += 1

    def release(self) -> None:
        """Counts work, or the request itself, that ended."""
        self._holders -= 1
        if self._holders == 0:
            self._admission.add(-self.images, -self.nbytes)


class RequestLimits:
    """ASGI middleware that keeps each request within the limits and turns every exception into a response.

    The application finds a ``Ticket`` in ``scope["ticket"]`` unless the method is GET or HEAD.
    """

    def __init__(self, app: ASGIApp, admission: Admission, limits: Limits) -> None:
        self._app = app
        self._admission = admission
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False
        # With an "app" Starlette's router raises 404 and 405, which become JSON here, instead of sending plain text.
        scope["app"] = self._app

        async def send_noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            if scope["method"] in ("GET", "HEAD"):
                async with asyncio.timeout(self._limits.request_seconds):
                    await self._app(scope, receive, send_noted)
            else:
                await self._in_queue(scope, receive, send_noted)
        except Exception as error:  # The last place before the connection: no request may end without a response.
            response = error_response(error)
            if started:
                log_event("response cut off", logging.WARNING, reason=type(error).__name__)
            else:
                await response(scope, receive, send)

    async def _in_queue(self, scope: Scope, receive: Receive, send: Send) -> None:
        announced = Headers(scope=scope).get("content-length", "")
        # More digits than a size has, and Python would refuse to convert them.
        size = int(announced) if announced.isdecimal() and len(announced) < 20 else 0
        ticket = scope["ticket"] = Ticket(self._admission)
        try:
            self._check_size(size)
            ticket.reserve(nbytes=size)
            await self._in_time(scope, receive, send, ticket)
        finally:
            ticket.release()

    async def _in_time(self, scope: Scope, receive: Receive, send: Send, ticket: Ticket) -> None:
        loop, nbytes, whole = asyncio.get_running_loop(), 0, False

        async def receive_counted() -> Message:
            nonlocal nbytes, whole
            message = await receive()
            if message["type"] == "http.request" and not whole:
                nbytes += len(message.get("body", b""))
                self._check_size(nbytes)
                ticket.reserve(nbytes=nbytes)
                if not message.get("more_body", False):
                    whole = True
                    deadline.reschedule(loop.time() + self._limits.request_seconds)
            return message

        try:
            async with asyncio.timeout(self._limits.body_seconds) as deadline:
                await self._app(scope, receive_counted, send)
        except TimeoutError as error:
            if whole:
                raise
            message = f"A request's body must arrive within {self._limits.body_seconds:g} s"
            raise HTTPException(408, message, {"Connection": "close"}) from error

    def _check_size(self, nbytes: int) -> None:
        if nbytes > self._limits.body_bytes:
            raise HTTPException(413, f"A request must have at most {self._limits.body_bytes} bytes")


async def read_body(request: Request, limits: Limits) -> bytes:
    """Reads a body; gzip is inflated, and its inflated bytes count while they are inflated.

    Raises:
        HTTPException: 400 if gzip is damaged, 413 if it is too large inflated, 415 for another encoding.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        message = f"A body must be plain or gzip. Received: {encoding[:40]}"
        raise HTTPException(415, message, {"Accept-Encoding": "gzip"})
    inflater = zlib.decompressobj(16 + zlib.MAX_WBITS) if encoding == "gzip" else None
    body = bytearray()
    async for chunk in request.stream():
        for piece in _inflate(inflater, chunk) if inflater else (chunk,):
            if len(body) + len(piece) > limits.body_bytes:
                raise HTTPException(413, f"A request must have at most {limits.body_bytes} bytes, inflated")
            request.scope["ticket"].reserve(nbytes=len(body) + len(piece))
            body += piece
    if inflater and not inflater.eof:
        raise HTTPException(400, "The body must be valid gzip (it ends too early)")
    return bytes(body)


def _inflate(inflater: zlib._Decompress, chunk: bytes) -> Iterator[bytes]:
    try:
        while chunk and not inflater.eof:
            yield inflater.decompress(chunk, _INFLATE_BYTES)
            chunk = inflater.unconsumed_tail
    except zlib.error as error:
        raise HTTPException(400, f"The body must be valid gzip ({error})") from error


def error_response(error: Exception) -> Response:
    """The response to a request that failed, TensorFlow Serving's body, ``{"error": MESSAGE}``."""
    headers = None
    if isinstance(error, HTTPException):
        code, message, headers = error.status_code, error.detail, error.headers
    elif isinstance(error, DataError):
        code, message = 400, str(error)
    elif isinstance(error, TimeoutError):
        code, message = 504, "The response was not ready in time"
    elif isinstance(error, ClientDisconnect):
        # Nobody reads it; TensorFlow Serving and nginx count such a request under this code too.
        code, message = 499, "The client closed the connection"
    else:
        log_event("request failed", logging.ERROR, error=error)
        # The rule alone: what was received may name the server's files.
        failed = error.rule if isinstance(error, ModelError) else "The server failed at this request"
        code, message = 500, f"{failed}; the server's log says more"
    return JSONResponse({"error": message}, code, headers)
