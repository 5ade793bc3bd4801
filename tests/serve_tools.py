"""What the server's tests share: a model that needs no training, requests, and a server in a thread."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import io
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from btkeras.decisions.ood import CalibrationScores
from btkeras.inference.backends import InferenceBackend, ModelOutputs
from btkeras.server.app import DrainingServer, listen
from btkeras.server.served_model import ServedModel
from btkeras.server.settings import ServerSettings
from tests.conftest import CLASSES

SIZE = 32
PREDICT = "/v1/models/quarters:predict"


def quarters_backend(folder: Path = Path("quarters"), **changes: Any) -> InferenceBackend:
    """A model whose class is the brightest quarter, clockwise from the upper left, and whose map is that quarter.

    Its OOD score is the mean grey level.
    """
    fields = {
        "source": folder / "3",
        "classes": CLASSES,
        "size": SIZE,
        "channels": 1,
        "harmonize": False,
        "predict": quarters_outputs,
        "calibration": None,
        "ood_calibration": CalibrationScores(np.linspace(0, 45, 200, dtype=np.float32)),
        "explain": _explain,
        "version": 3,
    }
    return InferenceBackend(**(fields | changes))


def quarters_outputs(pixels: NDArray[np.uint8]) -> ModelOutputs:
    rows = np.stack([quarter.mean(axis=(1, 2, 3)) for quarter in _quarters(pixels)], axis=1)
    exponents = np.exp((rows - rows.max(axis=1, keepdims=True)) / 20)
    probabilities = (exponents / exponents.sum(axis=1, keepdims=True)).astype(np.float32)
    return ModelOutputs(probabilities, pixels.mean(axis=(1, 2, 3)).astype(np.float32))


def _quarters(pixels: NDArray[Any]) -> list[NDArray[Any]]:
    half = SIZE // 2
    return [pixels[:, :half, :half], pixels[:, :half, half:], pixels[:, half:, half:], pixels[:, half:, :half]]


def _explain(pixels: NDArray[np.uint8], indices: NDArray[np.integer]) -> NDArray[np.float32]:
    maps = np.zeros(pixels.shape[:3], np.float32)
    for i, index in enumerate(indices):
        _quarters(maps[i : i + 1])[int(index)][:] = 1
    return maps


def png(pixels: NDArray[Any], kind: str = "PNG") -> bytes:
    """Encodes an image."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def noise(seed: int, *shape: int) -> NDArray[np.uint8]:
    """An image of noise."""
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def b64(data: bytes) -> dict[str, str]:
    """Binary data in JSON."""
    return {"b64": base64.b64encode(data).decode()}


@contextlib.contextmanager
def running(
    backend: InferenceBackend, settings: ServerSettings | None = None
) -> Iterator[tuple[httpx.Client, ServedModel]]:
    """A server with real connections, in a thread of this process.

    Yields:
        A client of it, and its served.
    """
    settings = dataclasses.replace(settings or ServerSettings(), port=0)
    listener, served = listen(settings), ServedModel(backend, settings)
    server = DrainingServer(served)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=60) as client:
            assert client.get("/healthz").status_code == 200
            yield client, served
    finally:
        server.should_exit = True
        thread.join(60)
        served.close()
        assert not thread.is_alive()


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Waits for something to become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
