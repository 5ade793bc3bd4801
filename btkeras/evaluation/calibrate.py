"""Calibrates a run: a temperature in its network, conformal scores, and an OOD detector."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from scipy.special import softmax

from btkeras.decisions.calibration import Calibration, save_calibration
from btkeras.decisions.ood import OOD_PERCENTILE, CalibrationScores, Gaussian, OODDetector, save_ood
from btkeras.errors import RunError
from btkeras.evaluation.evaluate import LoadedRun, evaluate_split, loaded, predict_records
from btkeras.files import atomic_file
from btkeras.logging import logger
from btkeras.metrics import negative_log_likelihood
from btkeras.metrics.calibration import fit_temperature
from btkeras.metrics.conformal import nonconformity_scores
from btkeras.models.head import logits_network, temperature_of, with_temperature
from btkeras.runs import Run
from btkeras.training.checkpoint import load_progress


def calibrate_and_evaluate(run: Run) -> dict[str, Any]:
    """Calibrates a finished run, fits its OOD detector and evaluates it on its test subset.

    Returns:
        The metrics, as ``evaluate_split``; errors as there and as ``calibrate``.
    """
    opened = LoadedRun(run)
    calibrate(opened)
    fit_ood(opened)
    return evaluate_split(opened)


def calibrate(run: Run | LoadedRun) -> Calibration:
    """Fits a temperature on a finished run's validation subset and writes it into ``best.keras``.

    The conformal scores go to ``calibration.json``. Calibrating again gives the same, since the logits are fitted.

    Raises:
        RunError: If the run is not finished.
        ModelError: If it has no network.
        DataError: If a validation image cannot be read.
    """
    opened = loaded(run)
    run = opened.run
    _require_finished(run)
    found = predict_records(run, logits_network(opened.model), opened.dataset, opened.split.validation, "validation")
    labels = np.array([run.classes().index(record.label) for record in found.records])
    temperature = fit_temperature(labels, found.outputs)
    # float32, as the network's probabilities, with whose scores these are compared.
    before, after = (softmax(found.outputs / t, axis=1).astype(np.float32) for t in (1.0, temperature))
    calibration = Calibration(
        temperature,
        tuple(nonconformity_scores(labels, after).tolist()),
        nll_before=negative_log_likelihood(labels, before),
        nll_after=negative_log_likelihood(labels, after),
    )
    if not math.isclose(temperature_of(opened.model), temperature, rel_tol=1e-9):
        opened.model = with_temperature(opened.model, temperature)
        with atomic_file(run.best_model) as temporary:
            opened.model.save(temporary)
    # Last: if the process is killed before, readers refuse the mismatch, and calibrating again mends it.
    save_calibration(run, calibration)
    logger.info(
        f"temperature {temperature:.3f}: validation log loss {calibration.nll_before:.4f} -> "
        f"{calibration.nll_after:.4f} ({len(labels):,} images)"
    )
    return calibration


def fit_ood(run: Run | LoadedRun) -> OODDetector:
    """Fits the OOD detector on a run's training images as they are, and its threshold on the validation images.

    It is saved as ``ood.npz`` in the run.

    Raises:
        RunError: If there is no checkpoint yet.
        ModelError: If the run has no network.
        DataError: If an image cannot be read.
    """
    opened = loaded(run)
    network = keras.Model(opened.model.input, opened.model.get_layer("features").output)
    features = {
        name: predict_records(opened.run, network, opened.dataset, opened.split.subset(name), name).outputs
        for name in ("train", "validation")
    }
    gaussian = Gaussian.fit(features["train"])
    scores = OODDetector(gaussian, CalibrationScores(np.empty(0))).score(features["validation"])
    found = OODDetector(gaussian, CalibrationScores(np.sort(scores)))
    save_ood(opened.run, found)
    logger.info(
        f"OOD threshold {found.reference.threshold:.1f}, above which {1 - OOD_PERCENTILE:.0%} of {len(scores):,} "
        "validation slices are"
    )
    return found


def _require_finished(run: Run) -> None:
    # Of a run whose training state was deleted, the metrics say that it is finished.
    state = run.state_file
    finished = load_progress(state).finished if state.is_file() else run.metrics_file.is_file()
    if not finished:
        raise RunError(
            "A run must be finished before it is calibrated",
            received=f"{run.path}, in which epochs are left",
            remedy=f"Train on with: btkeras train --resume --out {run.path}",
        )
