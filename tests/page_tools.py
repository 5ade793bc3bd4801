"""The web page without the server around it: an engine of one network, and a network that needs no training."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.types import ASGIApp

from btkeras.decisions.ood import CalibrationScores
from btkeras.inference.backends.base import InferenceBackend, ModelOutputs
from btkeras.server.problems import Busy, HTTPError
from btkeras.server.settings import ServerSettings
from tests.conftest import CLASSES

SIZE = 32


def bright_network(folder: Path, **changes: Any) -> InferenceBackend:
    """A network whose class is the brightest quarter, clockwise from the upper left, and whose map is that quarter.

    Its outlier score is the mean grey level.
    """
    fields = {
        "source": folder,
        "classes": CLASSES,
        "size": SIZE,
        "channels": 1,
        "harmonize": False,
        "observe": _observe,
        "calibration": None,
        "reference": CalibrationScores(np.linspace(0, 45, 200, dtype=np.float32)),
        "explain": _explain,
        "version": 3,
    }
    return InferenceBackend(**(fields | changes))


def _observe(pixels: NDArray[np.uint8]) -> ModelOutputs:
    half = SIZE // 2
    rows = np.stack([_quarters(pixels, half)[i].mean(axis=(1, 2, 3)) for i in range(4)], axis=1)
    exponents = np.exp((rows - rows.max(axis=1, keepdims=True)) / 20)
    return (exponents / exponents.sum(axis=1, keepdims=True)).astype(np.float32), pixels.mean(axis=(1, 2, 3))


def _quarters(pixels: NDArray[Any], half: int) -> list[NDArray[Any]]:
    return [pixels[:, :half, :half], pixels[:, :half, half:], pixels[:, half:, half:], pixels[:, half:, :half]]


def _explain(pixels: NDArray[np.uint8], indices: NDArray[np.integer]) -> NDArray[np.float32]:
    maps = np.zeros(pixels.shape[:3], np.float32)
    for i, index in enumerate(indices):
        _quarters(maps[i : i + 1], SIZE // 2)[int(index)][:] = 1
    return maps


class OneNetwork:
    """Stands in for ``engine.Engine``.

    Attributes:
        networks: The last is there for good; of several, each answers one call of ``network``.
        busy: How many calls of ``observe`` find the queue full.
        slow: Seconds that each call of ``observe`` takes.
        most: How many calls of ``observe`` were there at once.
    """

    def __init__(self, *networks: InferenceBackend) -> None:
        self.settings = ServerSettings(Path("quarters"))
        self.networks = list(networks)
        self.busy = 0
        self.slow = 0.0
        self.most = 0
        self._now = 0

    def network(self) -> InferenceBackend:
        if not self.networks:
            raise HTTPError(404, "Servable not found")
        return self.networks.pop(0) if len(self.networks) > 1 else self.networks[0]

    async def observe(self, pixels: NDArray[np.uint8]) -> ModelOutputs:
        if self.busy:
            self.busy -= 1
            raise Busy("too many images are waiting")
        self._now += 1
        self.most = max(self.most, self._now)
        await asyncio.sleep(self.slow)
        self._now -= 1
        return self.networks[0].observe(pixels)

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.to_thread(function, *args)


@contextlib.contextmanager
def listening(app: ASGIApp) -> Iterator[str]:
    """Serves an application on a free port of this machine."""
    import uvicorn

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
