"""Predictions for files by a server with TensorFlow Serving's REST interface. Needs no TensorFlow."""

from __future__ import annotations

import base64
import json
import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from typing import Any

from btkeras.datasets.readers.images import encode_png
from btkeras.decisions.selective_classifier import REJECTED
from btkeras.errors import ConfigError, ImageError
from btkeras.inference.backends import batched
from btkeras.inference.connection import Connection, ServerError, message, parsed
from btkeras.inference.inputs import Opener, SliceRef, opener
from btkeras.inference.predictor import FilePrediction, place_of
from btkeras.logging import logger
from btkeras.preprocessing.image_file import FORMATS, read_bytes

# The model's name in deploy/.
MODEL_NAME = "btkeras"
# Limits of one request; base64 makes its body a third larger.
BATCH, BATCH_BYTES = 16, 4 * 2**20
WORKERS = 4
# Statuses of a faulty request; with several images in it, one of them may be the reason.
_FAULTY = frozenset({400, 413, 422, 500})
# Of other statuses, rule and remedy.
_NO_ACCESS = ("A server must accept the token", "Put the right one into the environment variable BTKERAS_TOKEN")
_NO_LABEL = (
    "A label must be one that the server gives a version",
    "Name a version's number with --model-version; `btkeras serve` has no labels",
)
_STATUS_ERRORS = {
    401: _NO_ACCESS,
    403: _NO_ACCESS,
    404: ("A server must have the model", "Name it with --name, and its version with --model-version"),
}
# Of the fields of a decision; lists are of texts.
_KINDS = {"decision": str, "reasons": list, "set": list, "ood_percentile": float}
_PROTOCOL = "A server must answer as TensorFlow Serving does, with a model of `btkeras export`"


class _RequestRejected(Exception):
    """The server cannot process this request, maybe because of one of its images."""


_Row = dict[str, Any] | _RequestRejected
# A slice's place, with the decision if it has one already, and its encoded image; None if ``place`` has an error.
_Request = tuple[FilePrediction, bytes | None]


