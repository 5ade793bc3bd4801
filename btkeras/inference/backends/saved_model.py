"""An exported SavedModel as a backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from btkeras.inference.backends import Explain, InferenceBackend, exported_backend
from btkeras.inference.model_folder import EXPLAINED, PIXELS, PREPARED, invalid_model, read_metadata

# Gradients need all feature maps of each image in memory.
_EXPLAINED_BATCH = 16


def load(file: Path) -> InferenceBackend:
    """Loads a version from its ``saved_model.pb``; ModelError if it is damaged or not made by ``btkeras export``."""
    version = file.parent
    try:
        loaded = tf.saved_model.load(str(version))
    except (OSError, ValueError, KeyError, AttributeError, tf.errors.OpError) as error:
        raise invalid_model(version, error) from error
    # Models exported before there was harmonized input have no preprocessed signature, and need none.
    signature = PREPARED if PREPARED in loaded.signatures else PIXELS
    if signature not in loaded.signatures:
        raise invalid_model(version, f"no signature {PIXELS}")
    metadata = read_metadata(version)
    return exported_backend(
        file,
        metadata,
        # Not the signature alone, which holds its variables weakly: `loaded` has to live as long as this function.
        lambda images: loaded.signatures[signature](images=tf.constant(images)),
        _explain(loaded, metadata.size) if EXPLAINED in loaded.signatures else None,
    )


def _explain(loaded: Any, size: int) -> Explain:
    def explain(images: NDArray[np.uint8], indices: NDArray[np.integer]) -> NDArray[np.float32]:
        classes, signature = np.asarray(indices, np.int32), loaded.signatures[EXPLAINED]
        maps = [np.zeros((0, size, size), np.float32)]
        for batch in (slice(start, start + _EXPLAINED_BATCH) for start in range(0, len(images), _EXPLAINED_BATCH)):
            maps.append(signature(images=tf.constant(images[batch]), class_index=tf.constant(classes[batch]))["map"])
        return np.concatenate(maps)

    return explain
