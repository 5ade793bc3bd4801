"""The engine behind the server's paths: threads, batches, the queue's bounds and the model's versions.

The event loop only moves requests about. Parsing, decoding and drawing happen in as many threads as there are cores;
the network runs in one, with TensorFlow's own threads below it. For the page there are ``network``, ``observe`` and
``run``; they keep within the same bounds as the REST interface.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from btkeras.inference.backends.base import InferenceBackend, ModelOutputs
from btkeras.machine import threads
from btkeras.server.admission import CURRENT, Admission, Ticket
from btkeras.server.batching import Batcher, Outputs
from btkeras.server.metrics import Metrics
from btkeras.server.problems import not_found
from btkeras.server.record import note_images
from btkeras.server.servable import DEFAULT, ENCODED, PREPARED, Servable, check_encoded, check_size, observation
from btkeras.server.settings import ServerSettings
from btkeras.server.versions import Versions

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Engine:
    """What answers requests.

    Args:
        settings: All about the server.

    Attributes:
        settings: As given.
        metrics: What Prometheus is told.
        versions: The model's versions.
        admission: How much is under way.
        draining: Whether the server is about to stop.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.admission = Admission(settings.limits)
        self.versions = Versions(settings, self._load)
        self.versions.changed = self._version_changed
        self.draining = False
        self._workers = ThreadPoolExecutor(threads(), "worker")
        self._network_thread = ThreadPoolExecutor(1, "network")
        self._batchers: weakref.WeakKeyDictionary[Servable, Batcher] = weakref.WeakKeyDictionary()
        self._watcher: asyncio.Task[None] | None = None
        self.metrics.watch("queue_images", "Images of requests under way.", lambda: self.admission.images)
        self.metrics.watch("queue_bytes", "Bytes of requests under way.", lambda: self.admission.nbytes)

    async def start(self) -> None:
        """Loads the model and watches for new versions; does nothing if that was done."""
        if self._watcher is not None:
            return
        # A server that waits for its model says meanwhile that it is alive.
        if not self.settings.wait:
            await self.versions.poll()
        self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        if self.settings.wait:
            await self.versions.poll()
        await self.versions.watch()

    async def stop(self) -> None:
        """Ends the threads."""
        if self._watcher is not None:
            self._watcher.cancel()
        self.versions.close()
        for pool in (self._workers, self._network_thread):
            pool.shutdown(wait=False, cancel_futures=True)

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here."""
        return self.versions.latest is not None and not self.draining

    def network(self) -> InferenceBackend:
        """The highest version that is served.

        Raises:
            Problem: 404 if there is none, or it was not made by ``btkeras export``.
        """
        network = self.versions.get(None).network
        if network is None:
            raise not_found(self.settings.name, None)
        return network

    async def observe(self, pixels: NDArray[np.uint8]) -> ModelOutputs:
        """Runs the highest version on prepared images, together with those of other requests.

        Args:
            pixels: uint8 ``[n, size, size, channels]``, as ``Decoder`` makes them.

        Returns:
            Probabilities, float32 ``[n, classes]``, and outlier scores, float32 ``[n]``, or None.

        Raises:
            Busy: If the queue is full.
        """
        network = self.network()
        note_images(len(pixels))
        with self._place(len(pixels)) as ticket, self.versions.lease(network.version) as servable:
            if PREPARED not in servable.inputs:
                return await self._in_thread(ticket, self._network_thread, network.observe, pixels)
            return observation(await self._batcher(servable).submit(pixels))

    async def run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Runs slow work in a thread.

        Raises:
            Busy: If the queue is full.
        """
        with self._place(1) as ticket:
            return await self._in_thread(ticket, self._workers, lambda: function(*args, **kwargs))

    async def predict(self, servable: Servable, signature: str, inputs: Mapping[str, NDArray[Any]]) -> Outputs:
        """Runs a signature, in batches where that gives the same.

        Args:
            servable: A version that is leased.
            signature: One of its signatures.
            inputs: A tensor for each of its inputs.

        Raises:
            Problem: If the inputs are refused.
            Busy: If the queue is full.
        """
        rows = max((len(value) for value in inputs.values() if value.ndim), default=1)
        with self._place(max(1, rows)) as ticket:
            if rows and signature == DEFAULT and servable.decoder is not None:
                pixels = await self._decoded(ticket, servable, inputs[ENCODED])
                outputs = await self._batcher(servable).submit(pixels)
            elif rows and signature == PREPARED and servable.decoder is not None:
                outputs = await self._batcher(servable).submit(inputs["images"])
            else:
                self._check_images(inputs)
                outputs = await self._in_thread(ticket, self._network_thread, servable.run, signature, inputs)
                self.metrics.images.inc(rows)
        return outputs

    async def _decoded(self, ticket: Ticket, servable: Servable, images: NDArray[Any]) -> NDArray[np.uint8]:
        limit, count = self.settings.limits.pixels, len(images)
        decoded: list[NDArray[np.uint8] | BaseException] = await asyncio.gather(
            *(
                self._in_thread(ticket, self._workers, servable.decode, data, _name(index, count), limit)
                for index, data in enumerate(images)
            ),
            return_exceptions=True,
        )
        for image in decoded:
            if isinstance(image, BaseException):
                raise image
        return np.stack(decoded)  # type: ignore[arg-type]

    def _check_images(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        """What is decoded or resized in the graph has the limits of what is decoded here."""
        limit = self.settings.limits.pixels
        encoded = inputs.get(ENCODED, np.empty(0, object)).ravel()
        for index, data in enumerate(encoded):
            check_encoded(bytes(data), _name(index, len(encoded)), limit)
        images = inputs.get("images", np.empty(0))
        if images.ndim == 4:
            check_size(images.shape[2], images.shape[1], "images", limit)

    def _batcher(self, servable: Servable) -> Batcher:
        found = self._batchers.get(servable)
        if found is None:
            found = Batcher(self._batch_runner(servable), self.settings.batching)
            self._batchers[servable] = found
        return found

    def _batch_runner(self, servable: Servable) -> Callable[[list[NDArray[np.uint8]]], Awaitable[Outputs]]:
        # Weak, since the table of batchers would otherwise keep a version that was dropped.
        reference = weakref.ref(servable)

        def run(parts: list[NDArray[np.uint8]]) -> Outputs:
            live = reference()
            if live is None:
                raise RuntimeError("a batch was left without its version, which its requests should have held")
            return live.run(PREPARED, {"images": np.concatenate(parts) if len(parts) > 1 else parts[0]})

        async def run_batch(parts: list[NDArray[np.uint8]]) -> Outputs:
            count = sum(map(len, parts))
            self.metrics.batches.observe(count)
            self.metrics.images.inc(count)
            return await asyncio.wrap_future(self._network_thread.submit(run, parts))

        return run_batch

    @contextmanager
    def _place(self, images: int) -> Iterator[Ticket]:
        """Places in the queue: the request's own, which then count so many images, or new ones."""
        given = CURRENT.get()
        ticket = given or Ticket(self.admission)
        try:
            ticket.count(images)
            yield ticket
        finally:
            if given is None:
                ticket.release()

    async def _in_thread(self, ticket: Ticket, pool: Executor, function: Callable[..., _T], *args: object) -> _T:
        """Runs a function in a thread; its places stay taken until it ends, even if nobody waits any more."""
        loop = asyncio.get_running_loop()
        ticket.hold()

        def ended(_: Future[_T]) -> None:
            # If the loop was closed meanwhile, the server has stopped.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(ticket.release)

        future = pool.submit(function, *args)
        future.add_done_callback(ended)
        return await asyncio.wrap_future(future)

    def _load(self, folder: Path) -> Servable:
        try:
            servable = Servable(folder)
            servable.warm_up(self.settings.batching.max_images)
        except BaseException:
            self.metrics.loads.labels("failed").inc()
            raise
        self.metrics.loads.labels("ok").inc()
        return servable

    def _version_changed(self) -> None:
        latest = self.versions.latest
        self.metrics.version.set(latest.number if latest else 0)


def _name(index: int, count: int) -> str:
    """What messages call an image of a request."""
    return "the image" if count == 1 else f"image {index}"
