"""What a network is worth that may also say nothing: figures of the pictures it answers, and of those it does not."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.data.decoder import stored_picture
from btkeras.data.guard import check_slice
from btkeras.data.records import Record
from btkeras.evaluation.verdicts import REFUSED, UNCERTAIN, Verdict
from btkeras.files import atomic_file
from btkeras.machine import threads

FILE = "answers.csv"


def guard_files(paths: Sequence[Path]) -> list[str | None]:
    """What the input guard says of each file, all of which must be readable.

    Raises:
        ImageError: If one is not.
    """
    with ThreadPoolExecutor(threads()) as pool:
        return list(pool.map(lambda path: check_slice(stored_picture(path)), paths))


def selective_figures(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    verdicts: Sequence[Verdict],
    classes: Sequence[str],
) -> dict[str, Any]:
    """The figures as JSON-ready fractions; one of no pictures is None.

    Args:
        labels: ``[n]`` class indices.
        probabilities: ``[n, classes]``.
        verdicts: One a picture.
        classes: Names, in the order of the indices.

    Returns:
        Shares ``answered``, ``uncertain`` and ``refused``; ``accuracy`` and ``macro_recall`` of the answered (the mean
        over the classes that have any), ``unanswered_accuracy`` that the most probable classes of the others would have
        had; and ``per_class``, where both are recalls.
    """
    right = probabilities.argmax(axis=1) == labels
    answers = np.array([verdict.answer for verdict in verdicts])
    named = {name: labels == i for i, name in enumerate(classes) if (labels == i).any()}
    per_class = {name: _figures(right[chosen], answers[chosen]) for name, chosen in named.items()}
    recalls = [row["accuracy"] for row in per_class.values() if row["accuracy"] is not None]
    return {
        **_figures(right, answers),
        "macro_recall": float(np.mean(recalls)) if recalls else None,
        "per_class": per_class,
    }


def _figures(right: NDArray[np.bool_], answers: NDArray[np.str_]) -> dict[str, Any]:
    uncertain, refused = answers == UNCERTAIN, answers == REFUSED
    answered = ~(uncertain | refused)
    return {
        "images": len(right),
        "answered": float(answered.mean()),
        "uncertain": float(uncertain.mean()),
        "refused": float(refused.mean()),
        "accuracy": _mean(right[answered]),
        "unanswered_accuracy": _mean(right[~answered]),
    }


def _mean(values: NDArray[np.bool_]) -> float | None:
    return float(values.mean()) if values.size else None


def selective_lines(metrics: Mapping[str, Any]) -> list[str]:
    """An evaluation's ``selective`` in two lines; none if it has no such figures."""
    figures = metrics.get("selective")
    if not figures:
        return []
    shares = "; ".join(f"{name} {_percent(row['answered'], 0)}" for name, row in figures["per_class"].items())
    return [
        f"answered {_percent(figures['answered'])} of the pictures, {_percent(figures['accuracy'])} of them right "
        f"(macro recall {_percent(figures['macro_recall'])}); uncertain {_percent(figures['uncertain'])}, refused "
        f"{_percent(figures['refused'])}, of which {_percent(figures['unanswered_accuracy'])} would have been right",
        f"answered by class: {shares}",
    ]


def _percent(share: float | None, digits: int = 1) -> str:
    return "none" if share is None else f"{100 * share:.{digits}f} %"


def write_answers(target: Path, records: Sequence[Record], verdicts: Sequence[Verdict]) -> None:
    """Writes ``answers.csv``: path, label, answer, outlier, and set and reasons, each joined by semicolons."""
    with atomic_file(target) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label", "answer", "outlier", "set", "reasons"])
        for record, verdict in zip(records, verdicts, strict=True):
            writer.writerow([record.path, record.label, verdict.answer, *joined(verdict)])


def joined(verdict: Verdict) -> tuple[str, str, str]:
    """Outlier, set and reasons as fields of a table; "" where they are not known."""
    outlier = "" if verdict.outlier is None else f"{verdict.outlier:g}"
    return outlier, ";".join(verdict.set or ()), ";".join(verdict.reasons)
