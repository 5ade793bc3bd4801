"""What a network is worth that may also say nothing: figures of the images it answers, and of those it does not."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.datasets.dataset import Record
from btkeras.decisions.calibration import Calibration
from btkeras.decisions.mri_check import rejection_reason
from btkeras.decisions.ood import CalibrationScores
from btkeras.errors import ConfigError
from btkeras.files import atomic_file
from btkeras.machine import threads
from btkeras.preprocessing.preprocessor import decode_file

UNCERTAIN, REJECTED = "uncertain", "rejected"
COVERAGE = 0.95

Floats = NDArray[np.floating]


def check_coverage(coverage: float) -> None:
    """Checks a wanted coverage.

    Raises:
        ConfigError: If it is not above 0 and below 1.
    """
    if not 0 < coverage < 1:
        raise ConfigError("A coverage must be above 0 and below 1", received=coverage, remedy="Give 0.95, say")


@dataclass(frozen=True)
class Decision:
    """Attributes:
    answer: A class name, ``uncertain`` or ``rejected``.
    set: The classes that cannot be ruled out at the wanted coverage; None if the network was not calibrated.
    ood_percentile: Percent of the validation slices that are at most as unlike the training slices; None if not known.
    reasons: Why there is no class as the answer, in plain words.
    """

    decision: str
    set: tuple[str, ...] | None
    ood_percentile: float | None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class SelectiveClassifier:
    """The rules, in this order: what the guard refuses is refused; an outlier is uncertain, and so is an image whose
    prediction set has not exactly one class; else the answer is the most probable class.

    Attributes:
        classes: Names, in the order of the probabilities.
        calibration: Gives the prediction sets; None leaves that rule out.
        reference: Gives the scores a meaning; None leaves that rule out.
        coverage: Of the prediction sets, above 0 and below 1.
    """

    classes: tuple[str, ...]
    calibration: Calibration | None
    reference: CalibrationScores | None
    coverage: float = COVERAGE

    def decisions(self, probabilities: Floats, scores: Floats | None, refusals: Sequence[str | None]) -> list[Decision]:
        """Judges images.

        Args:
            probabilities: ``[n, classes]``.
            scores: ``[n]`` of ``Outliers.score``; None if they are not known.
            refusals: What the guard says of each.

        Raises:
            ConfigError: If the coverage is out of range.
        """
        unknown = [None] * len(refusals)
        sets = self.calibration.sets(probabilities, self.coverage) if self.calibration else unknown
        percentiles: Sequence[Any] | NDArray[np.float64] = unknown
        beyond: Sequence[Any] | NDArray[np.bool_] = unknown
        if self.reference is not None and scores is not None:
            percentiles, beyond = self.reference.percentile(scores), self.reference.ood(scores)
        return [
            self._decision(*facts) for facts in zip(probabilities, sets, percentiles, beyond, refusals, strict=True)
        ]

    def _decision(
        self,
        probabilities: Floats,
        members: NDArray[np.bool_] | None,
        percentile: float | None,
        beyond: bool | None,
        rejection: str | None,
    ) -> Decision:
        names = None if members is None else tuple(n for n, m in zip(self.classes, members, strict=True) if m)
        ood_percentile = None if percentile is None else round(float(percentile), 2)
        if rejection is not None:
            return Decision(REJECTED, names, ood_percentile, (f"no brain MRI slice: {rejection}",))
        reasons: tuple[str, ...] = ("unlike the training slices",) if beyond else ()
        if names is not None and len(names) != 1:
            several = f"{' or '.join(names)} at {self.coverage:.0%} coverage"
            reasons += (several if names else f"no class is probable enough for {self.coverage:.0%} coverage",)
        return Decision(
            UNCERTAIN if reasons else self.classes[int(probabilities.argmax())], names, ood_percentile, reasons
        )


FILE = "decisions.csv"


def check_files(paths: Sequence[Path]) -> list[str | None]:
    """What the input guard says of each file, all of which must be readable.

    Raises:
        ImageError: If one is not.
    """
    with ThreadPoolExecutor(threads()) as pool:
        return list(pool.map(lambda path: rejection_reason(decode_file(path)), paths))


def selective_metrics(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    decisions: Sequence[Decision],
    classes: Sequence[str],
) -> dict[str, Any]:
    """The figures as JSON-ready fractions; one of no images is None.

    Args:
        labels: ``[n]`` class indices.
        probabilities: ``[n, classes]``.
        decisions: One an image.
        classes: Names, in the order of the indices.

    Returns:
        Shares ``coverage``, ``abstained`` and ``rejected``; ``accuracy`` and ``macro_recall`` of the answered (the mean
        over the classes that have any), ``withheld_accuracy`` that the most probable classes of the others would have
        had; and ``per_class``, where both are recalls.
    """
    right = probabilities.argmax(axis=1) == labels
    answers = np.array([decision.decision for decision in decisions])
    named = {name: labels == i for i, name in enumerate(classes) if (labels == i).any()}
    per_class = {name: _figures(right[chosen], answers[chosen]) for name, chosen in named.items()}
    recalls = [row["accuracy"] for row in per_class.values() if row["accuracy"] is not None]
    return {
        **_figures(right, answers),
        "macro_recall": float(np.mean(recalls)) if recalls else None,
        "per_class": per_class,
    }


def _figures(right: NDArray[np.bool_], answers: NDArray[np.str_]) -> dict[str, Any]:
    uncertain, rejected = answers == UNCERTAIN, answers == REJECTED
    answered = ~(uncertain | rejected)
    return {
        "images": len(right),
        "coverage": float(answered.mean()),
        "abstained": float(uncertain.mean()),
        "rejected": float(rejected.mean()),
        "accuracy": _mean(right[answered]),
        "withheld_accuracy": _mean(right[~answered]),
    }


def _mean(values: NDArray[np.bool_]) -> float | None:
    return float(values.mean()) if values.size else None


def format_selective(metrics: Mapping[str, Any]) -> list[str]:
    """An evaluation's ``selective`` in two lines; none if it has no such figures."""
    figures = metrics.get("selective")
    if not figures:
        return []
    shares = "; ".join(f"{name} {_percent(row['coverage'], 0)}" for name, row in figures["per_class"].items())
    return [
        f"answered {_percent(figures['coverage'])} of the images, {_percent(figures['accuracy'])} of them right "
        f"(macro recall {_percent(figures['macro_recall'])}); uncertain {_percent(figures['abstained'])}, rejected "
        f"{_percent(figures['rejected'])}, of which {_percent(figures['withheld_accuracy'])} would have been right",
        f"answered by class: {shares}",
    ]


def _percent(share: float | None, digits: int = 1) -> str:
    return "none" if share is None else f"{100 * share:.{digits}f} %"


def write_decisions(target: Path, records: Sequence[Record], decisions: Sequence[Decision]) -> None:
    """Writes ``decisions.csv``: path, label, answer, outlier, and set and reasons, each joined by semicolons."""
    with atomic_file(target) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label", "decision", "ood_percentile", "set", "reasons"])
        for record, decision in zip(records, decisions, strict=True):
            writer.writerow([record.path, record.label, decision.decision, *join_reasons(decision)])


def join_reasons(decision: Decision) -> tuple[str, str, str]:
    """Outlier, set and reasons as fields of a table; "" where they are not known."""
    ood_percentile = "" if decision.ood_percentile is None else f"{decision.ood_percentile:g}"
    return ood_percentile, ";".join(decision.set or ()), ";".join(decision.reasons)
