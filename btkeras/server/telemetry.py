"""Structured logs, Prometheus metrics, and the headers that every response gets.

A log line about a request holds its path, status, time and sizes, never what was sent: no image, file name, query or
token.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOGGER = logging.getLogger("btkeras.server")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# The page may load its own files, show images that it was sent, and ask its own server; nothing else. Responses hold
# images of patients, which no cache may keep.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, event, and the fields that ``log_event`` adds."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": moment, "level": record.levelname.lower(), "event": record.getMessage()}
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_event(event: str, level: int = logging.INFO, *, error: BaseException | None = None, **fields: object) -> None:
    """Logs an event with further fields, and with an error's traceback if one is given."""
    LOGGER.log(level, event, extra={"fields": fields}, exc_info=error)


def configure_logging() -> None:
    """Sends the server's log, and uvicorn's errors, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    for logger, level in ((LOGGER, logging.INFO), (logging.getLogger("uvicorn.error"), logging.ERROR)):
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


class Metrics:
    """Prometheus metrics, in a registry of their own so that several servers in one process do not mix.

    ``route`` is predict, status, metadata, page, health, metrics or other.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("btkeras_requests", "Responses.", ("route", "code"), registry=registry)
        self.seconds = Histogram(
            "btkeras_request_seconds", "Time to the response.", ("route",), buckets=_SECONDS, registry=registry
        )
        self.images = Counter("btkeras_images", "Images that the model classified.", registry=registry)

    def add_gauge(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """Adds a gauge that is read at each scrape."""
        Gauge(f"btkeras_{name}", help_text, registry=self.registry).set_function(value)


class Telemetry:
    """ASGI middleware that logs and counts each request, and completes each response's headers.

    Responses close their connections while ``draining()``, before the server stops.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, draining: Callable[[], bool]) -> None:
        self._app = app
        self._metrics = metrics
        self._draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, code = time.perf_counter(), 0
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex

        async def send_completed(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
                self._complete(MutableHeaders(scope=message), request_id)
            await send(message)

        try:
            await self._app(scope, receive, send_completed)
        finally:
            self._count(scope, request_id, code, time.perf_counter() - started)

    def _complete(self, headers: MutableHeaders, request_id: str) -> None:
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
        headers["X-Request-Id"] = request_id
        if self._draining():
            headers["Connection"] = "close"

    def _count(self, scope: Scope, request_id: str, code: int, seconds: float) -> None:
        # Set by the router and by `RequestLimits`; requests that end before them have none.
        route, ticket = getattr(scope.get("route"), "name", "other"), scope.get("ticket")
        self._metrics.requests.labels(route, str(code)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        # Probes and scrapes that went well would fill the log.
        if route in ("health", "metrics") and code == 200:
            return
        log_event(
            "request",
            id=request_id,
            method=scope["method"],
            path=scope["path"][:200],
            code=code,
            ms=round(1000 * seconds, 1),
            images=ticket.images if ticket else 0,
            bytes=ticket.nbytes if ticket else 0,
        )