class Client:
    """A model on a server.

    `btkeras serve` decides, and the predictions are as a local model's. TensorFlow Serving gives probabilities: the
    predictions have no decision, prediction set or OOD percentile, unless a DICOM file itself says that it holds no
    brain MRI slice.

    Args:
        server: Address, as for ``Connection``.
        name: The model's name there; by default the server's only model, and ``MODEL_NAME`` where a server does not
            list its models, as TensorFlow Serving.
        version: A version's number, or its label; "" for the server's choice.
        token: Sent as a bearer token, if there is one.

    Raises:
        ConfigError: If the server's address is none, or it has several models and none is named.
        ServerError: If no model is named and the server cannot be asked for it.
    """

    def __init__(self, server: str, name: str = "", version: str = "", token: str | None = None) -> None:
        self._connection = Connection(server, token)
        # The address that images are sent to.
        self.source = self._connection.predict_url(name or self._only_model(), version)

    def _only_model(self) -> str:
        """The only name in a server's list of models, which is KServe's: ``{"models": [NAME, ...]}``."""
        response = self._connection.send("GET", self._connection.models)
        if response.status_code in _STATUS_ERRORS and response.status_code != 404:
            raise self._failure(response.status_code, message(response), self._connection.models)
        names = parsed(response).get("models")
        if response.status_code != 200 or not isinstance(names, list):
            logger.info(f"the server does not list its models: {MODEL_NAME} is asked for (--name names another one)")
            return MODEL_NAME
        if len(names) != 1:
            received = f"{len(names)} of {self._connection.models}: {', '.join(map(str, names))}"
            raise ConfigError("One of the server's models must be named", received=received, remedy="Use --name NAME")
        return str(names[0])

    def predict_files(self, refs: Sequence[SliceRef]) -> tuple[tuple[str, ...], Iterator[FilePrediction]]:
        """Classifies any number of slices, in their order, in bounded memory, a few requests at a time.

        DICOM and NIfTI are opened here and sent as PNG. Images of a rejected request are sent again one by one.

        Returns:
            Class names in the order of the probabilities (none if no image could be predicted), and the predictions.

        Raises:
            ServerError: If the server cannot be reached or used; with the first predictions or with later ones.
            MissingExtraError: If a file is DICOM or NIfTI and ``btkeras[medical]`` is not installed.
        """
        predictions = self._all(refs)
        first: list[FilePrediction] = []
        while (not first or first[-1].error) and (prediction := next(predictions, None)):
            first.append(prediction)
        classes = tuple(first[-1].probabilities) if first else ()
        if classes and not first[-1].decision:
            logger.info("the server gives no decisions: label is the most probable class, however improbable")
        return classes, _of_classes(chain(first, predictions), classes)

    def _all(self, refs: Sequence[SliceRef]) -> Iterator[FilePrediction]:
        self._connection.stop(False)
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
            self._connection.stop()
            pool.shutdown(cancel_futures=True)

    def _group(self, open_file: Opener, refs: list[SliceRef]) -> list[FilePrediction]:
        done: list[FilePrediction] = []
        waiting: list[_Request] = []
        for ref in refs:
            request = _request(open_file, ref)
            size = sum(len(image or b"") for _, image in waiting)
            if size and size + len(request[1] or b"") > BATCH_BYTES:
                done += self._send(waiting)
                waiting = []
            waiting.append(request)
        return done + self._send(waiting)

    def _send(self, sent: list[_Request]) -> list[FilePrediction]:
        images = [image for _, image in sent if image is not None]
        rows = iter(self._rows(images) if images else ())
        return [place if image is None else _prediction(place, next(rows)) for place, image in sent]

    def _rows(self, images: list[bytes]) -> list[_Row]:
        try:
            return [*self._predict(images)]
        except _RequestRejected as error:
            return [error] if len(images) == 1 else [row for image in images for row in self._rows([image])]

    def _predict(self, images: Sequence[bytes]) -> list[dict[str, Any]]:
        """Sends encoded images in one request, and returns the outputs of each by name."""
        instances = [{"image_bytes": {"b64": base64.b64encode(image).decode("ascii")}} for image in images]
        body = json.dumps({"signature_name": "serving_default", "instances": instances}).encode()
        response = self._connection.send("POST", self.source, body)
        if response.status_code != 200:
            raise self._failure(response.status_code, message(response), self.source)
        rows = parsed(response).get("predictions")
        if not isinstance(rows, list) or len(rows) != len(images) or not all(isinstance(row, dict) for row in rows):
            received = f"a response that is not {len(images)} objects under `predictions`, from {self.source}"
            raise ServerError(_PROTOCOL, received=received)
        return rows

    @staticmethod
    def _failure(status: int, text: str, source: str) -> Exception:
        rule, remedy = _STATUS_ERRORS.get(status, (_PROTOCOL, ""))
        if status in _FAULTY and "servable version label" in text:
            rule, remedy = _NO_LABEL
        elif status in _FAULTY:
            return _RequestRejected(text)
        return ServerError(rule, received=f"{status} from {source} ({text})", remedy=remedy)


def _request(open_file: Opener, ref: SliceRef) -> _Request:
    try:
        slices = open_file(ref)
        number = ref.number(slices)
        data = read_bytes(ref.path) if slices.kind in FORMATS else encode_png(slices.image(number))
    except ImageError as error:
        return FilePrediction(ref.path, error=str(error), file=ref.path), None
    place = place_of(ref, slices, number)
    if slices.rejection:
        place = replace(place, decision=REJECTED, reasons=(f"no brain MRI slice: {slices.rejection}",))
    return place, data


def _prediction(place: FilePrediction, row: _Row) -> FilePrediction:
    if isinstance(row, _RequestRejected):
        error = ImageError("A server must be able to read an image", received=f"{place.path} ({row})")
        return FilePrediction(place.path, error=str(error), file=place.file)
    probabilities = _probabilities(row)
    label = max(probabilities, key=lambda name: probabilities[name])
    found = replace(place, label=label, probabilities=probabilities, **_decided(row))
    # What the header of a DICOM file says, the server cannot know.
    return replace(found, decision=place.decision, reasons=place.reasons) if place.decision else found


def _decided(row: dict[str, Any]) -> dict[str, Any]:
    """The fields of a decision; none in the outputs of TensorFlow Serving."""
    if "decision" not in row:
        return {}
    found = {name: row[name] for name in _KINDS if row.get(name) is not None}
    wrong = [name for name, value in found.items() if not _has_kind(value, _KINDS[name])]
    if wrong:
        raise ServerError(_PROTOCOL, received=f"{wrong[0]}: {json.dumps(found[wrong[0]])[:100]}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def _has_kind(value: Any, kind: type) -> bool:
    if kind is list:
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    return isinstance(value, (int, float) if kind is float else kind)


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
