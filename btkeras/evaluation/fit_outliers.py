"""Learns from a run's own pictures how unlike the training slices a picture may be."""

from __future__ import annotations

import keras
import numpy as np

from btkeras.console import notice
from btkeras.evaluation.evaluate import answers_to, load_best
from btkeras.evaluation.outliers import FILE, USUAL, Gaussian, Outliers, Reference, save_outliers
from btkeras.runs import Run


def fit_outliers(run: Run) -> Outliers:
    """Fits the score on a finished run's training part, not augmented, and its threshold on the validation part.

    It is kept as ``outliers.npz`` in the run.

    Raises:
        RunError: If there is no checkpoint yet.
        ModelError: If the run has no network.
        DataError: If a picture cannot be read.
    """
    model, dataset = load_best(run), run.dataset()
    network = keras.Model(model.input, model.get_layer("features").output)
    split = run.split(dataset)
    features = {
        part: answers_to(run, network, dataset, split.part(part), part).outputs for part in ("train", "validation")
    }
    gaussian = Gaussian.fit(features["train"])
    scores = Outliers(gaussian, Reference(np.empty(0))).score(features["validation"])
    found = Outliers(gaussian, Reference(np.sort(scores)))
    save_outliers(run.path / FILE, found)
    notice(f"outliers: beyond {found.reference.threshold:.1f}, as {1 - USUAL:.0%} of {len(scores):,} validation slices")
    return found
