"""Calibrates a run: a temperature into its network, and conformal scores beside it, both from the validation part."""

from __future__ import annotations

import math

import keras
import numpy as np
from numpy.typing import NDArray

from btkeras.decisions.calibration import Calibration, load_calibration, save_calibration
from btkeras.decisions.ood import FILE, OOD_PERCENTILE, CalibrationScores, Gaussian, OODDetector, save_ood
from btkeras.errors import RunError
from btkeras.evaluation.evaluate import load_best, predict_records
from btkeras.files import atomic_file
from btkeras.logging import logger
from btkeras.metrics import negative_log_likelihood
from btkeras.metrics.calibration import fit_temperature, softmax
from btkeras.metrics.conformal import true_scores
from btkeras.models.head import logits_network, temperature_of, with_temperature
from btkeras.runs import Run
from btkeras.training.checkpoint import load_progress


def fit_ood(run: Run) -> OODDetector:
    """Fits the score on a finished run's training part, not augmented, and its threshold on the validation part.

    It is kept as ``ood.npz`` in the run.

    Raises:
        RunError: If there is no checkpoint yet.
        ModelError: If the run has no network.
        DataError: If an image cannot be read.
    """
    model, dataset = load_best(run), run.dataset()
    network = keras.Model(model.input, model.get_layer("features").output)
    split = run.split(dataset)
    features = {
        subset: predict_records(run, network, dataset, split.subset(subset), subset).outputs
        for subset in ("train", "validation")
    }
    gaussian = Gaussian.fit(features["train"])
    scores = OODDetector(gaussian, CalibrationScores(np.empty(0))).score(features["validation"])
    found = OODDetector(gaussian, CalibrationScores(np.sort(scores)))
    save_ood(run.path / FILE, found)
    logger.info(
        f"outliers: beyond {found.reference.threshold:.1f}, as {1 - OOD_PERCENTILE:.0%} of {len(scores):,} validation slices"
    )
    return found


__all__ = ["Calibration", "calibrate", "load_calibration"]


def calibrate(run: Run) -> Calibration:
    """Fits a temperature on a finished run's validation part and writes it into ``best.keras``.

    The conformal scores go to ``calibration.json``. Done again, it gives the same: what is fitted are the logits, which
    no temperature has touched yet.

    Raises:
        RunError: If the run is not finished.
        ModelError: If it has no network.
        DataError: If its validation part cannot be read.
    """
    _require_finished(run)
    model, dataset = load_best(run), run.dataset()
    answers = predict_records(run, logits_network(model), dataset, run.split(dataset).validation, "validation")
    labels = np.array([run.classes().index(record.label) for record in answers.records])
    found = _calibration(labels, answers.outputs)
    if not math.isclose(temperature_of(model), found.temperature, rel_tol=1e-9):
        _replace(run, with_temperature(model, found.temperature))
    # Last: killed before it, the two do not fit, which is said by whatever reads them, and doing it again mends it.
    save_calibration(run, found)
    logger.info(
        f"temperature {found.temperature:.3f}: validation log loss {found.nll_before:.4f} -> {found.nll_after:.4f} "
        f"({len(found.scores):,} images)"
    )
    return found


def _calibration(labels: NDArray[np.int64], logits: NDArray[np.float32]) -> Calibration:
    temperature = fit_temperature(labels, logits)
    # As the network gives them: the scores are compared with those of its answers.
    before, after = (softmax(logits / t).astype(np.float32) for t in (1.0, temperature))
    return Calibration(
        temperature,
        tuple(true_scores(labels, after).tolist()),
        nll_before=negative_log_likelihood(labels, before),
        nll_after=negative_log_likelihood(labels, after),
    )


def _replace(run: Run, model: keras.Model) -> None:
    with atomic_file(run.best_model) as temporary:
        model.save(temporary)


def _require_finished(run: Run) -> None:
    # Of a run whose states were cleared away, the figures say that it came to its end.
    state = run.state_file
    finished = load_progress(state).finished if state.is_file() else run.metrics_file.is_file()
    if not finished:
        raise RunError(
            "A run must be finished before it is calibrated",
            received=f"{run.path}, in which epochs are left",
            remedy=f"Train on with: btkeras train --resume --out {run.path}",
        )
