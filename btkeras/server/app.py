"""The server as an ASGI application: TensorFlow Serving's paths, health, metrics, and the page if it is there."""

from __future__ import annotations

import importlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from btkeras.server.access import Access
from btkeras.server.bounded import Bounded
from btkeras.server.engine import Engine
from btkeras.server.observed import Observed
from btkeras.server.problems import HTTPError
from btkeras.server.record import note
from btkeras.server.tf_rest import TensorFlowServing

_ANY = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_PAGE = "btkeras.server.page"
# What shows nobody's data and no model: the probes, and the page's own files, which then ask for the token.
_OPEN = ("/", "/healthz", "/readyz")
_OPEN_BELOW = "/static/"


def create_app(engine: Engine) -> ASGIApp:
    """Makes the application; it starts the engine when it starts, and stops it when it ends.

    Paths: ``/v1/...`` (TensorFlow Serving's interface), ``/healthz`` (200 while the process lives), ``/readyz`` (200
    while a version is served and the server is not about to stop, else 503), ``/metrics`` and, as in TensorFlow
    Serving, ``/monitoring/prometheus/metrics``; and the page at ``/``. With a token, all but the health paths and the
    page's own files need it.
    """

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        await engine.start()
        try:
            yield
        finally:
            await engine.stop()

    page = _page_routes(engine)
    routes = [*_own_routes(engine), *page, Route("/{path:path}", _nothing, methods=list(_ANY))]
    settings = engine.settings
    app: ASGIApp = Router(routes, redirect_slashes=False, lifespan=lifespan)
    app = Bounded(app, engine.admission, settings.limits)
    if settings.token is not None:
        app = Access(app, settings.token, _OPEN, _OPEN_BELOW)
    if settings.origins:
        app = CORSMiddleware(
            app,
            allow_origins=settings.origins,
            allow_methods=("GET", "POST"),
            allow_headers=("Authorization", "Content-Type", "X-Request-Id"),
        )
    return Observed(app, engine.metrics, lambda: engine.draining)


def _own_routes(engine: Engine) -> list[Route]:
    async def alive(_: Request) -> Response:
        note(route="health")
        return _json({"status": "alive"})

    async def ready(_: Request) -> Response:
        note(route="health")
        latest = engine.versions.latest
        if not engine.ready:
            raise HTTPError(503, "The server is about to stop" if engine.draining else "No version is loaded")
        return _json({"status": "ready", "version": str(latest.number) if latest else ""})

    async def metrics(_: Request) -> Response:
        note(route="metrics")
        content, kind = engine.metrics.page()
        return Response(content, headers={"Content-Type": kind})

    return [
        Route("/healthz", alive),
        Route("/readyz", ready),
        Route("/metrics", metrics),
        Route("/monitoring/prometheus/metrics", metrics),
        Route("/v1{path:path}", _as_function(TensorFlowServing(engine)), methods=list(_ANY)),
    ]


def _as_function(answer: TensorFlowServing):  # type: ignore[no-untyped-def]
    # Starlette takes an object that can be called for an ASGI application.
    async def endpoint(request: Request) -> Response:
        return await answer(request)

    return endpoint


def _page_routes(engine: Engine) -> list[Route]:
    try:
        page = importlib.import_module(_PAGE)
    except ModuleNotFoundError as error:
        if error.name != _PAGE:
            raise
        return []
    routes: list[Route] = page.page_routes(engine)
    for route in routes:
        route.app = _noted(route.app)
    return routes


def _noted(app: ASGIApp) -> ASGIApp:
    async def noted(scope: Scope, receive: Receive, send: Send) -> None:
        note(route="page")
        await app(scope, receive, send)

    return noted


async def _nothing(request: Request) -> Response:
    raise HTTPError(404, f"Not found: {request.method} {request.url.path[:200]}")


def _json(content: object) -> Response:
    return Response(json.dumps(content), media_type="application/json")
