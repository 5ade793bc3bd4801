"""A run's best checkpoint as a backend."""

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
from btkeras.inference.backends import InferenceBackend, ModelOutputs
from btkeras.models.head import with_features
from btkeras.models.reparameterize import reparameterize
from btkeras.runs import Run, open_run

# Re-parameterising takes half a second, of which the first call gives half back; each further image then takes 1 ms
# less at 112 pixels and 6 ms less at 224 (docs/performance.md).
_REPARAMETERIZE_FROM = 100


def load(folder: Path, images: int = 1) -> InferenceBackend:
    """Loads a run's checkpoint, re-parameterised for many images; errors as ``load_best``."""
    run = open_run(folder)
    return backend_of(run, load_best(run), reparameterized=images >= _REPARAMETERIZE_FROM)


def backend_of(run: Run, model: keras.Model, reparameterized: bool = False) -> InferenceBackend:
    """The backend of a run whose checkpoint ``model`` is loaded already."""
    data, classes = run.config().data, run.classes()
    calibration, ood = load_calibration(run, model), load_ood(run)
    network = with_features(reparameterize(model) if reparameterized else model)

    def predict(images: NDArray[np.uint8]) -> ModelOutputs:
        outputs = np.asarray(network.predict_on_batch(images.astype(np.float32)))
        probabilities, features = np.split(outputs, [len(classes)], axis=1)
        return ModelOutputs(probabilities, ood.score(features) if ood else None)

    # Made on first use, since most predictions are not explained.
    explain = functools.cache(lambda: explainer(model))
    has_gradients = keras.backend.backend() == "tensorflow"
    return InferenceBackend(
        source=run.path,
        classes=classes,
        size=data.image_size,
        channels=data.channels,
        harmonize=data.harmonize,
        predict=predict,
        calibration=calibration,
        ood_calibration=ood.reference if ood else None,
        explain=(lambda images, indices: explain()(images, indices)) if has_gradients else None,
        file=run.best_model,
    )
