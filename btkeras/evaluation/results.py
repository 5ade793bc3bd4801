"""Metrics of predictions for labelled images, and the files they are written to. Needs neither Keras nor TensorFlow."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.checksums import check_file, recorded_file
from btkeras.datasets.dataset import Dataset, Record
from btkeras.decisions.calibration import Calibration, set_metrics
from btkeras.decisions.selective_classifier import Decision, selective_metrics, write_decisions
from btkeras.errors import RunError
from btkeras.evaluation.new_patients import new_patient_metrics
from btkeras.evaluation.risk_coverage import risk_coverage_metrics
from btkeras.files import write_csv, write_json
from btkeras.metrics import summarize
from btkeras.metrics.calibration import (
    ESTIMATOR,
    calibrated_error,
    calibration_scores,
    without_temperature,
)
from btkeras.runs import Results

COVERAGES = (0.9, 0.95, 0.99)
_REMEDY = "Evaluate the run again"


def calibration_metrics(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating], calibration: Calibration | None
) -> dict[str, Any]:
    """How well a network's probabilities ``[n, classes]`` are calibrated, JSON-ready.

    Returns:
        ``estimator`` (of the ECE), ``temperature``, ``before`` and ``after`` (``metrics.calibration_scores`` without
        and with the temperature), ``ece_if_calibrated`` (``mean`` and ``high``, its 95th percentile, of the estimator's
        bias), and ``conformal``: None without a calibration, or ``method``, ``images``, their ``data`` and, for each
        ``coverage`` in ``sets``, the ``threshold`` and ``decisions.calibration.set_metrics``.
    """
    # As precise as predictions.csv, so that metrics from the file are the same.
    probabilities = np.asarray(probabilities, np.float64)
    temperature = calibration.temperature if calibration else 1.0
    mean, high = calibrated_error(probabilities)
    return {
        "estimator": ESTIMATOR,
        "temperature": temperature,
        "before": calibration_scores(labels, without_temperature(probabilities, temperature)),
        "after": calibration_scores(labels, probabilities),
        "ece_if_calibrated": {"mean": mean, "high": high},
        "conformal": calibration
        and {
            "method": calibration.method,
            "images": len(calibration.scores),
            "data": calibration.data,
            "sets": [
                {"coverage": coverage, "threshold": calibration.threshold(coverage)}
                | set_metrics(labels, calibration.sets(probabilities, coverage))
                for coverage in COVERAGES
            ],
        },
    }


@dataclass(frozen=True)
class EvaluationResult:
    """Records with their probabilities ``[records, classes]``, the network's calibration, and decisions, if known."""

    records: tuple[Record, ...]
    classes: tuple[str, ...]
    probabilities: NDArray[np.floating]
    calibration: Calibration | None
    decisions: Sequence[Decision] | None = None
    near_duplicates: Mapping[str, str] | None = None  # training image or its subset, by path; None if not sought
    groups: Mapping[str, str] = field(default_factory=dict)  # by path, for intervals, of images that name no patient

    def metrics(self, dataset: Dataset, split: str, broken: int) -> dict[str, Any]:
        """The content of ``metrics.json``: ``dataset``, ``split``, ``broken`` (number of images left out), ``chance``,
        ``btkeras.metrics.summarize``, ``calibration``, ``risk_coverage`` (of ``risk_coverage_metrics``), with decisions
        ``selective`` and in it ``abstention``, with near-duplicates of training images ``without_near_duplicates``:
        their number, ``near_duplicates``, and ``summarize`` and ``selective`` of the other images, or ``images`` alone
        if that is 0; and ``evaluation.new_patients.new_patient_metrics``.
        """
        labels = np.array([self.classes.index(record.label) for record in self.records])
        found = {
            "dataset": str(dataset.root),
            "split": split,
            "broken": broken,
            "chance": float(np.bincount(labels).max() / len(labels)),
            **summarize(labels, self.probabilities, self.classes),
            "calibration": calibration_metrics(labels, self.probabilities, self.calibration),
        }
        if self.decisions is not None:
            abstention = self.calibration.abstention if self.calibration else None
            found["selective"] = {
                **selective_metrics(labels, self.probabilities, self.decisions, self.classes),
                "abstention": abstention and abstention.to_json(),
            }
        # As precise as predictions.csv, as the calibration.
        exact = np.asarray(self.probabilities, np.float64)
        found["risk_coverage"] = risk_coverage_metrics(labels, exact, found.get("selective"))
        if self.near_duplicates is not None:
            found["without_near_duplicates"] = self._without(self.near_duplicates, labels)
        return found | new_patient_metrics(self.records, labels, exact, self.classes, self.groups, self.decisions)

    def _without(self, near_duplicates: Mapping[str, str], labels: NDArray[np.integer]) -> dict[str, Any]:
        rest = np.array([record.path not in near_duplicates for record in self.records])
        found: dict[str, Any] = {"near_duplicates": int((~rest).sum())}
        if not rest.any():
            return found | {"images": 0}
        labels, probabilities = labels[rest], self.probabilities[rest]
        if self.decisions is not None:
            decisions = [decision for decision, chosen in zip(self.decisions, rest, strict=True) if chosen]
            found["selective"] = selective_metrics(labels, probabilities, decisions, self.classes)
        return found | summarize(labels, probabilities, self.classes)

    def write(self, folder: Path, metrics: Mapping[str, Any]) -> None:
        """Writes ``predictions.csv``, if known ``decisions.csv`` and ``near_duplicates.csv``; last ``metrics.json``."""
        results = Results(folder)
        if self.decisions is not None:
            write_decisions(results.decisions_file, self.records, self.decisions)
        if self.near_duplicates is not None:
            write_csv(
                results.near_duplicates_file,
                ["path", "near_duplicate_of"],
                list(self.near_duplicates.items()),
                recorded_file,
            )
        write_predictions(results.predictions_file, self.records, self.classes, self.probabilities.tolist())
        write_json(results.metrics_file, metrics, recorded_file)


