"""Predictions for files by a server with TensorFlow Serving's REST interface. Needs no TensorFlow."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

from btkeras.datasets.readers.images import encode_png
from btkeras.decisions.selective_classifier import REJECTED
from btkeras.errors import ImageError
from btkeras.inference.backends import batched
from btkeras.inference.inputs import Opener, SliceRef, opener
from btkeras.inference.predictor import FilePrediction, place_of
from btkeras.inference.rest import Connection, RequestRejected, ServerError, predict_url
from btkeras.preprocessing.image_file import FORMATS, read_bytes

# Limits of one request; base64 makes its body a third larger.
BATCH, BATCH_BYTES = 16, 4 * 2**20
WORKERS = 4
# The model's name in deploy/.
MODEL_NAME = "btkeras"


class ServerPredictions(NamedTuple):
    """Class names in the order of the probabilities (none if no image could be predicted), and the predictions."""

    classes: tuple[str, ...]
    predictions: Iterator[FilePrediction]


class _Request(NamedTuple):
    """A slice's place and encoded image; no image if ``place`` has an error."""

    place: FilePrediction
    image: bytes | None = None
    rejection: str | None = None


class Client:
    """A model on a server, whose predictions have no prediction sets and no OOD percentiles.

    The decision is the most probable class, or ``rejected`` if a DICOM file says that it holds no brain MRI slice.

    Args:
        server: ``http[s]://HOST[:PORT]``, with a path before ``/v1`` if a proxy has one.
        name: The model's name there.
        version: A version's number, or its label; "" for the server's choice.
        token: Sent as a bearer token, if there is one.

    Attributes:
        source: The address that images are sent to.

    Raises:
        ConfigError: If the server's address is none.
    """

    def __init__(self, server: str, name: str = MODEL_NAME, version: str = "", token: str | None = None) -> None:
        self.source = predict_url(server, name, version)
        self._stop = threading.Event()
        self._connection = Connection(self.source, token, self._stop.wait)

    def predict_files(self, refs: Sequence[SliceRef]) -> ServerPredictions:
        """Classifies any number of slices, in their order, in bounded memory, a few requests at a time.

        DICOM and NIfTI are opened here and sent as PNG. If the server rejects a request, its images are sent one by
        one.

        Raises:
            ServerError: If the server cannot be reached or used; with the first predictions or with later ones.
            MissingExtraError: If a file is DICOM or NIfTI and ``btkeras[medical]`` is not installed.
        """
        predictions = self._all(refs)
        first: list[FilePrediction] = []
        for prediction in predictions:
            first.append(prediction)
            if not prediction.error:
                break
        classes = tuple(first[-1].probabilities) if first else ()
        return ServerPredictions(classes, _of_classes(chain(first, predictions), classes))

    def _all(self, refs: Sequence[SliceRef]) -> Iterator[FilePrediction]:
        self._stop.clear()
        open_file = opener()
        running: deque[Future[list[FilePrediction]]] = deque()
        pool = ThreadPoolExecutor(WORKERS)
        try:
            for group in batched(refs, BATCH):
                running.append(pool.submit(self._group, open_file, group))
                if len(running) > WORKERS:
                    yield from running.popleft().result()
            while running:
                yield from running.popleft().result()
        finally:
            self._stop.set()
            pool.shutdown(cancel_futures=True)

    def _group(self, open_file: Opener, refs: list[SliceRef]) -> list[FilePrediction]:
        done: list[FilePrediction] = []
        waiting: list[_Request] = []
        size = 0
        for ref in refs:
            request = _request(open_file, ref)
            added = len(request.image or b"")
            if size and size + added > BATCH_BYTES:
                done += self._send(waiting)
                waiting, size = [], 0
            waiting.append(request)
            size += added
        return done + self._send(waiting)

    def _send(self, sent: list[_Request]) -> list[FilePrediction]:
        images = [request.image for request in sent if request.image is not None]
        rows = iter(self._rows(images) if images else ())
        return [each.place if each.image is None else _prediction(each, next(rows)) for each in sent]

    def _rows(self, images: list[bytes]) -> list[dict[str, Any] | RequestRejected]:
        """The outputs for each image, or why it has none."""
        try:
            return [*self._connection.predict(images)]
        except RequestRejected as error:
            if len(images) == 1:
                return [error]
        return [row for image in images for row in self._rows([image])]


def _request(open_file: Opener, ref: SliceRef) -> _Request:
    try:
        slices = open_file(ref)
        number = ref.number(slices)
        data = read_bytes(ref.path) if slices.kind in FORMATS else encode_png(slices.image(number))
    except ImageError as error:
        return _Request(FilePrediction(ref.path, error=str(error), file=ref.path))
    return _Request(place_of(ref, slices, number), data, slices.rejection)


def _prediction(sent: _Request, row: dict[str, Any] | RequestRejected) -> FilePrediction:
    if isinstance(row, RequestRejected):
        error = ImageError("A server must be able to read an image", received=f"{sent.place.path} ({row})")
        return FilePrediction(sent.place.path, error=str(error), file=sent.place.file)
    probabilities = _probabilities(row)
    label = max(probabilities, key=lambda name: probabilities[name])
    found = replace(sent.place, label=label, probabilities=probabilities, decision=label)
    if sent.rejection is None:
        return found
    return replace(found, decision=REJECTED, reasons=(f"no brain MRI slice: {sent.rejection}",))


def _probabilities(row: dict[str, Any]) -> dict[str, float]:
    classes, values = row.get("classes"), row.get("probabilities")
    named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    if not (named and isinstance(values, list) and classes and len(classes) == len(values)):
        raise ServerError(
            "A server's model must be one of `btkeras export`, with the outputs classes and probabilities",
            received=f"the outputs {', '.join(sorted(row)) or 'none'}",
        )
    # JSON of TensorFlow Serving may hold NaN.
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        raise ServerError("A server's probabilities must be numbers", received=values)
    return dict(zip(classes, map(float, values), strict=True))


def _of_classes(predictions: Iterator[FilePrediction], classes: tuple[str, ...]) -> Iterator[FilePrediction]:
    """Passes predictions on as long as they are of one set of classes; another version may have others."""
    for prediction in predictions:
        if not prediction.error and tuple(prediction.probabilities) != classes:
            raise ServerError(
                "All predictions must be of one set of classes",
                received=f"{', '.join(prediction.probabilities)} after {', '.join(classes)}",
                remedy="Did the server's version change? Choose one with --model-version",
            )
        yield prediction
