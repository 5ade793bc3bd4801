"""What is seen of each request: its identifier, a line in the log, metrics; and the headers that every answer gets."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from btkeras.server.logs import log
from btkeras.server.metrics import Metrics
from btkeras.server.record import CURRENT, Record

_IDENTIFIER = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# The page may load nothing from elsewhere; answers in JSON are shown nowhere.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
}


class Observed:
    """Notes each request and completes each answer.

    Args:
        app: What answers requests.
        metrics: What Prometheus is told.
        draining: Says whether the server is about to stop; answers then close their connections.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, draining: Callable[[], bool]) -> None:
        self._app = app
        self._metrics = metrics
        self._draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = Record(_identifier(scope))
        code = 0

        async def answer(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
                self._complete(MutableHeaders(scope=message), record)
            await send(message)

        token = CURRENT.set(record)
        try:
            await self._app(scope, receive, answer)
        finally:
            CURRENT.reset(token)
            self._note(scope, record, code)

    def _complete(self, headers: MutableHeaders, record: Record) -> None:
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
        headers["X-Request-Id"] = record.identifier
        if self._draining():
            headers["Connection"] = "close"

    def _note(self, scope: Scope, record: Record, code: int) -> None:
        seconds = time.perf_counter() - record.started
        self._metrics.requests.labels(record.route, record.signature, str(code)).inc()
        self._metrics.seconds.labels(record.route).observe(seconds)
        # Probes and scrapes that went well would fill the log.
        if record.route in ("health", "metrics") and code == 200:
            return
        log(
            "request",
            id=record.identifier,
            method=scope["method"],
            path=scope["path"][:200],
            code=code,
            ms=round(1000 * seconds, 1),
            images=record.images,
            bytes=record.nbytes,
            signature=record.signature,
            version=record.version,
        )


def _identifier(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _IDENTIFIER.fullmatch(value):
            return str(value.decode())
    return uuid.uuid4().hex