def write_predictions(
    target: Path, records: Sequence[Record], classes: Sequence[str], probabilities: Sequence[Sequence[float]]
) -> None:
    """Writes ``predictions.csv``: path, label, prediction, and a probability per class."""
    images = zip(records, probabilities, strict=True)
    rows = [[record.path, record.label, classes[int(np.argmax(row))], *row] for record, row in images]
    write_csv(target, ["path", "label", "prediction", *classes], rows, recorded_file)


def read_predictions(
    source: Path, classes: Sequence[str]
) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.float64]]:
    """Reads ``predictions.csv``.

    Returns:
        Paths; class indices ``[n]``; probabilities ``[n, classes]``, exactly as they were written.

    Raises:
        RunError: If it is not as ``write_predictions`` writes it, for these classes and at least one image.
    """
    check_file(source)
    try:
        with source.open(newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file))
        if not lines:
            raise ValueError("an empty file")
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(f"{source} must be a CSV file with a header", received=error, remedy=_REMEDY) from error
    header, *rows = lines
    expected = ["path", "label", "prediction", *classes]
    if header != expected or not rows:
        raise RunError(
            f"{source} must have the columns {','.join(expected)}, and images",
            received=f"{','.join(header)} and {len(rows)} lines",
            remedy=_REMEDY,
        )
    found = [_prediction(row, classes, f"line {line} of {source}") for line, row in enumerate(rows, start=2)]
    paths, labels, probabilities = zip(*found, strict=True)
    return tuple(paths), np.array(labels), np.array(probabilities)


def _prediction(row: Sequence[str], classes: Sequence[str], where: str) -> tuple[str, int, list[float]]:
    # Too few fields, text for a number and an unknown label are all ValueErrors.
    with suppress(ValueError):
        path, label, prediction, *values = row
        probabilities = [float(value) for value in values]
        # A softmax may round to a little more than 1. NaN is in no range.
        valid = len(values) == len(classes) and all(0 <= value <= 1 + 1e-6 for value in probabilities)
        if valid and prediction == classes[probabilities.index(max(probabilities))]:
            return path, classes.index(label), probabilities
    raise RunError(
        f"A prediction must be a path, a label, the most probable class and {len(classes)} probabilities",
        received=f"{','.join(row)[:200]!r} in {where}",
        remedy=_REMEDY,
    )
