"""Scores with intervals, of all images, of the tumour classes alone and per patient or series, as lines of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from btkeras.evaluation.text_table import aligned, ends, percent

Metrics = Mapping[str, Any]
_HEADER = ("accuracy", "95 % interval", "macro recall", "95 % interval")


def format_scores(values: Metrics, intervals: Metrics) -> list[str]:
    """Accuracy, macro recall, AUC, ECE and Brier score, each with its interval."""
    shares = {"accuracy": "accuracy", "macro recall": "recall", "ECE": "ece"}
    numbers = {"AUC": "auc", "Brier score": "brier"}
    rows = [(title, percent(values[key]), ends(intervals[key])) for title, key in shares.items()]
    rows += [
        (title, f"{values[key]:.4f}", ends(intervals[key], 1, 4))
        for title, key in numbers.items()
        if values[key] is not None
    ]
    return aligned([("scores", "value", "95 % interval"), *rows])


def format_tumor_classes(found: Metrics | None) -> list[str]:
    """``metrics.tumor_classes.tumor_class_metrics``; none where there are none."""
    if not found:
        return []
    rows = {"among all classes": found, "among the tumours alone": found["between_tumors"]}
    title = f"{found['images']:,} images of tumours"
    return aligned([(title, *_HEADER), *((name, *_recalls(row, "accuracy")) for name, row in rows.items())])


def format_group_metrics(found: Metrics | None, group_by: str) -> list[str]:
    """``metrics.groups.group_metrics`` of patients or series: a line for each rule; none where there are no groups."""
    if not found:
        return []
    names = {rule: rule.replace("_", " ") + " (as predict)" * (rule == found["rule"]) for rule in found["rules"]}
    rows = [(names[rule], *_recalls(row, "accuracy_wilson")) for rule, row in found["rules"].items()]
    lines = aligned([(f"per {group_by}, by", *_HEADER), *rows])
    groups = {"patient": "patients"}.get(group_by, group_by)
    lines.append(f"{found['groups']:,} {groups} with {found['slices']:,} slices{_conflict(found)}")
    if own := found.get("selective"):
        interval = f" (95 % interval {ends(own['interval'])})" if own["interval"] else ""
        right = f", {percent(own['accuracy'])} of them the right one{interval}" if own["coverage"] else ""
        lines.append(f"{percent(own['coverage'], 1)} of the {groups} get a class{right}")
    return lines


def _conflict(found: Metrics) -> str:
    return f"; {found['two_tumors']:,} more show two tumours" if found["two_tumors"] else ""


def _recalls(row: Metrics, interval: str) -> tuple[str, ...]:
    known = row["intervals"]
    return (
        percent(row["accuracy"]),
        ends(known[interval]),
        percent(row["macro_recall"]),
        ends(known["macro_recall"]),
    )


def format_group_table(found: Metrics, classes: Sequence[str], group_by: str) -> list[str]:
    """The confusion matrix and recalls of the chosen rule, a line per class."""
    row = found["rules"].get(found["rule"])
    if row is None:
        return []
    lines = [(f"{group_by}, true / predicted", *classes, "recall")]
    for name, counts in zip(classes, row["confusion_matrix"], strict=True):
        recall = row["per_class"][name]["recall"]
        lines.append((name, *(f"{count:,}" for count in counts), "" if recall is None else percent(recall)))
    return aligned(lines)


def _drawn(metrics: Metrics) -> str:
    """What intervals draw."""
    groups, patients = metrics["intervals"]["groups"], metrics["per_patient"]
    if not patients:
        drawn = "images" if groups == metrics["images"] else "groups of images that belong together"
        return f"{drawn}; none names its patient"
    named = patients["groups"] + patients["two_tumors"]
    return "patients" if named == groups else "patients and, of images that name none, groups or single images"


def format_new_patients(metrics: Metrics) -> list[list[str]]:
    """An evaluation's ``new_patients.new_patient_metrics`` as blocks of lines; none of before there were any."""
    if "intervals" not in metrics:
        return []
    intervals = metrics["intervals"]
    scores = format_scores(
        {**metrics, "recall": metrics["macro_recall"]}, {**intervals, "recall": intervals["macro_recall"]}
    )
    known = f"intervals over {intervals['groups']:,} {_drawn(metrics)}"
    if any(metrics[key] is not None and intervals[key] is None for key in ("auc", "ece", "brier")):
        known += "\nno interval where all resamples have the same value"
    scans = (format_group_metrics(metrics[f"per_{name}"], name) for name in ("patient", "series"))
    return [[*scores, known], format_tumor_classes(metrics["tumor_classes"]), *scans]
