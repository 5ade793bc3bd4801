"""Engines whose answers and times are known, for processes of their own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Call = Callable[[NDArray[Any]], NDArray[np.float32]]


def sleeping(seconds: float) -> tuple[Call, dict[str, Any]]:
    """Waits, and answers each image's mean."""

    def call(images: NDArray[Any]) -> NDArray[np.float32]:
        time.sleep(seconds)
        return images.mean(axis=(1, 2, 3), dtype=np.float32)[:, None]

    return call, {"size": 8, "channels": 1}


def busy(seconds: float) -> tuple[Call, dict[str, Any]]:
    """Computes for as long."""

    def call(images: NDArray[Any]) -> NDArray[np.float32]:
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass
        return np.zeros((len(images), 1), np.float32)

    return call, {}


def greedy(mebibytes: int) -> tuple[Call, dict[str, Any]]:
    """Holds memory for a moment."""

    def call(images: NDArray[Any]) -> NDArray[np.float32]:
        return np.full(mebibytes << 20, 1, np.uint8)[: len(images), None].astype(np.float32)

    return call, {}


def environment(name: str) -> tuple[Call, dict[str, Any]]:
    """Says what a variable holds."""
    return lambda images: np.zeros((len(images), 1), np.float32), {name: os.environ.get(name)}


def broken(reason: str) -> tuple[Call, dict[str, Any]]:
    """Cannot be loaded."""
    raise ValueError(reason)


def dying(code: int) -> tuple[Call, dict[str, Any]]:
    """Takes its process with it."""
    os._exit(code)
