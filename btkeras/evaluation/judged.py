"""The figures of answers to labelled pictures, and the files that keep them, whatever network they are from.

Needs neither Keras nor TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.data.records import Record
from btkeras.evaluation.calibration import Calibration
from btkeras.evaluation.calibration_figures import calibration_figures, calibration_lines
from btkeras.evaluation.selective import FILE as ANSWERS
from btkeras.evaluation.selective import selective_figures, selective_lines, write_answers
from btkeras.evaluation.verdicts import Verdict
from btkeras.files import write_json
from btkeras.metrics import summarise
from btkeras.runs import Run, write_predictions


@dataclass(frozen=True)
class Judged:
    """Attributes:
    records: The pictures.
    classes: Names, in the order of the probabilities.
    probabilities: ``[len(records), len(classes)]``.
    calibration: The network's, or None.
    verdicts: Of the pictures, or None where they are not known.
    """

    records: tuple[Record, ...]
    classes: tuple[str, ...]
    probabilities: NDArray[np.floating]
    calibration: Calibration | None
    verdicts: Sequence[Verdict] | None = None

    def figures(self) -> dict[str, Any]:
        """What ``btkeras.metrics.summarise`` gives, ``chance``, ``calibration`` and, with verdicts, ``selective``."""
        labels = np.array([self.classes.index(record.label) for record in self.records])
        found = {
            "chance": float(np.bincount(labels).max() / len(labels)),
            **summarise(labels, self.probabilities, self.classes),
            "calibration": calibration_figures(labels, self.probabilities, self.calibration),
        }
        if self.verdicts is not None:
            found["selective"] = selective_figures(labels, self.probabilities, self.verdicts, self.classes)
        return found

    def write(self, folder: Path, metrics: Mapping[str, Any]) -> None:
        """Writes ``predictions.csv``, with verdicts ``answers.csv``, and, last, ``metrics.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        names = Run(folder)
        if self.verdicts is not None:
            write_answers(folder / ANSWERS, self.records, self.verdicts)
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
        f"{metrics['split']} accuracy {100 * metrics['accuracy']:.2f} % of {metrics['images']:,} pictures "
        f"(always answering the most frequent class: {100 * metrics['chance']:.2f} %)",
    ]
    return "\n".join([*lines, *calibration_lines(metrics), *selective_lines(metrics)])
