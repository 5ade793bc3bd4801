"""Dynamic batching: images of several requests go through the network together.

A batch starts when it is full, or when its first image has waited long enough; while the network is busy, the next
one fills. On a CPU this saves what each call costs beside the arithmetic, on a GPU far more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.server.settings import Batching

Outputs = dict[str, NDArray[Any]]
# From uint8 [n, size, size, channels] to outputs with n rows each, in a thread.
Run = Callable[[list[NDArray[np.uint8]]], Awaitable[Outputs]]


@dataclass(frozen=True, eq=False)
class _Waiting:
    pixels: NDArray[np.uint8]
    outputs: asyncio.Future[Outputs]
    deadline: float


class Batcher:
    """Collects images for one network.

    Args:
        run: Runs it on the images of one batch, given in parts.
        settings: Size and waiting time.
    """

    def __init__(self, run: Run, settings: Batching) -> None:
        self._run = run
        self._settings = settings
        self._queue: deque[_Waiting] = deque()
        self._changed = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    async def submit(self, pixels: NDArray[np.uint8]) -> Outputs:
        """Runs images, uint8 ``[n, size, size, channels]``, in one batch or several.

        A caller that is cancelled takes its images out of the queue.

        Returns:
            The network's outputs, ``n`` rows each.
        """
        size = self._settings.max_images
        parts = [self._enqueue(pixels[start : start + size]) for start in range(0, len(pixels), size)]
        results = await asyncio.gather(*parts)
        if len(results) == 1:
            return results[0]
        return {name: np.concatenate([result[name] for result in results]) for name in results[0]}

    def _enqueue(self, pixels: NDArray[np.uint8]) -> asyncio.Future[Outputs]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outputs] = loop.create_future()
        self._queue.append(_Waiting(pixels, future, loop.time() + self._settings.wait_ms / 1000))
        self._changed.set()
        # The task lives as long as there is something to do, so a version that is unloaded leaves none behind.
        if self._pump is None or self._pump.done():
            self._pump = loop.create_task(self._serve())
        return future

    async def _serve(self) -> None:
        while self._queue:
            await self._fill()
            batch = self._take()
            if batch:
                await self._answer(batch)

    async def _fill(self) -> None:
        """Waits until a batch is full or its first image has waited long enough."""
        deadline = self._queue[0].deadline
        try:
            async with asyncio.timeout_at(deadline):
                while sum(len(item.pixels) for item in self._queue) < self._settings.max_images:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        room = self._settings.max_images
        while self._queue and len(self._queue[0].pixels) <= room:
            item = self._queue.popleft()
            # Whoever asked may have gone.
            if not item.outputs.done():
                batch.append(item)
                room -= len(item.pixels)
        return batch

    async def _answer(self, batch: list[_Waiting]) -> None:
        try:
            outputs = await self._run([item.pixels for item in batch])
        except Exception as error:  # Whatever it is, it is theirs who wait, and the next batch is tried.
            for item in batch:
                if not item.outputs.done():
                    item.outputs.set_exception(error)
            return
        start = 0
        for item in batch:
            stop = start + len(item.pixels)
            if not item.outputs.done():
                item.outputs.set_result({name: rows[start:stop] for name, rows in outputs.items()})
            start = stop
