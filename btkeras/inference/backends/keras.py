"""A run folder's best checkpoint as a ``Network``."""

from __future__ import annotations

import functools
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from btkeras.decisions.calibration import load_calibration
from btkeras.decisions.ood import load_ood
from btkeras.evaluation.evaluate import load_best
from btkeras.explain.cam import explainer
from btkeras.inference.backends.base import InferenceBackend, ModelOutputs
from btkeras.models.head import with_features
from btkeras.models.reparameterize import reparameterize
from btkeras.runs import Run, open_run

# Making the deploy form takes half a second, of which the first answer gives half back; each further one then takes
# 1 ms less at 112 pixels and 6 ms at 224 (docs/performance.md).
_WORTH_FUSING = 100


def load(folder: Path, images: int = 1) -> InferenceBackend:
    """Loads a run.

    Args:
        folder: The run's.
        images: About how many will be asked for; many are answered by the network's deploy form.

    Raises:
        RunError: If it has no checkpoint yet, or a file of it is damaged.
        ModelError: If the checkpoint cannot be used.
    """
    run = open_run(folder)
    return network_of(run, load_best(run), fused=images >= _WORTH_FUSING)


def network_of(run: Run, model: keras.Model, fused: bool = False) -> InferenceBackend:
    """The same of a checkpoint that was loaded already.

    Args:
        run: The run.
        model: Its checkpoint.
        fused: Whether its deploy form answers (``models.fuse``).
    """
    data, classes = run.config().data, run.classes()
    calibration, ood = load_calibration(run, model), load_ood(run)
    network = with_features(reparameterize(model) if fused else model)

    def observe(images: NDArray[np.uint8]) -> ModelOutputs:
        outputs = np.asarray(network.predict_on_batch(images.astype(np.float32)))
        probabilities, features = np.split(outputs, [len(classes)], axis=1)
        return probabilities, ood.score(features) if ood else None

    # Made when it is first asked for: most never are.
    maps = functools.cache(lambda: explainer(model))
    gradients = keras.backend.backend() == "tensorflow"
    return InferenceBackend(
        source=run.path,
        classes=classes,
        size=data.image_size,
        channels=data.channels,
        harmonize=data.harmonize,
        observe=observe,
        calibration=calibration,
        reference=ood.reference if ood else None,
        explain=(lambda images, indices: maps()(images, indices)) if gradients else None,
        file=run.best_model,
    )
