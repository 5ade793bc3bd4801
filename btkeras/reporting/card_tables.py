"""The tables of a model card: each from a file of the run, as that says it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from btkeras.datasets.dataset import Dataset
from btkeras.metrics import wilson
from btkeras.reporting.document import Cell, Column, Table
from btkeras.reporting.evidence import ReportedModel
from btkeras.reporting.numbers import UNKNOWN, count_cell, percent_cell, scaled_cell

_SUBSETS = ("train", "validation", "test")
_TITLES = {"f1": "F1"}
Json = Mapping[str, Any]


def _words(*titles: str) -> tuple[Column, ...]:
    return tuple(Column(title, numeric=False) for title in titles)


def _numbers(*titles: str) -> tuple[Column, ...]:
    return tuple(Column(title) for title in titles)


def _text(value: object) -> Cell:
    return Cell(str(value), value)


def fact_table(caption: str, facts: Mapping[str, Any]) -> Table:
    """Two columns; what is None is left out."""
    rows = tuple((Cell(key), _text(value)) for key, value in facts.items() if value is not None)
    return Table("facts", caption, _words("fact", "value"), rows)


def subset_table(split: Json) -> Table:
    """Images of each class in each part of a split."""
    counts = split["counts"]
    totals = {subset: sum(counts[subset].values()) for subset in _SUBSETS}
    rows = [
        (label, [sum(counts[subset][label] for subset in _SUBSETS), *(counts[subset][label] for subset in _SUBSETS)])
        for label in split["classes"]
    ]
    rows.append(("all classes", [sum(totals.values()), *totals.values()]))
    return Table(
        name="parts",
        caption="Images by class and part",
        columns=(*_words("class"), *_numbers("all", *_SUBSETS)),
        rows=tuple((_text(label), *map(count_cell, values)) for label, values in rows),
    )


def source_table(dataset: Dataset) -> Table | None:
    """Images of each collection by class; None where no image names its collection."""
    counts = Counter((record.source, record.label) for record in dataset.records)
    sources = sorted({source for source, _ in counts})
    if sources == [""]:
        return None
    return Table(
        name="sources",
        caption="Images by collection and class",
        columns=(*_words("collection"), *_numbers(*dataset.classes)),
        rows=tuple(
            (_text(source or "not named"), *(count_cell(counts[source, label]) for label in dataset.classes))
            for source in sources
        ),
    )


def copy_table(audit: Json) -> Table:
    """What an audit found of copies, within the dataset and across the parts of a split."""
    groups, split = audit["groups"], audit["split"]
    facts = {
        "groups of copies": len(groups),
        "groups with different labels": sum(bool(group["conflicting"]) for group in groups),
        "unreadable images": len(audit["unreadable"]),
    }
    if split:
        sizes = split["images"]
        facts |= {
            "groups on both sides of the split": split["groups_across"],
            f"of {sizes['test']:,} test images, with a copy in the training part": split[
                "test_with_duplicate_in_training"
            ],
            "patients on both sides of the split": len(split["patients_across"]),
        }
    rows = tuple((Cell(key), count_cell(value)) for key, value in facts.items())
    return Table(
        "copies", "Copies, also resized, re-encoded, flipped or rotated", (*_words("what"), *_numbers("count")), rows
    )


def headline_table(metrics: Json, network: ReportedModel) -> Table:
    """The figures of the test part as a whole."""
    intervals, bootstrap = network.figures["intervals"], network.source.summary["bootstrap"]
    rows = [("accuracy", metrics["accuracy"], intervals["accuracy"])]
    names = ("precision", "recall", "specificity", "f1")
    rows += [(f"macro {_TITLES.get(name, name)}", metrics["macro"][name], intervals[name]) for name in names]
    wilsons = [UNKNOWN] * len(rows)
    low, high = intervals["accuracy_wilson"]
    wilsons[0] = Cell(f"{100 * low:.1f}\N{EN DASH}{100 * high:.1f}", [low, high])
    level = f"{100 * bootstrap['level']:g} %"
    return Table(
        name="headline",
        caption=f"{metrics['images']:,} test images, percent",
        columns=(*_words("figure"), *_numbers(f"value ({level} bootstrap)", f"{level} Wilson")),
        rows=tuple(
            (Cell(name), percent_cell(value, interval), other)
            for (name, value, interval), other in zip(rows, wilsons, strict=True)
        ),
        notes=(
            f"The bootstrap draws whole groups: {bootstrap['groups']:,} of {bootstrap['images']:,} images, "
            f"{bootstrap['samples']:,} resamples. Wilson's interval counts each image as independent. Log loss "
            f"{metrics['negative_log_likelihood']:.4f}. Always answering the most frequent class: "
            f"{100 * metrics['chance']:.2f} %.",
        ),
    )


def class_table(metrics: Json, network: ReportedModel) -> Table:
    """Figures of each class against the rest, with intervals."""
    matrix, intervals = metrics["confusion_matrix"], network.figures["intervals"]["per_class"]
    total = metrics["images"]
    rows = []
    for i, (label, row) in enumerate(metrics["per_class"].items()):
        hit, actual, taken = matrix[i][i], sum(matrix[i]), sum(line[i] for line in matrix)
        trials = {
            "precision": (hit, taken),
            "recall": (hit, actual),
            "specificity": (total - actual - taken + hit, total - actual),
        }
        found = intervals[label]
        cells = [
            percent_cell(row[name], _interval(found[name], *trials.get(name, (0, 0))))
            for name in ("precision", "recall", "specificity", "f1")
        ]
        rows.append((_text(label), count_cell(row["images"]), *cells))
    return Table(
        name="classes",
        caption="Per class, against the rest; percent with 95 % intervals",
        columns=(*_words("class"), *_numbers("test images", "precision", "recall", "specificity", "F1")),
        rows=tuple(rows),
        notes=("Bootstrap over groups; Wilson's interval where all resamples agree.",),
    )


def _interval(bootstrap: Sequence[float] | None, correct: int, trials: int) -> Sequence[float] | None:
    """The bootstrap's interval, or Wilson's where that has no width and there is one."""
    if bootstrap is not None and bootstrap[0] < bootstrap[1]:
        return bootstrap
    return wilson(correct, trials) if trials else bootstrap


def confusion_table(metrics: Json) -> Table:
    """The confusion matrix."""
    return Table(
        name="confusion",
        caption="Answers (columns) to images of each class (rows)",
        columns=(*_words("class"), *_numbers(*metrics["classes"])),
        rows=tuple(
            (_text(label), *map(count_cell, row))
            for label, row in zip(metrics["classes"], metrics["confusion_matrix"], strict=True)
        ),
    )


def other_dataset_table(evaluations: Sequence[tuple[str, Json]]) -> Table:
    """Figures on other datasets, all of whose images were tested."""
    titles = ("images", "accuracy (95 % Wilson)", "mean recall", "most frequent class", "answered", "right of these")
    return Table(
        name="evaluations",
        caption="Other datasets, percent",
        columns=(*_words("dataset"), *_numbers(*titles)),
        rows=tuple(_other_row(name, metrics) for name, metrics in evaluations),
        notes=("Accuracy and recall are those of all images. Mean recall: over the classes that the dataset has.",),
    )


def _other_row(name: str, metrics: Json) -> tuple[Cell, ...]:
    right = sum(row[i] for i, row in enumerate(metrics["confusion_matrix"]))
    recalls = [row["recall"] for row in metrics["per_class"].values() if row["images"]]
    selective = metrics.get("selective") or {}
    return (
        _text(name),
        count_cell(metrics["images"]),
        percent_cell(metrics["accuracy"], wilson(right, metrics["images"])),
        percent_cell(sum(recalls) / len(recalls)),
        percent_cell(metrics["chance"]),
        percent_cell(selective.get("coverage")),
        percent_cell(selective.get("accuracy")),
    )


def calibration_table(figures: Json) -> Table:
    """Calibration errors without the temperature and with it."""
    before, after, perfect = figures["before"], figures["after"], figures["ece_if_calibrated"]
    rows: tuple[tuple[Cell, ...], ...] = (
        (Cell("ECE, %"), *(percent_cell(row["ece"]) for row in (before, after))),
        *((Cell(title), *(scaled_cell(row[key], 1, 4) for row in (before, after)))
          for title, key in (("Brier score", "brier"), ("log loss", "nll"))),
    )  # fmt: skip
    return Table(
        name="calibration",
        caption=f"Calibration on the test part, temperature {figures['temperature']:.3f}",
        columns=(*_words("figure"), *_numbers("without the temperature", "with it")),
        rows=rows,
        notes=(
            f"{figures['estimator']}; a perfectly calibrated network as sure as this one would get "
            f"{100 * perfect['mean']:.2f} % on average, more than {100 * perfect['high']:.2f} % in one of 20 cases. "
            f"Area under the risk-coverage curve: {100 * figures['aurc']:.3f} %.",
        ),
    )


def set_table(conformal: Json) -> Table:
    """How often prediction sets hold the true class."""
    return Table(
        name="sets",
        caption="Prediction sets on the test part, percent",
        columns=_numbers("wanted", "hold the true class", "classes a set", "empty", "of one class", "of those right"),
        rows=tuple(
            (
                Cell(f"{100 * row['coverage']:g}", row["coverage"]),
                percent_cell(row["covered"]),
                scaled_cell(row["mean_size"], 1, 2),
                *(percent_cell(row[key]) for key in ("empty", "single", "single_right")),
            )
            for row in conformal["sets"]
        ),
        notes=(f"{conformal['method']}, from {conformal['images']:,} validation images.",),
    )


def refusal_table(selective: Json) -> Table:
    """What is answered, and how much of that is right."""
    keys = ("coverage", "abstained", "rejected", "accuracy", "withheld_accuracy")
    rows = [("all classes", selective), *selective["per_class"].items()]
    return Table(
        name="rejection",
        caption="What is answered on the test part, percent",
        columns=(
            *_words("class"),
            *_numbers("images", "answered", "uncertain", "rejected", "right of the answered", "of the others"),
        ),
        rows=tuple(
            (_text(name), count_cell(row["images"]), *(percent_cell(row[key]) for key in keys)) for name, row in rows
        ),
    )


def explanation_table(scores: Json) -> Table:
    """Explanation maps held against the tumours, beside their baselines."""
    return Table(
        name="explanations",
        caption=f"Explanations of {scores['images']:,} correctly named tumours with a {scores['region']}, percent",
        columns=(*_words("map", "weights"), *_numbers("points into it (95 % Wilson)", "energy in it", "IoU")),
        rows=tuple(
            (
                _text(row["title"]),
                _text(row["network"]),
                percent_cell(row["pointing"], row["pointing_interval"]),
                percent_cell(row["energy"]),
                percent_cell(row["iou"]),
            )
            for row in scores["rows"]
        ),
        notes=("A map that does no better than the baselines, or than random weights, explains nothing.",),
    )


def shortcut_table(found: Json) -> Table:
    """What predicts the class without showing a tumour."""
    keys = ("accuracy", "chance", "detection_accuracy", "detection_chance")
    return Table(
        name="shortcuts",
        caption=f"What is known without looking at the tumour, split by {found['group_by']}; percent",
        columns=(
            *_words("shown", "answered by"),
            *_numbers("accuracy", "most frequent class", "tumour or not", "the more frequent"),
        ),
        rows=tuple(
            (
                _text(f"{row['name']}: {row['shows']}"),
                _text(row["predicted_by"]),
                *(percent_cell(row[key]) for key in keys),
            )
            for row in found["rows"]
        ),
    )
