"""An exported SavedModel as a ``Network``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from btkeras.serving.exported import not_whole, read_facts, version_number
from btkeras.serving.network import Explain, Network, Observation

PREPARED, PIXELS, EXPLAINED = "serving_prepared", "serving_pixels", "serving_explained"


def load(file: Path) -> Network:
    """Loads a version.

    Args:
        file: ``NAME/VERSION/saved_model.pb``.

    Raises:
        ModelError: If it is damaged, or not made by ``btkeras export``.
    """
    version = file.parent
    facts = read_facts(version)
    try:
        loaded = tf.saved_model.load(str(version))
        # Models exported before there was harmonised input have no prepared signature, and need none.
        signature = PREPARED if PREPARED in loaded.signatures else PIXELS
        loaded.signatures[signature]
    except (OSError, ValueError, KeyError, AttributeError, tf.errors.OpError) as error:
        raise not_whole(version, error) from error

    def observe(images: NDArray[np.uint8]) -> Observation:
        # Not the signature alone, which holds its variables weakly: `loaded` has to live as long as this function.
        answer = loaded.signatures[signature](images=tf.constant(images))
        scores = answer.get("outlier_score")
        return np.asarray(answer["probabilities"]), None if scores is None else np.asarray(scores)

    return Network(
        source=version,
        classes=facts.classes,
        size=facts.size,
        channels=facts.channels,
        harmonise=facts.harmonise,
        observe=observe,
        calibration=facts.calibration,
        reference=facts.reference,
        explain=_explain(loaded) if EXPLAINED in loaded.signatures else None,
        version=version_number(version),
    )


def _explain(loaded: object) -> Explain:
    def explain(images: NDArray[np.uint8], indices: NDArray[np.integer]) -> NDArray[np.float32]:
        classes = tf.constant(np.asarray(indices, np.int32))
        return np.asarray(loaded.signatures[EXPLAINED](images=tf.constant(images), class_index=classes)["map"])  # type: ignore[attr-defined]

    return explain
