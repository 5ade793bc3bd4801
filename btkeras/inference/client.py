"""Classifies through a server: TensorFlow Serving's REST interface, whoever serves it. Needs no TensorFlow."""

from __future__ import annotations

import io
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, NamedTuple

from btkeras.datasets.readers import Slices
from btkeras.errors import ImageError
from btkeras.inference.client_http import Connection, Rejected, ServerError, predict_url
from btkeras.inference.inputs import SliceRef, opener
from btkeras.inference.processing import FilePrediction
from btkeras.preprocessing.decode import ImageArray
from btkeras.preprocessing.image_file import FORMATS, read_bytes

# Of one request; base64 makes its body a third larger.
BATCH, BATCH_BYTES = 16, 4 * 2**20
WORKERS = 4
# The model's name unless another is given; deploy/ calls it so.
NAME = "btkeras"
# As evaluation.verdicts.REFUSED, which cannot be imported without Keras.
_REFUSED = "rejected"

_Opener = Callable[[SliceRef], Slices]
_Row = dict[str, Any] | Rejected


class ServerPredictions(NamedTuple):
    """Attributes:
    classes: Names, in the order of the probabilities; none if no image got an answer.
    answers: One for each slice, in their order.
    """

    classes: tuple[str, ...]
    answers: Iterator[FilePrediction]


@dataclass(frozen=True)
class _Sent:
    """Attributes:
    known: The answer as far as it is known without the server: the place, or the error.
    data: Encoded as PNG or JPEG; None with an error.
    rejection: Why the file holds no brain MRI slice, or None.
    """

    known: FilePrediction
    data: bytes | None = None
    rejection: str | None = None


class Client:
    """A model on a server.

    Its answers have no prediction sets and no outlier percentages, which need what was learnt from the validation part;
    every image that it can read is answered with the most probable class.

    Args:
        server: ``http[s]://HOST[:PORT]``.
        name: The model's name there.
        version: A version's number, or its label; "" for the server's choice.
        token: Sent as a bearer token, if there is one.

    Attributes:
        source: Where images are sent.

    Raises:
        ConfigError: If the address is none.
    """

    def __init__(self, server: str, name: str = NAME, version: str = "", token: str | None = None) -> None:
        self.source = predict_url(server, name, version)
        self._stop = threading.Event()
        self._connection = Connection(self.source, token, self._stop.wait)

    def predict_files(self, refs: Sequence[SliceRef]) -> ServerPredictions:
        """Classifies any number of slices in bounded memory, a few requests at a time.

        DICOM and NIfTI are opened here and sent as PNG. If the server rejects a batch, its images are sent one by
        one, and the error belongs to those that are rejected alone.

        Raises:
            ServerError: If the server cannot be reached or used; with the first answers or with later ones.
            MissingExtraError: If a file is DICOM or NIfTI and ``btkeras[medical]`` is not installed.
        """
        answers = self._all(refs)
        seen: list[FilePrediction] = []
        for answer in answers:
            seen.append(answer)
            if not answer.error:
                break
        classes = tuple(seen[-1].probabilities) if seen else ()
        return ServerPredictions(classes, _alike(chain(seen, answers), classes))

    def _all(self, refs: Sequence[SliceRef]) -> Iterator[FilePrediction]:
        self._stop.clear()
        opened = opener()
        remaining = iter(refs)
        running: deque[Future[list[FilePrediction]]] = deque()
        pool = ThreadPoolExecutor(WORKERS)
        try:
            while group := list(islice(remaining, BATCH)):
                running.append(pool.submit(self._group, opened, group))
                if len(running) > WORKERS:
                    yield from running.popleft().result()
            while running:
                yield from running.popleft().result()
        finally:
            self._stop.set()
            pool.shutdown(cancel_futures=True)

    def _group(self, opened: _Opener, refs: list[SliceRef]) -> list[FilePrediction]:
        done: list[FilePrediction] = []
        waiting: list[_Sent] = []
        size = 0
        for ref in refs:
            image = _open(opened, ref)
            more = len(image.data or b"")
            if size and size + more > BATCH_BYTES:
                done += self._send(waiting)
                waiting, size = [], 0
            waiting.append(image)
            size += more
        return done + self._send(waiting)

    def _send(self, sent: list[_Sent]) -> list[FilePrediction]:
        images = [image.data for image in sent if image.data is not None]
        rows = iter(self._rows(images) if images else ())
        return [image.known if image.data is None else _answer(image, next(rows)) for image in sent]

    def _rows(self, images: list[bytes]) -> list[_Row]:
        """The outputs for each image, or why it has none."""
        try:
            return [*self._connection.predict(images)]
        except Rejected as error:
            if len(images) == 1:
                return [error]
        return [row for image in images for row in self._rows([image])]


def _open(opened: _Opener, ref: SliceRef) -> _Sent:
    try:
        slices = opened(ref)
        number = ref.number(slices)
        data = read_bytes(ref.path) if slices.kind in FORMATS else _png(slices.image(number))
    except ImageError as error:
        return _Sent(FilePrediction(ref.path, error=str(error), file=ref.path))
    path = f"{ref.path}#{number}" if slices.count > 1 else ref.path
    place = FilePrediction(path, file=ref.path, slice=number, slices=slices.count, axis=slices.axis or None)
    return _Sent(place, data, slices.rejection)


def _png(image: ImageArray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _answer(image: _Sent, row: _Row) -> FilePrediction:
    if isinstance(row, Rejected):
        error = ImageError("A server must be able to read an image", received=f"{image.known.path} ({row})")
        return FilePrediction(image.known.path, error=str(error), file=image.known.file)
    probabilities = _probabilities(row)
    label = max(probabilities, key=lambda name: probabilities[name])
    answered = replace(image.known, label=label, probabilities=probabilities, decision=label)
    if image.rejection is None:
        return answered
    return replace(answered, decision=_REFUSED, reasons=(f"no brain MRI slice: {image.rejection}",))


def _probabilities(row: dict[str, Any]) -> dict[str, float]:
    classes, values = row.get("classes"), row.get("probabilities")
    named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    if not (named and isinstance(values, list) and classes and len(classes) == len(values)):
        raise ServerError(
            "A server's model must be one of `btkeras export`, with the outputs classes and probabilities",
            received=f"the outputs {', '.join(sorted(row)) or 'none'}",
        )
    # JSON of TensorFlow Serving may hold NaN; booleans are numbers to Python alone.
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        raise ServerError("A server's probabilities must be numbers", received=values)
    return dict(zip(classes, map(float, values), strict=True))


def _alike(answers: Iterator[FilePrediction], classes: tuple[str, ...]) -> Iterator[FilePrediction]:
    """Passes answers on as long as they are of one set of classes; another version may have others."""
    for answer in answers:
        if not answer.error and tuple(answer.probabilities) != classes:
            raise ServerError(
                "All answers must be of one set of classes",
                received=f"{', '.join(answer.probabilities)} after {', '.join(classes)}",
                remedy="Did the server's version change? Choose one with --model-version",
            )
        yield answer
