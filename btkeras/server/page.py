"""The web page at ``/``: its files, what it is told of the model, and the endpoint that answers its slices."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from btkeras.errors import DataError
from btkeras.server.page_files import content_type, load_files
from btkeras.server.page_model import PageEngine, card_html, model_facts, network_of
from btkeras.server.page_slice import answer_slice
from btkeras.server.problems import HTTPError
from btkeras.server.record import note

# What the page may do: load its own files, show images it was sent, ask its own server. Nothing else.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_SAFE = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    # A page on this machine needs none of them.
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
# Answers hold images of patients, which no cache may keep.
_UNKEPT = _SAFE | {"Cache-Control": "no-store"}
# The address of a file changes with its content; the page's own does not.
_KEPT = _SAFE | {"Cache-Control": "public, max-age=31536000, immutable"}
_ASKED_AGAIN = _SAFE | {"Cache-Control": "no-cache"}
_Handler = Callable[[Request], Awaitable[Response]]


def page_routes(engine: PageEngine) -> list[Route]:
    """The routes of the page: ``/``, its files, the model's facts and card, and ``POST /api/slices``.

    Args:
        engine: Answers; the server around it limits sizes and checks tokens.
    """
    files = load_files()

    async def home(request: Request) -> Response:
        return _page(request, files.page("index.html"), files.digest)

    async def model(request: Request) -> Response:
        return JSONResponse(model_facts(network_of(engine), engine.settings), headers=_UNKEPT)

    async def card(request: Request) -> Response:
        text = await engine.run(card_html, network_of(engine))
        page = files.page("card.html").replace(b"{card}", text.encode())
        return Response(page, headers=_UNKEPT, media_type=content_type("card.html"))

    async def slices(request: Request) -> Response:
        note(images=1)
        return JSONResponse(await answer_slice(engine, request), headers=_UNKEPT)

    return [
        Route("/", _answered(home)),
        Route("/model-card", _answered(card)),
        Route("/api/model", _answered(model)),
        Route("/api/slices", _answered(slices), methods=["POST"]),
        *(Route(f"/static/{files.digest}/{name}", _file(name, data)) for name, data in files.served()),
    ]


def _answered(handler: _Handler) -> _Handler:
    """A handler whose errors are answers."""

    async def answered(request: Request) -> Response:
        note(route="page")
        try:
            return await handler(request)
        except DataError as error:
            problem = HTTPError(422, str(error))
        except HTTPError as error:
            problem = error
        response = problem.response()
        response.headers.update(_UNKEPT)
        return response

    return answered


def _page(request: Request, page: bytes, digest: str) -> Response:
    headers = _ASKED_AGAIN | {"ETag": f'"{digest}"'}
    if digest in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(page, headers=headers, media_type=content_type("index.html"))


def _file(name: str, data: bytes) -> _Handler:
    async def file(request: Request) -> Response:
        note(route="page")
        return Response(data, headers=_KEPT, media_type=content_type(name))

    return file
