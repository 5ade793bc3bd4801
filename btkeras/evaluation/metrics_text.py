"""An evaluation's metrics as text: what to know first, as `train` ends, and all of them, as `evaluate` prints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from btkeras.decisions.abstention import Abstention
from btkeras.decisions.calibration import VALIDATION_SUBSET
from btkeras.evaluation.group_text import format_group_table, format_new_patients
from btkeras.evaluation.risk_coverage import position
from btkeras.evaluation.text_table import aligned, ends, percent

Metrics = Mapping[str, Any]
_CLASS_METRICS = ("precision", "recall", "specificity", "f1")
_FIRST_METRICS = ("precision", "recall", "f1")
# Coverages of the text's rows.
_SHOWN = (1.0, 0.8, 0.6, 0.5, 0.4)
_CONFUSED = 3
_WITHHELD = {"abstained": "are uncertain", "rejected": "are rejected"}
RAISED_ECE = (
    "the temperature raised the ECE of these images; it is kept, since it was fitted on the log loss of the "
    "validation images, and choosing by test images would make them no test"
)


def metrics_summary(metrics: Metrics) -> str:
    """The metrics to know first: accuracy, a line per class, what is confused, near-duplicates and coverage."""
    rest = [*_confusions(metrics), *_near_duplicates(metrics), *format_coverage(metrics)]
    return _joined([_headline(metrics), _class_table(metrics, _FIRST_METRICS), rest])


def metrics_table(metrics: Metrics, group_by: str | None = None) -> str:
    """All metrics: per class, confusion matrix, scores with intervals, calibration, prediction sets and decisions.

    With ``group_by`` (``patient`` or ``series``) also the confusion matrix of the decisions on these.
    """
    grouped = format_group_table(metrics[f"per_{group_by}"], metrics["classes"], group_by) if group_by else []
    return _joined([
        _headline(metrics),
        _class_table(metrics, _CLASS_METRICS),
        _confusion_table(metrics),
        _near_duplicates(metrics),
        *format_new_patients(metrics),
        format_calibration(metrics),
        format_sets(metrics),
        [*format_coverage(metrics), *_coverage_by_class(metrics)],
        format_risk_coverage(metrics),
        grouped,
    ])  # fmt: skip


def _joined(blocks: list[list[str]]) -> str:
    return "\n\n".join("\n".join(lines) for lines in blocks if lines)


def _headline(metrics: Metrics) -> list[str]:
    interval = (metrics.get("intervals") or {}).get("accuracy")
    known = f"95 % interval {ends(interval)}; " if interval else ""
    subset = "" if metrics["split"] == "all" else f"{metrics['split']} "
    return [
        f"{subset}accuracy {percent(metrics['accuracy'])} of {metrics['images']:,} images "
        f"({known}always answering the most frequent class: {percent(metrics['chance'])})"
    ]


def _class_table(metrics: Metrics, names: Sequence[str]) -> list[str]:
    # Without a class's own accuracy, one against the rest, which is above the test accuracy and says less.
    rows = [("percent", *names, "images")]
    for label, row in {**metrics["per_class"], "macro": metrics["macro"]}.items():
        figures = (f"{100 * row[name]:.2f}" for name in names)
        rows.append((label, *figures, f"{row.get('images', metrics['images']):,}"))
    return aligned(rows)


def _confusion_table(metrics: Metrics) -> list[str]:
    rows = zip(metrics["classes"], metrics["confusion_matrix"], strict=True)
    counts = [(label, *(f"{count:,}" for count in row)) for label, row in rows]
    return aligned([("true / predicted", *metrics["classes"]), *counts])


def _confusions(metrics: Metrics) -> list[str]:
    """The commonest mistakes."""
    classes, matrix = metrics["classes"], np.array(metrics["confusion_matrix"])
    np.fill_diagonal(matrix, 0)
    # A stable sort keeps the order of equals, so that the text is the same each time.
    most = [divmod(int(i), len(classes)) for i in np.argsort(-matrix, axis=None, kind="stable")[:_CONFUSED]]
    found = (f"{matrix[i, j]:,} {classes[i]} taken for {classes[j]}" for i, j in most if matrix[i, j])
    named = ", ".join(found)
    return [f"wrong: {matrix.sum():,} images; most often {named}"] if named else ["wrong: none"]


def _near_duplicates(metrics: Metrics) -> list[str]:
    """``without_near_duplicates`` as a line; none if it was not measured."""
    found = metrics.get("without_near_duplicates")
    if not found:
        return []
    count, own = found["near_duplicates"], metrics["split"] == "test"
    images, there = ("test image", "in training") if own else ("image", "among the training and validation slices")
    if not count:
        return [f"no {images} has a near-duplicate {there}"]
    text = f"{count:,} of {metrics['images']:,} {images}s have a near-duplicate {there}"
    if not found["images"]:
        return [f"{text}: nothing here is measured on new images"]
    recall = fmean(row["recall"] for row in found["per_class"].values() if row["images"])
    return [
        f"{text}; accuracy without them {percent(found['accuracy'])} of {found['images']:,} images "
        f"(mean recall of their classes {percent(recall)})"
    ]


def format_calibration(metrics: Metrics) -> list[str]:
    """``calibration`` before and after the temperature, and what to think of it."""
    found = metrics.get("calibration")
    if not found:
        return []
    after, before, fitted = found["after"], found["before"], found["conformal"]
    stages = {"before": before, f"after, at temperature {found['temperature']:.3f}": after}
    rows = [
        (name, percent(row["ece"]), f"{row['brier']:.4f}", f"{row['nll']:.4f}")
        for name, row in (stages if fitted else {"as they are": after}).items()
    ]
    perfect = percent(found["ece_if_calibrated"]["mean"])
    lines = aligned([("calibration", "ECE", "Brier score", "log loss"), *rows])
    lines.append(f"lower is better; perfect probabilities have an ECE of about {perfect} on so many images")
    if fitted and after["ece"] > before["ece"]:
        lines.append(RAISED_ECE)
    return lines


def format_sets(metrics: Metrics) -> list[str]:
    """How often prediction sets hold the true class, and how many classes they name."""
    fitted = (metrics.get("calibration") or {}).get("conformal")
    if not fitted:
        return []
    rows = [
        (f"{100 * row['coverage']:g} % wanted", *(percent(share, 1) for share in (row["covered"], *_sizes(row))))
        for row in fitted["sets"]
    ]
    header = ("prediction sets", "with the true class", "of one class", "of several", "of none")
    # The finite-sample quantile of fewer scores is beyond the last one (`decisions.calibration.conformal_threshold`).
    needed = {row["coverage"]: math.ceil(row["coverage"] / (1 - row["coverage"]) - 1e-6) for row in fitted["sets"]}
    few = [f"{100 * each:g} % takes {least} or more" for each, least in needed.items() if fitted["images"] < least]
    said = f"with {fitted['images']} calibration slices, these sets have all classes: {', '.join(few)}"
    where = fitted.get("data", VALIDATION_SUBSET)
    elsewhere = (
        [] if where == VALIDATION_SUBSET else [f"sets are fitted on {where}, and promised for images like these"]
    )
    return [*aligned([header, *rows]), *([said] if few else []), *elsewhere]


def _sizes(row: Metrics) -> tuple[float, float, float]:
    """Shares of the sets with one class, several and none."""
    return row["single"], max(0.0, 1 - row["single"] - row["empty"]), row["empty"]


def format_coverage(metrics: Metrics) -> list[str]:
    """``selective`` as a line; none where there are no decisions."""
    found = metrics.get("selective")
    if not found:
        return []
    others = " and ".join(f"{percent(found[key], 1)} {name}" for key, name in _WITHHELD.items() if found[key])
    right = f", and for {percent(found['accuracy'], 1)} of these it is the right one" if found["coverage"] else ""
    withheld = found["withheld_accuracy"]
    guess = f" (their most probable class is right for {percent(withheld, 1)})" if others else ""
    return [
        f"decisions: {percent(found['coverage'], 1)} of the images get a class (coverage){right}"
        + (f"; {others}{guess}" if others else "")
    ]


def _coverage_by_class(metrics: Metrics) -> list[str]:
    found = metrics.get("selective")
    shares = found and "; ".join(f"{name} {percent(row['coverage'], 0)}" for name, row in found["per_class"].items())
    return [f"coverage by class: {shares}"] if shares else []


def format_risk_coverage(metrics: Metrics) -> list[str]:
    """``risk_coverage`` at some coverages, the point at which the decisions work, and the threshold's promise."""
    found = metrics.get("risk_coverage")
    if not found:
        return []
    risks = np.array(found["risk"])[position(_SHOWN, len(found["risk"]))]
    shares = [("surest images", *(percent(share, 0) for share in _SHOWN))]
    lines = aligned([*shares, ("wrong of these (risk)", *(percent(risk, 1) for risk in risks))])
    lines.append(f"mean risk over all coverages (AURC) {percent(found['aurc'])}")
    abstention = (metrics.get("selective") or {}).get("abstention")
    lines += [_working_point(found["working_point"])] if found["working_point"] else []
    return lines + ([f"threshold: {Abstention.from_json(abstention)}"] if abstention else [])


def _working_point(point: Metrics) -> str:
    if point["risk"] is None:
        return "working point: no image gets a class"
    return (
        f"working point of the decisions: coverage {percent(point['coverage'], 1)}, risk {percent(point['risk'], 1)} "
        f"(95 % interval {ends(point['interval'])})"
    )
