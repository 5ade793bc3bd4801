"""What a request may take: its size, its time, and a place in the queue; and what is answered when that is exceeded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from btkeras.errors import BTKerasError
from btkeras.server.admission import CURRENT, Admission, Ticket
from btkeras.server.logs import log
from btkeras.server.problems import HTTPError
from btkeras.server.record import note
from btkeras.server.settings import Limits


class Bounded:
    """Keeps each request within the limits, whatever answers it.

    Bodies are counted as they arrive: what is too large is refused at once, by its announced size if it has one, and
    read and thrown away so that the client sees the answer.

    Args:
        app: What answers requests.
        admission: The queue.
        limits: The limits.
    """

    def __init__(self, app: ASGIApp, admission: Admission, limits: Limits) -> None:
        self._app = app
        self._admission = admission
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        try:
            if scope["method"] in ("GET", "HEAD"):
                await self._in_time(scope, receive, answer, None)
            else:
                await self._in_queue(scope, receive, answer)
        except Exception as error:  # The last place before the connection: no request may end without an answer.
            if answer.started and isinstance(error, HTTPError):
                # Too slow a reader: what it did not take in time is cut off with its connection.
                log("answer cut off", logging.WARNING, reason=error.message)
                return
            if answer.started:
                raise
            await _problem(error).response()(scope, receive, send)

    async def _in_queue(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        announced = _content_length(scope)
        if announced > self._limits.body_bytes:
            raise _too_large(self._limits)
        ticket = Ticket(self._admission)
        token = CURRENT.set(ticket)
        try:
            ticket.grow(announced)
            await self._in_time(scope, receive, answer, ticket)
        finally:
            CURRENT.reset(token)
            ticket.release()

    async def _in_time(self, scope: Scope, receive: Receive, answer: _Answer, ticket: Ticket | None) -> None:
        loop = asyncio.get_running_loop()
        body = _Body(receive, self._limits, ticket)
        seconds = self._limits.request_seconds if ticket is None else self._limits.body_seconds
        try:
            async with asyncio.timeout(seconds) as deadline:
                body.on_whole = lambda: deadline.reschedule(loop.time() + self._limits.request_seconds)
                await self._app(scope, body, answer)
        except TimeoutError as error:
            if ticket is not None and not body.whole:
                raise HTTPError(
                    408,
                    f"A request's body must arrive within {self._limits.body_seconds:g} s",
                    {"Connection": "close"},
                ) from error
            raise HTTPError(504, f"No answer within {self._limits.request_seconds:g} s") from error


class _Answer:
    """Notes whether an answer began."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def __call__(self, message: Message) -> None:
        self.started = True
        await self._send(message)


class _Body:
    """Counts a body as it arrives, and says when it is whole."""

    def __init__(self, receive: Receive, limits: Limits, ticket: Ticket | None) -> None:
        self._receive = receive
        self._limits = limits
        self._ticket = ticket
        self.on_whole: Callable[[], None] = lambda: None
        self.nbytes = 0
        self.whole = False

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] != "http.request" or self.whole:
            return message
        self.nbytes += len(message.get("body", b""))
        note(nbytes=self.nbytes)
        if self.nbytes > self._limits.body_bytes:
            raise _too_large(self._limits)
        if self._ticket is not None and self.nbytes > self._ticket.nbytes:
            # Its size was not announced.
            self._ticket.grow(self.nbytes - self._ticket.nbytes)
        if not message.get("more_body", False):
            self.whole = True
            self.on_whole()
        return message


def _content_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        # The protocol has checked that it is a number.
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0


def _too_large(limits: Limits) -> HTTPError:
    return HTTPError(413, f"A request must have at most {limits.body_bytes} bytes")


def _problem(error: Exception) -> HTTPError:
    if isinstance(error, HTTPError):
        return error
    if isinstance(error, HTTPException):
        return HTTPError(error.status_code, error.detail, error.headers or {})
    if isinstance(error, BTKerasError):
        return HTTPError(400, str(error))
    if isinstance(error, ClientDisconnect):
        # Nobody reads it; TensorFlow Serving and nginx count such a request under this code too.
        return HTTPError(499, "The client closed the connection")
    log("request failed", logging.ERROR, failure=error)
    return HTTPError(500, "The server failed at this request; its log says more")
