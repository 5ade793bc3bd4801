"""An exported SavedModel as a ``Network``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from btkeras.inference.backends.base import Explain, InferenceBackend, ModelOutputs, exported_backend
from btkeras.inference.model_folder import (
    EXPLAINED,
    PIXELS,
    PREPARED,
    PROBABILITIES,
    SAVED_MODEL,
    SCORE,
    not_whole,
    read_metadata,
)

# Images at a time: the gradients need all feature maps of each.
_EXPLAINED_BATCH = 16


def load(file: Path) -> InferenceBackend:
    """Loads a version.

    Args:
        file: ``NAME/VERSION/saved_model.pb``.

    Raises:
        ModelError: If it is damaged, or not made by ``btkeras export``.
    """
    version = file.parent
    try:
        loaded = tf.saved_model.load(str(version))
    except (OSError, ValueError, KeyError, AttributeError, tf.errors.OpError) as error:
        raise not_whole(version, error) from error
    return network_of(loaded, version)


def network_of(loaded: Any, version: Path) -> InferenceBackend:
    """A version that is loaded already.

    Args:
        loaded: What ``tf.saved_model.load`` gave.
        version: Its folder.

    Raises:
        ModelError: If it was not made by ``btkeras export``.
    """
    facts = read_metadata(version)
    # Models exported before there was harmonized input have no prepared signature, and need none.
    signature = PREPARED if PREPARED in loaded.signatures else PIXELS
    if signature not in loaded.signatures:
        raise not_whole(version, f"no signature {PIXELS}")

    def observe(images: NDArray[np.uint8]) -> ModelOutputs:
        # Not the signature alone, which holds its variables weakly: `loaded` has to live as long as this function.
        answer = loaded.signatures[signature](images=tf.constant(images))
        scores = answer.get(SCORE)
        return np.asarray(answer[PROBABILITIES]), None if scores is None else np.asarray(scores)

    explain = _explain(loaded, facts.size) if EXPLAINED in loaded.signatures else None
    return exported_backend(version / SAVED_MODEL, facts, observe, explain)


def _explain(loaded: Any, size: int) -> Explain:
    def maps(images: NDArray[np.uint8], indices: NDArray[np.integer]) -> NDArray[np.float32]:
        classes = tf.constant(np.asarray(indices, np.int32))
        return np.asarray(loaded.signatures[EXPLAINED](images=tf.constant(images), class_index=classes)["map"])

    def explain(images: NDArray[np.uint8], indices: NDArray[np.integer]) -> NDArray[np.float32]:
        parts = [slice(start, start + _EXPLAINED_BATCH) for start in range(0, len(images), _EXPLAINED_BATCH)]
        nothing = np.zeros((0, size, size), np.float32)
        return np.concatenate([nothing, *(maps(images[part], indices[part]) for part in parts)])

    return explain
