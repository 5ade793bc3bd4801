"""What ``benchmark_worker`` loads for a user's model: each function gives a call and what the engine says of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.inference.model_folder import MANIFEST

Call = Callable[[NDArray[Any]], NDArray[np.float32]]
# Of the matrices that the machine's rate is measured with: large enough to be at it, small enough for short turns.
SIDE = 1536


def matrices() -> tuple[Call, dict[str, Any]]:
    """The product of two large matrices, ``SIDE ** 3`` multiply-accumulates: the yardstick of a core."""
    from threadpoolctl import threadpool_limits

    # One thread: several wait for each other, which counts as processor time.
    threadpool_limits(1)
    values = np.random.default_rng(0).random((SIDE, SIDE), np.float32)
    return lambda _: values @ values, {}


def network(path: str) -> tuple[Call, dict[str, Any]]:
    """A run folder or a file of an exported model, as ``btkeras predict`` answers with it."""
    from btkeras.inference.backends import load_backend

    loaded = load_backend(path)
    about = {"size": loaded.size, "channels": loaded.channels, "macs": _recorded_macs(loaded.source)}
    return lambda images: loaded.predict(images).probabilities, about


def deployed(path: str) -> tuple[Call, dict[str, Any]]:
    """A run's deploy form, as every export holds it, in TensorFlow."""
    import tensorflow as tf

    from btkeras.export.network import export_network
    from btkeras.inference.model_folder import PROBABILITIES
    from btkeras.models.build import count_macs
    from btkeras.runs import open_run

    form = export_network(open_run(path))
    size, _, channels = form.shape
    answer: Callable[[Any], Mapping[str, Any]] = form.function()
    about = {
        "size": size,
        "channels": channels,
        "macs": count_macs(form.fused),
        "trained_macs": count_macs(form.model),
    }
    return lambda images: np.asarray(answer(tf.constant(images))[PROBABILITIES]), about


def _recorded_macs(version: Path) -> int | None:
    """What the export wrote down; None if it is an older one or a run."""
    from btkeras.files import read_json

    manifest = version / MANIFEST
    return read_json(manifest).get("macs") if manifest.is_file() else None
