"""The server as an ASGI application and as a process: routes, token, socket, signals."""

from __future__ import annotations

import asyncio
import hmac
import socket
import sys
from types import FrameType

import uvicorn
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from btkeras.errors import ConfigError
from btkeras.inference.backends import InferenceBackend
from btkeras.server.limits import RequestLimits, error_response
from btkeras.server.page import page_routes
from btkeras.server.served_model import ServedModel
from btkeras.server.settings import ServerSettings
from btkeras.server.telemetry import Telemetry, configure_logging, log_event
from btkeras.server.tf_rest import tf_rest_routes

# What shows nobody's data and no model: the probes, and the page's own files, which then ask for the token.
_OPEN_PATHS = ("/", "/healthz", "/readyz")


class TokenAuth:
    """ASGI middleware that refuses requests without ``Authorization: Bearer TOKEN``: 401."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._may_pass(scope):
            await self._app(scope, receive, send)
            return
        message = "The request must have the header Authorization: Bearer TOKEN"
        await error_response(HTTPException(401, message, {"WWW-Authenticate": "Bearer"}))(scope, receive, send)

    def _may_pass(self, scope: Scope) -> bool:
        path = scope["path"]
        if scope["method"] in ("GET", "HEAD") and (path in _OPEN_PATHS or path.startswith("/static/")):
            return True
        given = Headers(scope=scope).getlist("authorization")
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        return scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), self._token)


def create_app(served: ServedModel) -> ASGIApp:
    """Makes the application.

    Paths: ``/v1/...`` (TensorFlow Serving's interface), ``/healthz`` (200 while the process lives), ``/readyz`` (503
    once the server is about to stop), ``/metrics`` and, as in TensorFlow Serving, ``/monitoring/prometheus/metrics``;
    and the page at ``/``. With a token, all but the probes and the page's own files need it.
    """

    async def alive(_: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def ready(_: Request) -> Response:
        if served.draining:
            raise HTTPException(503, "The server is about to stop")
        return JSONResponse({"status": "ready", "version": str(served.version)})

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(served.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    routes = [
        Route("/healthz", alive, name="health"),
        Route("/readyz", ready, name="health"),
        Route("/metrics", metrics, name="metrics"),
        Route("/monitoring/prometheus/metrics", metrics, name="metrics"),
        *tf_rest_routes(served),
        *page_routes(served),
    ]
    settings = served.settings
    app: ASGIApp = RequestLimits(Router(routes, redirect_slashes=False), served.admission, settings.limits)
    if settings.token is not None:
        app = TokenAuth(app, settings.token)
    return Telemetry(app, served.metrics, lambda: served.draining)


def serve(backend: InferenceBackend, settings: ServerSettings) -> None:
    """Serves a model until SIGTERM or SIGINT.

    Then ``/readyz`` turns to 503, and after ``drain_seconds`` no connection is accepted any more; requests under way
    are answered, and the process ends. A second signal ends it at once.

    Raises:
        ConfigError: If the address cannot be had.
        ModelError: If the model cannot be run.
    """
    with listen(settings) as listener:
        configure_logging()
        served = ServedModel(backend, settings)
        try:
            served.warm_up()
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            url = f"http://{shown}:{port}"
            log_event("listening", url=url, model=served.name, version=served.version, token=settings.token is not None)
            if sys.stderr.isatty():
                sys.stderr.write(f"\n  {url}   (Ctrl-C stops)\n\n")
            asyncio.run(DrainingServer(served).serve([listener]))
        finally:
            served.close()
    log_event("stopped")


class DrainingServer(uvicorn.Server):
    """uvicorn's server, which says that it is about to stop before it does, and ends with exit code 0."""

    def __init__(self, served: ServedModel) -> None:
        limits = served.settings.limits
        super().__init__(
            uvicorn.Config(
                create_app(served),
                http="h11",
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                # uvicorn refuses the connection that reaches the limit.
                limit_concurrency=limits.connections + 1,
                timeout_keep_alive=max(1, int(limits.idle_seconds)),
                # A request's own limits end it sooner.
                timeout_graceful_shutdown=int(limits.body_seconds + limits.request_seconds) + 1,
            )
        )
        self._served = served

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On the first signal drains, on the second ends."""
        if self._served.draining:
            self.should_exit = self.force_exit = True
            return
        self._served.draining = True
        seconds = self._served.settings.drain_seconds
        log_event("draining", seconds=seconds)
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(loop.call_later, seconds, setattr, self, "should_exit", True)


def listen(settings: ServerSettings) -> socket.socket:
    """Opens the listening socket; errors as ``serve``."""
    host, port = settings.host, settings.port
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # Not `reuse_port`: a second server would take requests from the first unnoticed.
        listener = socket.create_server(address[:2], family=family, backlog=512)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # The system (Linux) cuts off clients that do not read; uvicorn would hold their responses for ever.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * settings.limits.idle_seconds))
        return listener
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            "The address to serve at must be free and this machine's own",
            received=f"{host}:{port} ({error.strerror if isinstance(error, OSError) else error})",
            remedy="Choose another with --host and --port; --port 0 takes a free one",
        ) from error
