"""Selective classification: the rules from probabilities to a decision, and its metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.checksums import recorded_file
from btkeras.datasets.dataset import Record
from btkeras.decisions.abstention import decimals
from btkeras.decisions.calibration import COVERAGE, Calibration
from btkeras.decisions.ood import CalibrationScores
from btkeras.files import write_csv
from btkeras.machine import map_in_threads
from btkeras.preprocessing.decode import decode_file
from btkeras.preprocessing.mri_check import rejection_reason

UNCERTAIN, REJECTED = "uncertain", "rejected"
# Probabilities that are nearer to 0 or 1 are taken for this one, as float32 rounds their log-odds coarsely.
LEAST = 1e-5

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Decision:
    """The decision on an image."""

    decision: str  # a class name, ``uncertain`` or ``rejected``
    set: tuple[str, ...] | None  # the classes that cannot be ruled out; None if the network was not calibrated
    ood_percentile: float | None  # percent of the calibration slices with at most this OOD score; None if not known
    reasons: tuple[str, ...] = ()  # why the decision is no class


@dataclass(frozen=True)
class SelectiveClassifier:
    """The rules, in this order: what is no brain MRI slice is rejected; an image out of distribution is uncertain, and
    so is one whose highest probability is below the abstention threshold; else the decision is the most probable class.
    """

    classes: tuple[str, ...]  # names, in the order of the probabilities
    calibration: Calibration | None  # gives prediction sets and threshold; None leaves that rule out
    reference: CalibrationScores | None  # the calibration slices' OOD scores; None leaves that rule out
    coverage: float = COVERAGE  # of the prediction sets, above 0 and below 1

    def decisions(
        self, probabilities: Floats, scores: Floats | None, rejections: Sequence[str | None]
    ) -> list[Decision]:
        """Decides on images.

        Args:
            probabilities: ``[n, classes]``.
            scores: ``[n]`` of ``OODDetector.score``; None if they are not known.
            rejections: Reason of each image to be rejected, or None.
        """
        unknown: Sequence[Any] = [None] * len(rejections)
        sets = self.calibration.sets(probabilities, self.coverage) if self.calibration else unknown
        percentiles, beyond = unknown, unknown
        if self.reference is not None and scores is not None:
            percentiles, beyond = list(self.reference.percentile(scores)), list(self.reference.ood(scores))
        rows = zip(probabilities, sets, percentiles, beyond, rejections, strict=True)
        return [self._decision(*row) for row in rows]

    def close(
        self, probabilities: Floats, scores: Floats | None, *, distance: float, lead: float, part: float
    ) -> NDArray[np.bool_]:
        """Which images could get another class, decision or prediction set ``[n]``.

        Args:
            probabilities: ``[n, classes]``.
            scores: ``[n]``, or None.
            distance: How far a probability's ``log_odds`` may be off.
            lead: How far the difference of the two largest ``log_probabilities`` may be off.
            part: How far a score may be off, as a part of it.
        """
        odds = log_odds(probabilities)
        second, first = np.sort(log_probabilities(probabilities), axis=1)[:, -2:].T
        found: NDArray[np.bool_] = first - second <= lead
        if self.calibration:
            # From 0 on, a set has all classes anyway.
            if (edge := 1 - self.calibration.threshold(self.coverage)) > 0:
                found |= (np.abs(odds - log_odds(np.array(edge))) <= distance).any(axis=1)
            if self.calibration.abstention and self.calibration.abstention.threshold is not None:
                least = log_odds(np.array(self.calibration.abstention.threshold))
                found |= np.abs(odds.max(axis=1) - least) <= distance
        if self.reference is not None and scores is not None:
            found |= self.reference.ood(scores * (1 - part)) != self.reference.ood(scores * (1 + part))
        return found

    def _decision(
        self, probabilities: Floats, members: Any, percentile: float | None, beyond: bool | None, rejection: str | None
    ) -> Decision:
        names = None if members is None else tuple(n for n, m in zip(self.classes, members, strict=True) if m)
        ood_percentile = None if percentile is None else round(float(percentile), 2)
        if rejection is not None:
            return Decision(REJECTED, names, ood_percentile, (f"no brain MRI slice: {rejection}",))
        reasons: tuple[str, ...] = ("unlike the training slices",) if beyond else ()
        reasons += self._doubts(float(probabilities.max()), names)
        decision = UNCERTAIN if reasons else self.classes[int(probabilities.argmax())]
        return Decision(decision, names, ood_percentile, reasons)

    def _doubts(self, confidence: float, names: Sequence[str] | None) -> tuple[str, ...]:
        """Why the highest probability is too low, if it is."""
        abstention = self.calibration.abstention if self.calibration else None
        if abstention is None:
            # Models of before there was a threshold: those of one class in the set were decided.
            single = names is None or len(names) == 1
            return (
                () if single else (f"{' or '.join(names or ()) or 'no class'} at {100 * self.coverage:.0f} % coverage",)
            )
        if abstention.threshold is None:
            return (f"no probability is high enough for a risk of {100 * abstention.risk:.0f} %",)
        if confidence >= abstention.threshold:
            return ()
        digits = decimals(abstention.threshold, confidence)
        return (f"the highest probability, {confidence:.{digits}f}, is below {abstention.threshold:.{digits}f}",)


def log_probabilities(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Natural logarithms, also of 0: finite."""
    return np.log(np.maximum(probabilities, LEAST, dtype=np.float64))


