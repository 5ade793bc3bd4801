"""``POST /api/slices``: one slice of one file, answered as ``predict`` answers it, with images for the page."""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from btkeras.datasets.readers import Slices
from btkeras.datasets.readers.images import open_slices
from btkeras.decisions.selective_classifier import REJECTED
from btkeras.errors import ImageError
from btkeras.inference.backends.base import InferenceBackend
from btkeras.inference.overlay import image_png, map_png, seen_window
from btkeras.inference.processing import FilePrediction, Postprocessor, PreprocessedInput
from btkeras.preprocessing.image_file import FORMATS, check_image, sniff
from btkeras.server.page_model import PageEngine, model_facts, network_of
from btkeras.server.problems import HTTPError

# A version may be replaced between its preprocessing and its answer.
_TRIES = 3


class _Asked(NamedTuple):
    """Attributes:
    data: The file.
    name: What messages call it.
    number: Of the slice, from 0; None for the middle one.
    axis: View of a volume; None for the one that was scanned.
    pixels: Most pixels of a PNG or JPEG.
    """

    data: bytes
    name: str
    number: int | None
    axis: str | None
    pixels: int


class _Read(NamedTuple):
    """One slice of a file, before the network."""

    slices: Slices
    number: int
    image: NDArray[np.uint8]
    opened: PreprocessedInput


async def answer_slice(engine: PageEngine, request: Request) -> dict[str, Any]:
    """Answers a request whose body is a file: PNG, JPEG, DICOM or NIfTI.

    Its query may have ``name`` (for messages), ``slice`` (from 0, by default the middle one) and ``axis`` (the view of
    a NIfTI volume).

    Returns:
        What ``predict --json`` says of the slice; ``name``, ``kind``, ``width`` and ``height`` of the image; the
        facts of the model (``page_model.model_facts``); and in base64 ``image``, a PNG, and ``map``, a transparent
        PNG of the same size to be laid over it, or None.

    Raises:
        DataError: If the file cannot be read.
        Problem: If the query is malformed, or the server is busy.
    """
    query = request.query_params
    name, number = query.get("name") or "the file", _number(query.get("slice"))
    pixels = engine.settings.limits.pixels
    asked = _Asked(await request.body(), name, number, query.get("axis") or None, pixels)
    for _ in range(_TRIES):
        network = network_of(engine)
        answering = Postprocessor.of(network)
        read = await engine.run(_read, asked, answering)
        probabilities, scores = await engine.observe(read.opened.pixels[None])
        if network_of(engine) is network:
            break
    answer = answering.answers(probabilities, scores, [read.opened.rejection])[0]
    drawn = await engine.run(_drawn, read, network, answer)
    return {"name": name, **model_facts(network, engine.settings), **_words(read, answer), **drawn}


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise HTTPError(400, f"A slice must be a whole number from 0. Received: slice={text[:40]}.")
    return int(text)


def _read(asked: _Asked, answering: Postprocessor) -> _Read:
    _check_pixels(asked)
    slices = open_slices(asked.data, asked.name, asked.axis)
    number = slices.middle if asked.number is None else asked.number
    if number >= slices.count:
        raise ImageError(
            "A slice must be one of the file's, counted from 0",
            received=f"slice {number} of {slices.count} in {asked.name}",
        )
    image = slices.image(number)
    return _Read(slices, number, image, answering.open(image, slices.rejection))


def _check_pixels(asked: _Asked) -> None:
    """A PNG or JPEG within the server's limit; of others, the readers bound what they decode."""
    if sniff(asked.data) in FORMATS:
        width, height = check_image(asked.data, asked.name)
        if width * height > asked.pixels:
            raise ImageError(
                f"An image must have at most {asked.pixels} pixels on this server",
                received=f"{asked.name} with {width} x {height}",
                remedy="Make it smaller first",
            )


def _drawn(read: _Read, network: InferenceBackend, answer: FilePrediction) -> dict[str, str | None]:
    """No map without an explanation, and none of what is no slice."""
    image, opened = read.image, read.opened
    heat = None
    if network.explain is not None and answer.decision != REJECTED:
        index = np.array([network.classes.index(answer.label)])
        window = seen_window(image, network.harmonize)
        heat = map_png(network.explain(opened.pixels[None], index)[0], window, image.shape[:2])
    return {"image": _base64(image_png(image)), "map": _base64(heat) if heat else None}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _words(read: _Read, answer: FilePrediction) -> dict[str, Any]:
    height, width = read.image.shape[:2]
    return {
        "kind": read.slices.kind,
        "axis": read.slices.axis or None,
        "slices": read.slices.count,
        "slice": read.number,
        "width": width,
        "height": height,
        "label": answer.label,
        "decision": answer.decision,
        "probabilities": answer.probabilities,
        "set": answer.set,
        "ood_percentile": answer.ood_percentile,
        "reasons": answer.reasons,
    }
