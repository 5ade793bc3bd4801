"""The web page's routes: its files, the model's description and card, and ``POST /api/slices``."""

from __future__ import annotations

import base64
import functools
import hashlib
import itertools
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from btkeras.datasets.readers.formats import open_slices
from btkeras.datasets.readers.images import KINDS, image_size
from btkeras.decisions.calibration import COVERAGE
from btkeras.decisions.ood import OOD_PERCENTILE
from btkeras.decisions.selective_classifier import REJECTED
from btkeras.errors import ImageError
from btkeras.inference.backends import InferenceBackend
from btkeras.inference.model_folder import CARD, EXTRA
from btkeras.inference.overlay import image_png, input_window, map_png
from btkeras.preprocessing.decode import ImageArray
from btkeras.preprocessing.image_file import sniff
from btkeras.server.limits import read_body
from btkeras.server.served_model import ServedModel

_MEDIA_TYPES: Mapping[str, str] = MappingProxyType(
    {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
)
# A file's address changes with its content.
_IMMUTABLE = {"Cache-Control": "public, max-age=31536000, immutable"}
# Where a page says `{static}`, the folder's address is put in; it is relative, so that a proxy may add a prefix.
_STATIC = b"{static}"
_PREDICTION_FIELDS = ("label", "decision", "probabilities", "set", "ood_percentile", "reasons", "near_duplicate")
_TABLE = '<div class="wide" role="group" aria-label="Table" tabindex="0">'


def page_routes(served: ServedModel) -> list[Route]:
    """The routes of the page."""
    folder = resources.files("btkeras.server") / "web"
    files = {file.name: file.read_bytes() for file in folder.iterdir() if Path(file.name).suffix in _MEDIA_TYPES}
    digest = hashlib.sha256(b"".join(name.encode() + files[name] for name in sorted(files))).hexdigest()[:16]
    pages = {name: data.replace(_STATIC, f"static/{digest}".encode()) for name, data in files.items()}

    async def home(_: Request) -> Response:
        return Response(pages["index.html"], media_type="text/html")

    async def static(request: Request) -> Response:
        name = request.path_params["name"]
        if request.path_params["digest"] != digest or name not in files:
            raise HTTPException(404, "The page has no such file")
        return Response(files[name], headers=_IMMUTABLE, media_type=_MEDIA_TYPES[Path(name).suffix])

    async def model(_: Request) -> Response:
        return JSONResponse(describe_model(served))

    async def card(_: Request) -> Response:
        page = pages["card.html"].replace(b"{card}", _card_html(served.backend.source).encode())
        return Response(page, media_type="text/html")

    async def slices(request: Request) -> Response:
        return JSONResponse(await _classify_slice(served, request))

    return [
        Route("/", home, name="page"),
        Route("/static/{digest}/{name}", static, name="page"),
        Route("/model-card", card, name="page"),
        Route("/api/model", model, name="page"),
        Route("/api/slices", slices, methods=["POST"], name="page"),
    ]


def describe_model(served: ServedModel) -> dict[str, Any]:
    """What the page shows of the model, and ``max_bytes``, the size that a file may have."""
    backend = served.backend
    return {
        "model": served.name,
        "version": backend.version,
        "classes": backend.classes,
        "coverage": COVERAGE if backend.calibration else None,
        "ood_threshold": 100 * OOD_PERCENTILE if backend.ood_calibration else None,
        "has_maps": backend.explain is not None,
        "has_card": _card_file(backend.source) is not None,
        "max_bytes": served.settings.limits.body_bytes,
    }


def _card_file(source: Path) -> Path | None:
    return next((file for file in (source / EXTRA / CARD, source / CARD) if file.is_file()), None)


@functools.lru_cache(1)
def _card_html(source: Path) -> str:
    """A model's card as a piece of HTML; markup in the card itself is shown as text."""
    file = _card_file(source)
    if file is None:
        raise HTTPException(404, "This model has no card. Write one with: btkeras card RUN.")
    from markdown_it import MarkdownIt

    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    tokens = markdown.parse(file.read_text(encoding="utf-8"))
    for token, inside in itertools.pairwise(tokens):
        if token.type == "heading_open":
            # What a link in the card calls a heading, as on GitHub.
            token.attrSet("id", re.sub(r"[^\w -]", "", inside.content.lower()).replace(" ", "-"))
    html = str(markdown.renderer.render(tokens, markdown.options, {}))
    # On a phone a wide table scrolls on its own, by keyboard too.
    return html.replace("<table>", _TABLE + "<table>").replace("</table>", "</table></div>")


async def _classify_slice(served: ServedModel, request: Request) -> dict[str, Any]:
    """Classifies a slice of the file that is the request's body, of any kind that `predict` reads.

    The query may have ``name`` (for messages), ``slice`` (from 0, by default the middle one) and ``axis`` (the view of
    a NIfTI volume).

    Returns:
        What ``predict --json`` says of the slice; ``name``, ``format``, ``width`` and ``height`` of the image; the
        model's description (``describe_model``); and in base64 ``image``, a PNG, and ``map``, a transparent PNG of the
        same size to be laid over it, or None.
    """
    query, ticket = request.query_params, request.scope["ticket"]
    number, name = _slice_number(query.get("slice")), query.get("name") or "the file"
    body = await read_body(request, served.settings.limits)
    axis = query.get("axis") or None
    description, image, rejection = await served.run(ticket, _read_slice, served, body, name, number, axis)
    item = await served.run(ticket, served.predictor.preprocess, image, rejection)
    _, (prediction,) = await served.predict(ticket, [item])
    # No map of what is no slice.
    heat = None if prediction.decision == REJECTED else await served.explain(ticket, item.pixels, prediction.label)
    return {
        "name": name,
        **description,
        **{field: getattr(prediction, field) for field in _PREDICTION_FIELDS},
        **await served.run(ticket, _draw, served.backend, image, heat),
        **describe_model(served),
    }


def _slice_number(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise HTTPException(400, f"A slice must be a whole number from 0. Received: slice={text[:40]}.")
    return int(text)


def _read_slice(
    served: ServedModel, data: bytes, name: str, number: int | None, axis: str | None
) -> tuple[dict[str, Any], ImageArray, str | None]:
    """A slice's description, its pixels, and why it is rejected already; the rest of a volume is freed here."""
    if sniff(data) in KINDS:
        # Readers of DICOM and NIfTI bound what they decode themselves.
        served.check_size(*image_size(data, name), name)
    slices = open_slices(data, name, axis)
    number = slices.middle if number is None else number
    if number >= slices.count:
        received = f"slice {number} of {slices.count} in {name}"
        raise ImageError("A slice must be one of the file's, counted from 0", received=received)
    image = slices.image(number).copy()
    description = {"format": slices.kind, "axis": slices.axis or None, "slices": slices.count, "slice": number}
    return description | {"height": image.shape[0], "width": image.shape[1]}, image, slices.rejection


def _draw(backend: InferenceBackend, image: ImageArray, heat: NDArray[np.float32] | None) -> dict[str, str | None]:
    overlay = None if heat is None else map_png(heat, input_window(image, backend.harmonize), image.shape[:2])
    return {
        name: base64.b64encode(data).decode() if data else None
        for name, data in (("image", image_png(image)), ("map", overlay))
    }
