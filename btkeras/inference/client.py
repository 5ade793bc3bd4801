"""Predictions for files by a server with TensorFlow Serving's REST interface. Needs no TensorFlow.

Reference: https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

import base64
import json
import math
import textwrap
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from btkeras.datasets.readers.images import encode_png
from btkeras.decisions.selective_classifier import REJECTED
from btkeras.errors import BTKerasError, ConfigError, ImageError
from btkeras.inference.backends import batched
from btkeras.inference.inputs import Opener, SliceRef, opener
from btkeras.inference.predictor import FilePrediction, place_of
from btkeras.preprocessing.image_file import FORMATS, read_bytes

TOKEN = "BTKERAS_TOKEN"
# The model's name in deploy/.
MODEL_NAME = "btkeras"
# Limits of one request; base64 makes its body a third larger.
BATCH, BATCH_BYTES = 16, 4 * 2**20
WORKERS = 4
# Seconds to connect, and until the response begins; TensorFlow Serving itself gives up after 30.
_TIMEOUTS = (10.0, 60.0)
# Statuses of a server that is full or between two versions: the request is repeated.
_BUSY = frozenset({429, 503})
_ATTEMPTS = 6
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
# Statuses of a faulty request; with several images in it, one of them may be the reason.
_FAULTY = frozenset({400, 413, 422, 500})
_MODELS = "/v1/models/"
# Of other statuses, rule and remedy.
_NO_ACCESS = ("A server must accept the token", f"Put the right one into the environment variable {TOKEN}")
_NO_LABEL = (
    "A label must be one that the server gives a version",
    "Name a version's number with --model-version; `btkeras serve` has no labels",
)
_STATUS_ERRORS = {
    401: _NO_ACCESS,
    403: _NO_ACCESS,
    404: ("A server must have the model", "Name it with --name, and its version with --model-version"),
}
_PROTOCOL = "A server must answer as TensorFlow Serving does, with a model of `btkeras export`"


class ServerError(BTKerasError):
    """A server cannot be reached, or does not answer as TensorFlow Serving does."""


class _RequestRejected(Exception):
    """The server cannot process this request, maybe because of one of its images."""


_Row = dict[str, Any] | _RequestRejected
# A slice's place, with the decision if it has one already, and its encoded image; None if ``place`` has an error.
_Request = tuple[FilePrediction, bytes | None]


class Client:
    """A model on a server, whose predictions have no prediction sets and no OOD percentiles.

    The decision is the most probable class, or ``rejected`` if a DICOM file says that it holds no brain MRI slice.

    Args:
        server: ``http[s]://HOST[:PORT]``, with a path before ``/v1`` if a proxy has one.
        name: The model's name there.
        version: A version's number, or its label; "" for the server's choice.
        token: Sent as a bearer token, if there is one.

    Raises ConfigError if the server's address is none.
    """

    def __init__(self, server: str, name: str = MODEL_NAME, version: str = "", token: str | None = None) -> None:
        # The address that images are sent to.
        self.source, self._token = predict_url(server, name, version), token
        self._stop = threading.Event()
        # Waits seconds between two attempts, and returns whether to give up.
        self._wait = self._stop.wait
        # A session must not be shared by threads.
        self._local = threading.local()

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
        return classes, _of_classes(chain(first, predictions), classes)

    def _all(self, refs: Sequence[SliceRef]) -> Iterator[FilePrediction]:
        self._stop.clear()
        open_file = opener()
        running: deque[Future[list[FilePrediction]]] = deque()
        pool = ThreadPoolExecutor(WORKERS, initializer=self._connect)
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

    def _connect(self) -> None:
        session = self._local.session = requests.Session()
        session.headers["Content-Type"] = "application/json"
        if self._token:
            # As `auth`, since a header would give way to what a .netrc file says of the host.
            session.auth = self._authorize

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request

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
        response = self._post(json.dumps({"signature_name": "serving_default", "instances": instances}).encode())
        if response.status_code != 200:
            raise self._failure(response.status_code, _message(response))
        rows = _parsed(response).get("predictions")
        if not isinstance(rows, list) or len(rows) != len(images) or not all(isinstance(row, dict) for row in rows):
            received = f"a response that is not {len(images)} objects under `predictions`, from {self.source}"
            raise ServerError(_PROTOCOL, received=received)
        return rows

    def _failure(self, status: int, message: str) -> Exception:
        rule, remedy = _STATUS_ERRORS.get(status, (_PROTOCOL, ""))
        if status in _FAULTY and "servable version label" in message:
            rule, remedy = _NO_LABEL
        elif status in _FAULTY:
            return _RequestRejected(message)
        return ServerError(rule, received=f"{status} from {self.source} ({message})", remedy=remedy)

    def _post(self, body: bytes) -> requests.Response:
        for attempt in range(_ATTEMPTS):
            response = self._post_once(body)
            if response.status_code not in _BUSY:
                return response
            # The server's `Retry-After`, or twice as long each time.
            wanted = response.headers.get("Retry-After", "")
            pause = float(wanted) if wanted.isdecimal() else _FIRST_WAIT * 2**attempt
            if attempt + 1 < _ATTEMPTS and self._wait(min(pause, _LONGEST_WAIT)):
                break
        raise ServerError(
            "A server must have room for the request",
            received=f"{response.status_code} from {self.source}, {attempt + 1} times ({_message(response)})",
            remedy="Try again later, or with fewer clients at a time",
        )

    def _post_once(self, body: bytes) -> requests.Response:
        session: requests.Session = self._local.session
        try:
            return session.post(self.source, body, timeout=_TIMEOUTS, allow_redirects=False)
        except requests.Timeout as error:
            received = f"nothing from {self.source} within {_TIMEOUTS[1]:.0f} s"
            rule, remedy = "A server must answer in time", "Check whether it is overloaded"
            raise ServerError(rule, received=received, remedy=remedy) from error
        except requests.RequestException as error:
            received = f"{self.source} ({_reason(error)})"
            remedy = "Check whether it is running, and whether host and port are right"
            raise ServerError("A server must be reachable", received=received, remedy=remedy) from error


def predict_url(server: str, name: str, version: str) -> str:
    """The address of a model's predictions; arguments and errors as ``Client``."""
    parts = urlsplit(server)
    if parts.scheme not in ("http", "https") or not parts.hostname or _MODELS in parts.path:
        raise ConfigError(
            "A server's address must be http://HOST:PORT or https://HOST:PORT",
            received=server,
            remedy="The model's name and version are given by --name and --model-version",
        )
    kind = "versions" if version.isdecimal() else "labels"
    chosen = f"/{kind}/{quote(version, safe='')}" if version else ""
    return f"{server.rstrip('/')}{_MODELS}{quote(name, safe='')}{chosen}:predict"


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
    return replace(place, label=label, probabilities=probabilities, decision=place.decision or label)


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


def _parsed(response: requests.Response) -> dict[str, Any]:
    try:
        value = json.loads(response.content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _message(response: requests.Response) -> str:
    """A response's error, on one line."""
    error = _parsed(response).get("error")
    text = error if isinstance(error, str) else response.reason or "no reason given"
    return textwrap.shorten(text, 300, placeholder="...")


def _reason(error: BaseException) -> str:
    """The innermost reason, without the wrapping of three libraries."""
    while error.__context__ is not None:
        error = error.__context__
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
