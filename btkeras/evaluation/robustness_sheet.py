"""What a robustness sheet says: from answers to figures, to the file, and to text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.errors import RunError
from btkeras.evaluation.corruptions import CORRUPTIONS, LEVELS
from btkeras.files import read_json
from btkeras.metrics import class_metrics, confusion_matrix, wilson
from btkeras.metrics.calibration import ESTIMATOR, expected_calibration_error
from btkeras.runs import Run

MEANS = ("accuracy", "balanced_accuracy", "confidence", "ece")

# The image as it is, then name and level of each corruption: the order of a network's answers.
SETTINGS = (("", 0), *((name, level) for name in CORRUPTIONS for level in LEVELS))


def sheet_of(labels: NDArray[np.int64], answers: NDArray[np.float32]) -> dict[str, Any]:
    """The figures of a network's answers to images in every one of ``SETTINGS``.

    Args:
        labels: ``[images]`` class indices.
        answers: Probabilities ``[images, settings, classes]``.

    Returns:
        ``estimator`` (of the ECE), ``clean``, ``corruptions`` (``name``, ``title``, ``unit``, ``levels``, ``mean``)
        and ``mean`` over all of them, JSON-ready.
    """
    figures = [_figures(labels, answers[:, i]) for i in range(len(SETTINGS))]
    corruptions = []
    for number, (name, corruption) in enumerate(CORRUPTIONS.items()):
        found = figures[1 + number * len(LEVELS) :][: len(LEVELS)]
        levels = [
            {"level": level, "strength": strength} | row
            for level, strength, row in zip(LEVELS, corruption.strengths, found, strict=True)
        ]
        corruptions.append(
            {
                "name": name,
                "title": corruption.title,
                "unit": corruption.unit,
                "levels": levels,
                "mean": _mean(found),
            }
        )
    return {"estimator": ESTIMATOR, "clean": figures[0], "corruptions": corruptions, "mean": _mean(figures[1:])}


def _figures(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> dict[str, Any]:
    predictions = probabilities.argmax(axis=1)
    matrix = confusion_matrix(labels, predictions, probabilities.shape[1])
    correct = int(np.trace(matrix))
    present = matrix.sum(axis=1) > 0
    return {
        "accuracy": correct / len(labels),
        "accuracy_interval": list(wilson(correct, len(labels))),
        "balanced_accuracy": float(class_metrics(matrix)["recall"][present].mean()),
        "confidence": float(probabilities.max(axis=1).mean(dtype=np.float64)),
        "ece": expected_calibration_error(labels, probabilities),
    }


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in MEANS}


def sampling_errors(labels: NDArray[np.int64], probabilities: NDArray[np.float32], of: int) -> dict[str, float]:
    """How far accuracies of a sample may be from those of all images: half of 95 % intervals.

    Args:
        labels: ``[n]`` class indices.
        probabilities: ``[n, classes]``, of the images as they are.
        of: Number of images that the sample was drawn from.

    Returns:
        ``clean``, of the accuracy as it is, and ``largest``, of an accuracy of a half.
    """
    n = len(labels)
    # Of a finite population: nothing is left to chance where all of it was taken.
    correction = math.sqrt((of - n) / max(of - 1, 1))
    correct = {"largest": n / 2, "clean": float((probabilities.argmax(axis=1) == labels).sum())}
    widths = {key: np.diff(wilson(value, n))[0] for key, value in correct.items()}
    return {key: float(correction * width / 2) for key, width in widths.items()}


def read_sheet(run: Run) -> dict[str, Any] | None:
    """Reads a run's ``robustness.json``; None if it has none.

    Raises:
        RunError: If it is not as ``btkeras robustness`` writes it.
    """
    file = run.robustness_file
    if not file.is_file():
        return None
    document = read_json(file)
    try:
        for row in (document["clean"], document["mean"], *(row["mean"] for row in document["corruptions"])):
            _numbers(row, MEANS)
        for row in document["corruptions"]:
            str(row["name"]), str(row["title"]), str(row["unit"])
            for level in row["levels"]:
                _numbers(level, ("level", "strength", *MEANS))
        _numbers(document, ("images", "of", "seed"))
        _numbers(document["sampling_error"], ("clean", "largest"))
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{file} must be as `btkeras robustness` writes it",
            received=f"{type(error).__name__}: {error}",
            remedy=f"Make it again: btkeras robustness {run.path}",
        ) from error
    return document


def _numbers(row: Mapping[str, Any], names: Sequence[str]) -> None:
    for name in names:
        float(row[name])


def robustness_table(document: Mapping[str, Any]) -> str:
    """The sheet as text: accuracy and mean confidence, in percent, by corruption and strength."""
    clean, mean, width = document["clean"], document["mean"], max(map(len, CORRUPTIONS)) + 2
    blocks = (("accuracy", "balanced_accuracy", "balanced"), ("confidence", "ece", "ECE"))
    lines = []
    for key, second, title in blocks:
        levels = "".join(f"{level:8}" for level in LEVELS)
        lines.append(f"{key + ', %':{width + 6}}{levels}{'mean':>8}{title:>10}")
        for row in document["corruptions"]:
            cells = "".join(f"{100 * level[key]:8.1f}" for level in row["levels"])
            lines.append(
                f"{row['name']:{width + 6}}{cells}{100 * row['mean'][key]:8.1f}{100 * row['mean'][second]:10.1f}"
            )
        for name, figures in (("all of them", mean), ("as they are", clean)):
            lines.append(f"{name:{width + 6 + 8 * len(LEVELS)}}{100 * figures[key]:8.1f}{100 * figures[second]:10.1f}")
        lines.append("")
    for row in document["corruptions"]:
        strengths = ", ".join(f"{level['strength']:g}" for level in row["levels"])
        lines.append(f"{row['name']:{width}}{row['title']}; {row['unit']}: {strengths}")
    return "\n".join([*lines, "", *_words(document)])


def _words(document: Mapping[str, Any]) -> list[str]:
    clean, mean, errors = document["clean"], document["mean"], document["sampling_error"]
    lines = [
        f"accuracy {100 * clean['accuracy']:.2f} % as they are, {100 * mean['accuracy']:.2f} % over all changes; "
        f"confidence {100 * clean['confidence']:.2f} % and {100 * mean['confidence']:.2f} %"
    ]
    if document["images"] < document["of"]:
        lines.append(
            f"{document['images']:,} of {document['of']:,} images: an accuracy may be off by "
            f"{100 * errors['clean']:.1f} points where it is as of the images as they are, and by "
            f"{100 * errors['largest']:.1f} near 50 % (95 % confidence); --images all takes all"
        )
    return lines
