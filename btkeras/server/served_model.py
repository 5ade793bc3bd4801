"""The model behind the server's routes, and the threads that it runs in.

Parsing, decoding and drawing run in as many threads as there are cores; the model runs in one (``batching``), with its
own below it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException

from btkeras.inference.backends import InferenceBackend, ModelOutputs
from btkeras.inference.backends.single_file import OWN_ENGINES
from btkeras.inference.predictor import FilePrediction, Predictor, PreprocessedInput
from btkeras.machine import threads
from btkeras.preprocessing.decode import ImageArray, decode
from btkeras.preprocessing.image_file import check_image
from btkeras.server.batching import ModelThread
from btkeras.server.limits import Admission, Ticket
from btkeras.server.settings import ServerSettings
from btkeras.server.telemetry import Metrics

# What preprocessing takes grows with the longer side, whatever the other.
MAX_SIDE = 16_384
# Images of several requests predicted together: enough for OpenVINO's streams. A few give LiteRT a sixth more images a
# second under load; more give it nothing, and take 7 MiB each.
TOGETHER, _TOGETHER_LITERT = 16, 4
_T = TypeVar("_T")


class ServedModel:
    """One model of any format, ready to answer requests.

    Attributes:
        name: The model's name in paths.
        version: The exported version's number; 1 for a run.
        predictor: Preprocesses images, and makes predictions of the model's outputs.
        metrics: The server's metrics.
        admission: The queue.
        draining: Whether the server is about to stop.
    """

    def __init__(self, backend: InferenceBackend, settings: ServerSettings) -> None:
        self.backend = backend
        self.settings = settings
        folder = backend.source.resolve()
        self.name = settings.name or (folder.name if backend.version is None else folder.parent.name)
        self.version = backend.version or 1
        self.predictor = Predictor(backend)
        self.metrics = Metrics()
        self.admission = Admission(settings.limits)
        self.draining = False
        self._workers = ThreadPoolExecutor(threads(), "worker")
        self._model = ModelThread(self.predictor.outputs, _together(backend))
        self.metrics.add_gauge("queue_images", "Images of requests under way.", lambda: self.admission.images)
        self.metrics.add_gauge("queue_bytes", "Bytes of requests under way.", lambda: self.admission.nbytes)

    def warm_up(self) -> None:
        """Runs the model, so that no request waits for what it prepares, for one image and for several."""
        pixels = np.zeros((2, self.backend.size, self.backend.size, self.backend.channels), np.uint8)
        for count in (1, 2):
            self.predictor.outputs(pixels[:count])
        file = self.backend.file
        # A file of one format has its maps ready in a fraction of a second: until one is wanted they take no memory.
        if self.backend.explain is not None and (file is None or file.suffix not in OWN_ENGINES):
            self.backend.explain(pixels[:1], np.zeros(1, np.int32))

    def close(self) -> None:
        """Ends the threads; work that has not begun is dropped."""
        self._workers.shutdown(wait=False, cancel_futures=True)
        self._model.close()

    async def run(self, ticket: Ticket, function: Callable[..., _T], *args: object) -> _T:
        """Runs a function in a worker thread."""
        return await _finished(ticket, self._workers.submit(function, *args))

    async def preprocess(self, ticket: Ticket, images: Sequence[bytes | ImageArray]) -> list[PreprocessedInput]:
        """Decodes and preprocesses images, each by itself, several at once.

        Args:
            ticket: The request's places.
            images: PNG or JPEG, or decoded images, uint8 ``[height, width, 1 or 3]``.

        Raises:
            ImageError: Of the first image that cannot be read.
            HTTPException: 400 for the first image that is too large.
        """
        pending = [self.run(ticket, self._preprocess, image, f"image {i}") for i, image in enumerate(images)]
        found: list[PreprocessedInput | BaseException] = await asyncio.gather(*pending, return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException):
                raise one
        return found  # type: ignore[return-value]

    def _preprocess(self, image: bytes | ImageArray, name: str) -> PreprocessedInput:
        if isinstance(image, bytes):
            self.check_encoded(image, name)
            image = decode(image, name)
        self.check_size(image.shape[1], image.shape[0], name)
        # Whether it is one of the model's own slices is a tenth of the work, and no part of a reply.
        return self.predictor.preprocess(image, recognize=False)

    async def predict(
        self, ticket: Ticket, inputs: Sequence[PreprocessedInput]
    ) -> tuple[ModelOutputs, list[FilePrediction]]:
        """Runs the model on preprocessed images; the predictions are ``Predictor.postprocess``'s."""
        pixels = np.stack([each.pixels for each in inputs])
        outputs = await _finished(ticket, self._model.predict(pixels))
        self.metrics.images.inc(len(pixels))
        return outputs, await self.run(ticket, self.predictor.postprocess, outputs, inputs)

    async def explain(self, ticket: Ticket, pixels: ImageArray, label: str) -> NDArray[np.float32] | None:
        """The map of a class for a preprocessed image, float32 ``[size, size]`` in 0..1; None if there are no maps."""
        if self.backend.explain is None:
            return None
        index = np.array([self.backend.classes.index(label)])
        maps = await _finished(ticket, self._model.call(self.backend.explain, pixels[None], index))
        return maps[0]

    def check_encoded(self, data: bytes, name: str) -> None:
        """Checks a PNG or JPEG by its header; errors as ``check_size``, and ImageError if it is damaged."""
        self.check_size(*check_image(data, name), name)

    def check_size(self, width: int, height: int, name: str) -> None:
        """Checks an image's size.

        Raises:
            HTTPException: 400 if it has too many pixels, or a side longer than ``MAX_SIDE``.
        """
        most = self.settings.limits.pixels
        if width * height > most or max(width, height) > MAX_SIDE:
            rule = f"An image must have at most {most} pixels, and {MAX_SIDE} on a side, on this server"
            raise HTTPException(400, f"{rule}. Received: {name} with {width} x {height}. Make it smaller first.")


def _together(backend: InferenceBackend) -> int:
    litert = backend.file is not None and backend.file.suffix == ".tflite" and not backend.engine
    return _TOGETHER_LITERT if litert else TOGETHER


async def _finished(ticket: Ticket, future: Future[_T]) -> _T:
    """Waits for work in a thread; its places stay taken until it ends, even if nobody waits any more."""
    loop = asyncio.get_running_loop()
    ticket.hold()

    def release(_: Future[_T]) -> None:
        # If the loop was closed meanwhile, the server has stopped.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(ticket.release)

    future.add_done_callback(release)
    return await asyncio.wrap_future(future)
