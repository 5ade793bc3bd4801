"""The figures of answers to labelled images, and the files that keep them, whatever network they are from.

Needs neither Keras nor TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.datasets.dataset import Record
from btkeras.decisions.calibration import Calibration
from btkeras.decisions.selective_classifier import FILE as ANSWERS
from btkeras.decisions.selective_classifier import Decision, format_selective, selective_metrics, write_decisions
from btkeras.files import write_json
from btkeras.metrics import summarize
from btkeras.metrics.calibration import (
    ESTIMATOR,
    calibrated_error,
    calibration_scores,
    risk_coverage_area,
    without_temperature,
)
from btkeras.metrics.conformal import set_metrics
from btkeras.runs import Run, write_predictions

COVERAGES = (0.9, 0.95, 0.99)


def calibration_metrics(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating], calibration: Calibration | None
) -> dict[str, Any]:
    """How far the answers to some images can be trusted, as JSON-ready numbers.

    Args:
        labels: ``[n]`` class indices.
        probabilities: ``[n, classes]``, of the calibrated network.
        calibration: The network's; None if it was not calibrated.

    Returns:
        ``estimator`` (of the ECE), ``temperature``, ``before`` and ``after`` (``metrics.calibration_scores`` without
        the temperature and with it), ``ece_if_calibrated`` (``mean``, and ``high``, which 5 % exceed: what the
        estimator finds where there is nothing), ``aurc``, and ``conformal``: None, or its ``method`` and, for each
        ``coverage``, the ``threshold`` and what ``metrics.conformal.set_figures`` gives.
    """
    # The same figures as from the file of predictions.
    probabilities = np.asarray(probabilities, np.float64)
    temperature = calibration.temperature if calibration else 1.0
    mean, high = calibrated_error(probabilities)
    return {
        "estimator": ESTIMATOR,
        "temperature": temperature,
        "before": calibration_scores(labels, without_temperature(probabilities, temperature)),
        "after": calibration_scores(labels, probabilities),
        "ece_if_calibrated": {"mean": mean, "high": high},
        "aurc": risk_coverage_area(labels, probabilities),
        "conformal": calibration
        and {
            "method": calibration.method,
            "images": len(calibration.scores),
            "sets": [
                {"coverage": coverage, "threshold": calibration.threshold(coverage)}
                | set_metrics(labels, calibration.sets(probabilities, coverage))
                for coverage in COVERAGES
            ],
        },
    }


def format_calibration(metrics: Mapping[str, Any]) -> list[str]:
    """The figures of an evaluation's ``calibration`` in two lines; none if it has no such figures."""
    figures = metrics.get("calibration")
    if not figures:
        return []
    after, before, fitted = figures["after"], figures["before"], figures["conformal"]
    lines = [
        f"calibration: {'temperature ' + format(figures['temperature'], '.3f') if fitted else 'none'}; ECE "
        f"{100 * after['ece']:.2f} % (before {100 * before['ece']:.2f}, if perfect about "
        f"{100 * figures['ece_if_calibrated']['mean']:.2f}), Brier {after['brier']:.4f} ({before['brier']:.4f}), "
        f"log loss {after['nll']:.4f} ({before['nll']:.4f})"
    ]
    if fitted:
        sets = (
            f"{100 * row['covered']:.1f} % where {100 * row['coverage']:g} % is wanted ({row['mean_size']:.2f} classes)"
            for row in fitted["sets"]
        )
        lines.append(f"prediction sets hold the true class: {', '.join(sets)}")
    return lines


@dataclass(frozen=True)
class EvaluationResult:
    """Attributes:
    records: The images.
    classes: Names, in the order of the probabilities.
    probabilities: ``[len(records), len(classes)]``.
    calibration: The network's, or None.
    decisions: Of the images, or None where they are not known.
    """

    records: tuple[Record, ...]
    classes: tuple[str, ...]
    probabilities: NDArray[np.floating]
    calibration: Calibration | None
    decisions: Sequence[Decision] | None = None

    def figures(self) -> dict[str, Any]:
        """What ``btkeras.metrics.summarize`` gives, ``chance``, ``calibration`` and, with verdicts, ``selective``."""
        labels = np.array([self.classes.index(record.label) for record in self.records])
        found = {
            "chance": float(np.bincount(labels).max() / len(labels)),
            **summarize(labels, self.probabilities, self.classes),
            "calibration": calibration_metrics(labels, self.probabilities, self.calibration),
        }
        if self.decisions is not None:
            found["selective"] = selective_metrics(labels, self.probabilities, self.decisions, self.classes)
        return found

    def write(self, folder: Path, metrics: Mapping[str, Any]) -> None:
        """Writes ``predictions.csv``, with verdicts ``decisions.csv``, and, last, ``metrics.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        names = Run(folder)
        if self.decisions is not None:
            write_decisions(folder / ANSWERS, self.records, self.decisions)
        write_predictions(names.predictions_file, self.records, self.classes, self.probabilities.tolist())
        write_json(names.metrics_file, metrics)


def metrics_table(metrics: dict[str, Any]) -> str:
    """The figures as a text table: percent per class, macro average, and the confusion matrix."""
    names = ("accuracy", "precision", "recall", "specificity", "f1")
    width = max(len(label) for label in metrics["classes"]) + 2
    lines = ["".join([f"{'':{width}}", *(f"{name:>12}" for name in names), f"{'images':>9}"])]
    for label, row in {**metrics["per_class"], "macro": metrics["macro"]}.items():
        figures = "".join(f"{100 * row[name]:12.2f}" for name in names)
        lines.append(f"{label:{width}}{figures}{row.get('images', metrics['images']):9,}")
    lines += ["", f"{'true / predicted':{width}}" + "".join(f"{label:>12}" for label in metrics["classes"])]
    for label, counts in zip(metrics["classes"], metrics["confusion_matrix"], strict=True):
        lines.append(f"{label:{max(width, 16)}}" + "".join(f"{count:12,}" for count in counts))
    lines += [
        "",
        f"{metrics['split']} accuracy {100 * metrics['accuracy']:.2f} % of {metrics['images']:,} images "
        f"(always answering the most frequent class: {100 * metrics['chance']:.2f} %)",
    ]
    return "\n".join([*lines, *format_calibration(metrics), *format_selective(metrics)])
