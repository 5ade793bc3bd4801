"""What the server's tests share: small SavedModels, requests, and a server in a thread."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import tensorflow as tf
from PIL import Image

from btkeras.server.engine import Engine
from btkeras.server.run import _config, _Server
from btkeras.server.settings import ServerSettings


class HalfPlusTwo(tf.Module):
    """The model of TensorFlow Serving's own documentation, and a signature with several inputs and types."""

    def __init__(self, plus: float = 2.0) -> None:
        super().__init__()
        self.plus = tf.Variable(plus)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def half(self, x):  # type: ignore[no-untyped-def]
        return {"y": 0.5 * x + self.plus}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 2], tf.int32, name="pair"),
            tf.TensorSpec([None], tf.string, name="text"),
            tf.TensorSpec([None], tf.bool, name="yes"),
        ]
    )
    def mixed(self, pair, text, yes):  # type: ignore[no-untyped-def]
        total = tf.where(yes, tf.reduce_sum(pair, axis=1), 0)
        return {"total": total, "text": text, "text_bytes": text, "part": tf.cast(total, tf.float32) / 10}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def strange(self, x):  # type: ignore[no-untyped-def]
        return {"y": tf.math.log(x)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def mean(self, x):  # type: ignore[no-untyped-def]
        return {"mean": tf.reduce_mean(x)}


def write_half_plus_two(folder: Path, version: int, plus: float = 2.0) -> None:
    """Writes a version, whole from the moment that it has its name."""
    module = HalfPlusTwo(plus)
    signatures = {
        "serving_default": module.half,
        "mixed": module.mixed,
        "strange": module.strange,
        "mean": module.mean,
    }
    folder.mkdir(parents=True, exist_ok=True)
    hidden = folder / f".{version}"
    tf.saved_model.save(module, str(hidden), signatures=signatures)
    hidden.rename(folder / str(version))


def png(pixels: np.ndarray[Any, Any], kind: str = "PNG") -> bytes:
    """Encodes an image."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def noise(seed: int, *shape: int) -> np.ndarray[Any, Any]:
    """An image, uint8."""
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def b64(data: bytes) -> dict[str, str]:
    """Binary data in JSON."""
    return {"b64": base64.b64encode(data).decode()}


@contextlib.contextmanager
def running(settings: ServerSettings) -> Iterator[tuple[httpx.Client, Engine]]:
    """A server with real connections, in a thread of this process.

    Yields:
        A client of it, and its engine, to be looked at.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    engine = Engine(settings)
    server = _Server(_config(settings, engine), engine)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    try:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(base_url=url, timeout=60) as client:
            while thread.is_alive() and client.get("/healthz").status_code != 200:
                pass
            yield client, engine
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Waits for something to become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
