"""Calibrates a run: temperature, conformal scores, OOD detector, and the threshold below which it abstains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from btkeras.checksums import recorded_file
from btkeras.datasets.dataset import Dataset, Record
from btkeras.decisions.abstention import LEVEL, RISKS, VALIDATION, Abstention, check_risk
from btkeras.decisions.calibration import Calibration, load_calibration, nonconformity_scores
from btkeras.decisions.finite import require_finite
from btkeras.decisions.ood import OOD_PERCENTILE, CalibrationScores, Gaussian, OODDetector, load_ood, save_ood
from btkeras.errors import DataError, RunError
from btkeras.evaluation.corruptions import corrupt_at_random
from btkeras.evaluation.evaluate import LoadedRun, evaluate_split, loaded, predict_records
from btkeras.evaluation.known_slices import save_known_slices
from btkeras.evaluation.tumor_or_none import dataset_of_model
from btkeras.files import write_json
from btkeras.locks import only_writer
from btkeras.logging import logger
from btkeras.machine import map_in_threads
from btkeras.metrics import negative_log_likelihood
from btkeras.metrics.calibration import fit_temperature, top_label
from btkeras.metrics.risk_control import control_risk
from btkeras.models.head import features_network, logits_network, temperature_of, with_features, with_temperature
from btkeras.models.keras_file import save_network
from btkeras.preprocessing.decode import ImageArray, decode_file, pixel_digest
from btkeras.preprocessing.mri_check import rejection_reason
from btkeras.preprocessing.preprocessor import Preprocessor
from btkeras.runs import Run
from btkeras.splitting.fingerprints import read_fingerprints
from btkeras.splitting.splits import Split

_BATCH = 32
# Validation slices that are enough: more take memory, and move no threshold.
_MOST = 2000


class _CalibratedRun(LoadedRun):
    """With the images that OOD detector and abstention are fitted on, loaded once."""

    @cached_property
    def calibration_images(self) -> CalibrationImages:
        return calibration_images(self.run, self.split, self.dataset)


def _loaded(run: Run | LoadedRun) -> _CalibratedRun:
    return run if isinstance(run, _CalibratedRun) else _CalibratedRun(loaded(run).run)


@only_writer
def calibrate_and_evaluate(
    run: Run, dataset: Dataset | None = None, *, risk: float | None = None, level: float = LEVEL
) -> dict[str, Any]:
    """Calibrates a finished run and evaluates it on its test subset; as ``evaluate_split``.

    With a ``dataset``, a run that is calibrated keeps its temperature and its OOD detector; arguments and errors as of
    ``fit_decisions``.
    """
    # Before anything is written.
    dataset = dataset and dataset_of_model(dataset, run.classes())
    opened = _CalibratedRun(run)
    if dataset is None or load_calibration(run) is None or load_ood(run) is None:
        calibrate(opened)
        fit_ood(opened)
    fit_decisions(opened, dataset, risk=risk, level=level)
    if run.manifest().get("calibrated"):
        # That was another calibration; `btkeras calibrate` says afterwards that it was itself.
        run.update_manifest(calibrated=None)
    return evaluate_split(opened)


@only_writer
def calibrate(run: Run | LoadedRun) -> Calibration:
    """Fits a temperature on a finished run's validation subset and writes it into ``best.keras``.

    The conformal scores go to ``calibration.json``. Calibrating again gives the same, since the logits are fitted.
    Raises ``RunError`` if the run is not finished.
    """
    opened = _loaded(run)
    run = opened.run
    run.require_finished("A run must be finished before it is calibrated")
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
        with recorded_file(run.best_model) as temporary:
            save_network(opened.model, temporary)
    # Last: if the process is killed before, readers refuse the mismatch, and calibrating again mends it.
    write_json(run.calibration_file, calibration.to_json(), recorded_file)
    logger.info(
        f"temperature {temperature:.3f}: validation log loss {calibration.nll_before:.4f} -> "
        f"{calibration.nll_after:.4f} ({len(labels):,} images)"
    )
    return calibration


@dataclass(frozen=True)
class CalibrationImages:
    """Network inputs with their labels; row i is of image i."""

    images: NDArray[np.uint8]  # ``[n, size, size, channels]``
    labels: NDArray[np.int64]  # ``[n]``, class indices
    rejected: NDArray[np.bool_]  # ``[n]``, whether the MRI check rejects it


def calibration_images(run: Run, split: Split | None, dataset: Dataset) -> CalibrationImages:
    """Loads a split's validation slices, each with none to three corruptions; without a split, all images as they are.

    Of more than 2,000 slices, as many spread evenly are taken. Raises ``ImageError`` if one cannot be read.
    """
    data, classes = run.config().data, run.classes()
    preprocessor = Preprocessor(data.image_size, data.channels, data.harmonize)
    records = split.validation[:: -(-len(split.validation) // _MOST)] if split else dataset.records

    def read(record: Record) -> tuple[ImageArray, bool]:
        image = decode_file(dataset.root / record.path)
        image = corrupt_at_random(image) if split else image
        return preprocessor.array(image), rejection_reason(image) is not None

    images, rejected = zip(*map_in_threads(read, records), strict=True)
    labels = np.array([classes.index(record.label) for record in records])
    return CalibrationImages(np.stack(images), labels, np.array(rejected))


@only_writer
def fit_ood(run: Run | LoadedRun) -> OODDetector:
    """Fits the OOD detector on a run's training images as they are, and its threshold on ``calibration_images``.

    It is saved as ``ood.npz`` in the run. Errors are as of ``load_best``.
    """
    opened = _loaded(run)
    network = features_network(opened.model)
    features = predict_records(opened.run, network, opened.dataset, opened.split.train, "train").outputs
    gaussian = Gaussian.fit(features)
    detector = OODDetector(gaussian, CalibrationScores(np.empty(0)))
    scores = detector.score(_predict(opened, network, opened.calibration_images.images))
    found = OODDetector(gaussian, CalibrationScores(np.sort(scores)))
    save_ood(opened.run, found)
    logger.info(
        f"OOD threshold {found.reference.threshold:.1f}, above which {1 - OOD_PERCENTILE:.0%} of {len(scores):,} "
        f"{VALIDATION} are"
    )
    return found


def _predict(opened: LoadedRun, network: keras.Model, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    batches = np.split(images, range(_BATCH, len(images), _BATCH))
    outputs = np.concatenate([np.asarray(network.predict_on_batch(batch.astype(np.float32))) for batch in batches])
    require_finite("outputs", [outputs], opened.run.best_model)
    return outputs


@only_writer
def fit_decisions(
    run: Run | LoadedRun, dataset: Dataset | None = None, *, risk: float | None = None, level: float = LEVEL
) -> Abstention:
    """Fits the threshold below which a calibrated run abstains, into ``calibration.json``.

    On a dataset, the conformal scores of its prediction sets too; without one these stay as they are.

    Args:
        run: The run, with a calibration and an OOD detector.
        dataset: Labelled images that stand for those to come, of another hospital say, of which near-duplicates of
            training and validation slices are left out; by default the run's validation slices, as
            ``calibration_images`` changes them.
        risk: Largest share of wrong classes among the decisions, above 0 and below 1; None for the smallest of
            ``RISKS`` that can be kept.
        level: Confidence level of that, above 0 and below 1.

    Raises:
        ConfigError: If the risk or the level is out of range.
        RunError: If the run is not calibrated.
        DataError: If the dataset has a class that the network does not know, or images that it was trained on; or if no
            threshold keeps the risk on it. On the run's own slices that is a warning: it then abstains always.
    """
    check_risk(risk, level)
    opened = _loaded(run)
    calibration, ood = load_calibration(opened.run, opened.model), load_ood(opened.run)
    if calibration is None or ood is None:
        raise RunError("A run must be calibrated first", remedy=f"btkeras calibrate {opened.run.path}")
    images = opened.calibration_images if dataset is None else _images_elsewhere(opened, dataset)
    outputs = _predict(opened, with_features(opened.model), images.images)
    probabilities, features = np.split(outputs, [len(opened.run.classes())], axis=1)
    wanted = (VALIDATION if dataset is None else dataset.root.resolve().name, (risk,) if risk else RISKS, level)
    found = abstention_of(images, probabilities, ood.reference.ood(ood.score(features)), *wanted)
    if found.threshold is None and dataset is not None:
        raise DataError(
            f"A threshold must keep the risk of {found.risk:.1%} with {level:.0%} confidence",
            received=str(found),
            remedy="Give more labelled images, or allow more: --risk, --confidence-level",
        )
    if dataset is not None:
        scores = tuple(nonconformity_scores(images.labels, probabilities).tolist())
        calibration = replace(calibration, scores=scores, data=dataset.root.resolve().name)
    write_json(opened.run.calibration_file, replace(calibration, abstention=found).to_json(), recorded_file)
    (logger.info if found.threshold is not None else logger.warning)(f"decisions: {found}")
    return found


def abstention_of(
    images: CalibrationImages,
    probabilities: NDArray[np.floating],
    beyond: NDArray[np.bool_],
    data: str,
    risks: Sequence[float],
    level: float,
) -> Abstention:
    """The threshold by a network's ``[n, classes]`` probabilities for images that are neither rejected nor ``beyond``.

    ``beyond`` are those out of distribution, ``[n]``. The first of the ``risks`` is taken that can be kept, or else the
    last. They share what the confidence ``level`` leaves (Bonferroni).
    """
    tested = ~(images.rejected | beyond)
    if not tested.any():
        return Abstention(None, risks[-1], level, 0, 0, 0, 1.0, data)
    confidences, right = top_label(images.labels[tested], probabilities[tested])
    for risk in risks:
        found = control_risk(confidences, right, risk, 1 - (1 - level) / len(risks))
        if found.threshold is not None:
            break
    return Abstention(found.threshold, risk, level, len(right), found.covered, found.wrong, found.bound, data)


def _images_elsewhere(opened: LoadedRun, dataset: Dataset) -> CalibrationImages:
    dataset = dataset_of_model(dataset, opened.run.classes())
    _require_unseen(opened, dataset)
    return calibration_images(opened.run, None, _without_near_duplicates(opened.run, dataset))


def _without_near_duplicates(run: Run, dataset: Dataset) -> Dataset:
    """The images that show no slice of training or validation; all of them, with a warning, if these are not known."""
    known = save_known_slices(run)
    if known is None:
        logger.warning(f"{run.path} has no perceptual hashes of its slices: near-duplicates of them are not left out")
        return dataset
    near = known.find_in(dataset.root, [record.path for record in dataset.records])
    if not near:
        return dataset
    text = f"{len(near):,} of {len(dataset.records):,} images in {dataset.root}"
    logger.info(f"{text} are near-duplicates of training or validation slices, and left out")
    rest = tuple(record for record in dataset.records if record.path not in near)
    if not rest:
        raise DataError(
            "Images that a threshold is fitted on must be no near-duplicates of training or validation slices",
            received=text,
            remedy="Give other images, or leave --data away for the run's own validation slices",
        )
    return replace(dataset, records=rest)


def _require_unseen(opened: LoadedRun, dataset: Dataset) -> None:
    """Raises ``DataError`` if an image of a dataset is, pixel by pixel, one that the run was trained on."""
    known = read_fingerprints(opened.run.images_file)
    trained = {known[path].pixels for path in map(str, opened.run.split_document()["train"]) if path in known}
    digests = map_in_threads(lambda record: pixel_digest(decode_file(dataset.root / record.path)), dataset.records)
    seen = sum(digest in trained for digest in digests)
    if seen:
        raise DataError(
            "Images that a threshold is fitted on must not have been trained on",
            received=f"{seen:,} of {len(dataset.records):,} in {dataset.root}",
            remedy="Take them out, or leave --data away for the run's own validation slices",
        )
