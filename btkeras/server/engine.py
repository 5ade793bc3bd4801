"""The model behind the server's routes, and the threads that it runs in.

The event loop only moves requests about. Parsing, decoding and drawing run in as many threads as there are cores; the
model runs in one, with its engine's own threads below it.
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

from btkeras.inference.backends.base import InferenceBackend, ModelOutputs
from btkeras.inference.processing import Postprocessor
from btkeras.machine import threads
from btkeras.server.limits import Admission, Ticket
from btkeras.server.settings import ServerSettings
from btkeras.server.telemetry import Metrics

# What preprocessing takes grows with the longer side, whatever the other.
MAX_SIDE = 16_384
_T = TypeVar("_T")


class Engine:
    """One model, ready to answer requests.

    Args:
        backend: The model, of any format.
        settings: The server's settings.

    Attributes:
        backend: As given.
        settings: As given.
        name: The model's name in paths.
        version: The exported version's number; 1 for a run.
        postprocessor: Preprocesses images, and makes predictions of the model's outputs.
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
        self.postprocessor = Postprocessor.of(backend)
        self.metrics = Metrics()
        self.admission = Admission(settings.limits)
        self.draining = False
        self._workers = ThreadPoolExecutor(threads(), "worker")
        self._model_thread = ThreadPoolExecutor(1, "model")
        self.metrics.add_gauge("queue_images", "Images of requests under way.", lambda: self.admission.images)
        self.metrics.add_gauge("queue_bytes", "Bytes of requests under way.", lambda: self.admission.nbytes)

    def warm_up(self) -> None:
        """Runs the model once, so that no request waits for what it prepares."""
        pixels = np.zeros((1, self.backend.size, self.backend.size, self.backend.channels), np.uint8)
        self.backend.observe(pixels)
        if self.backend.explain is not None:
            self.backend.explain(pixels, np.zeros(1, np.int32))

    def close(self) -> None:
        """Ends the threads; work that has not begun is dropped."""
        for pool in (self._workers, self._model_thread):
            pool.shutdown(wait=False, cancel_futures=True)

    async def run(self, ticket: Ticket, function: Callable[..., _T], *args: object) -> _T:
        """Runs a function in a worker thread."""
        return await _in_thread(self._workers, ticket, function, *args)

    async def preprocess(self, ticket: Ticket, images: Sequence[Callable[[], NDArray[np.uint8]]]) -> NDArray[np.uint8]:
        """Reads and preprocesses images, each by itself, several at once.

        Args:
            ticket: The request's places.
            images: Functions that read one image each, uint8 ``[height, width, 1 or 3]``.

        Returns:
            The model's input, uint8 ``[n, size, size, channels]``.

        Raises:
            ImageError: Of the first image that cannot be read.
        """

        def preprocessed(read: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
            return self.postprocessor.decoder.array(read())

        pending = (self.run(ticket, preprocessed, image) for image in images)
        found: list[NDArray[np.uint8] | BaseException] = await asyncio.gather(*pending, return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException):
                raise one
        return np.stack(found)  # type: ignore[arg-type]

    async def predict(self, ticket: Ticket, pixels: NDArray[np.uint8]) -> ModelOutputs:
        """Runs the model on preprocessed images; arguments and result as ``InferenceBackend.observe``."""
        outputs = await _in_thread(self._model_thread, ticket, self.backend.observe, pixels)
        self.metrics.images.inc(len(pixels))
        return outputs

    async def explain(self, ticket: Ticket, pixels: NDArray[np.uint8], label: str) -> NDArray[np.float32] | None:
        """The map of what speaks for a class, float32 ``[size, size]`` in 0..1; None if the model's format has none.

        Args:
            ticket: The request's places.
            pixels: One preprocessed image, uint8 ``[size, size, channels]``.
            label: The class.
        """
        if self.backend.explain is None:
            return None
        index = np.array([self.backend.classes.index(label)])
        maps: NDArray[np.float32] = await _in_thread(
            self._model_thread, ticket, self.backend.explain, pixels[None], index
        )
        return maps[0]

    def check_size(self, width: int, height: int, name: str) -> None:
        """Checks an image's size.

        Raises:
            HTTPException: 400 if it has too many pixels, or a side longer than ``MAX_SIDE``.
        """
        most = self.settings.limits.pixels
        if width * height > most or max(width, height) > MAX_SIDE:
            rule = f"An image must have at most {most} pixels, and {MAX_SIDE} on a side, on this server"
            raise HTTPException(400, f"{rule}. Received: {name} with {width} x {height}. Make it smaller first.")


async def _in_thread(pool: ThreadPoolExecutor, ticket: Ticket, function: Callable[..., _T], *args: object) -> _T:
    """Runs a function in a thread; its places stay taken until it ends, even if nobody waits any more."""
    loop = asyncio.get_running_loop()
    ticket.hold()

    def release(_: Future[_T]) -> None:
        # If the loop was closed meanwhile, the server has stopped.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(ticket.release)

    future = pool.submit(function, *args)
    future.add_done_callback(release)
    return await asyncio.wrap_future(future)