def log_odds(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """``log(p / (1 - p))``, in which rounding in a network moves sure and unsure probabilities alike."""
    values = np.clip(np.asarray(probabilities, np.float64), LEAST, 1 - LEAST)
    odds: NDArray[np.float64] = np.log(values / (1 - values))
    return odds


def check_files(paths: Sequence[Path]) -> list[str | None]:
    """Why each file shows no brain MRI slice, or None; raises ``ImageError`` if one cannot be read."""
    return list(map_in_threads(lambda path: rejection_reason(decode_file(path)), paths))


def selective_metrics(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    decisions: Sequence[Decision],
    classes: Sequence[str],
) -> dict[str, Any]:
    """Metrics of selective classification as JSON-ready fractions; None where there are no images.

    Returns:
        Shares ``coverage`` (of images with a class as the decision), ``abstained`` and ``rejected``; ``accuracy`` and
        ``macro_recall`` of the covered images; ``withheld_accuracy``, of the most probable classes of the others; and
        ``per_class``, where both are recalls.
    """
    correct = probabilities.argmax(axis=1) == labels
    outcomes = np.array([decision.decision for decision in decisions])
    named = {name: labels == i for i, name in enumerate(classes) if (labels == i).any()}
    per_class = {name: _shares(correct[chosen], outcomes[chosen]) for name, chosen in named.items()}
    recalls = [row["accuracy"] for row in per_class.values() if row["accuracy"] is not None]
    return {
        **_shares(correct, outcomes),
        "macro_recall": float(np.mean(recalls)) if recalls else None,
        "per_class": per_class,
    }


def _shares(correct: NDArray[np.bool_], outcomes: NDArray[np.str_]) -> dict[str, Any]:
    uncertain, rejected = outcomes == UNCERTAIN, outcomes == REJECTED
    covered = ~(uncertain | rejected)
    shares = {"coverage": covered, "abstained": uncertain, "rejected": rejected}
    accuracies = {"accuracy": correct[covered], "withheld_accuracy": correct[~covered]}
    return {
        "images": len(correct),
        **{name: float(chosen.mean()) for name, chosen in shares.items()},
        **{name: float(right.mean()) if right.size else None for name, right in accuracies.items()},
    }


def write_decisions(target: Path, records: Sequence[Record], decisions: Sequence[Decision]) -> None:
    """Writes ``decisions.csv``; sets and reasons are joined by semicolons."""
    rows = []
    for record, decision in zip(records, decisions, strict=True):
        percentile = "" if decision.ood_percentile is None else f"{decision.ood_percentile:g}"
        members, reasons = ";".join(decision.set or ()), ";".join(decision.reasons)
        rows.append([record.path, record.label, decision.decision, percentile, members, reasons])
    write_csv(target, ["path", "label", "decision", "ood_percentile", "set", "reasons"], rows, recorded_file)
