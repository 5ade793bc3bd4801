"""Metrics per patient or series, and of the tumour classes alone, as lines of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Metrics = Mapping[str, Any]


def format_group_metrics(found: Metrics | None, group_by: str) -> list[str]:
    """``metrics.groups.group_metrics`` of patients or series: a line for each rule; none where there are no groups."""
    if not found:
        return []
    conflict = f"; {found['two_tumors']:,} more whose slices show two tumours" if found["two_tumors"] else ""
    lines = [f"per {group_by}: {found['groups']:,} of {found['slices']:,} slices{conflict}"]
    for rule, row in found["rules"].items():
        intervals = row["intervals"]
        chosen = " (the rule of predict)" if rule == found["rule"] else ""
        accuracy = _percent(row["accuracy"], intervals["accuracy_wilson"])
        recall = _percent(row["macro_recall"], intervals["macro_recall"])
        lines.append(f"  {rule.replace('_', ' '):17} accuracy {accuracy}, macro recall {recall}{chosen}")
    if own := found.get("selective"):
        right = _percent(own["accuracy"], own["interval"]) if own["interval"] else "none"
        lines.append(f"  not withheld: {100 * own['coverage']:.1f} % of them, with accuracy {right}")
    return lines


def format_group_table(found: Metrics, classes: Sequence[str], group_by: str) -> list[str]:
    """The confusion matrix and recalls of the chosen rule, a line per class."""
    row = found["rules"].get(found["rule"])
    if row is None:
        return []
    title = f"{group_by}, true / predicted"
    width = max(len(title), *map(len, classes)) + 2
    lines = ["", f"{title:{width}}" + "".join(f"{name:>12}" for name in classes) + f"{'recall':>10}"]
    for name, counts in zip(classes, row["confusion_matrix"], strict=True):
        recall = row["per_class"][name]["recall"]
        share = "" if recall is None else f"{100 * recall:.2f}"
        lines.append(f"{name:{width}}" + "".join(f"{count:12,}" for count in counts) + f"{share:>10}")
    return lines


def format_tumor_classes(found: Metrics | None) -> list[str]:
    """``metrics.tumor_classes.tumor_class_metrics`` as a line of text; none where there are none."""
    if not found:
        return []
    figures = {"": found, "between the tumours alone ": found["between_tumors"]}
    text = "; ".join(
        f"{name}accuracy {_percent(row['accuracy'], row['intervals']['accuracy'])}, "
        f"macro recall {_percent(row['macro_recall'], row['intervals']['macro_recall'])}"
        for name, row in figures.items()
    )
    return [f"{found['images']:,} images of tumours: {text}"]


def format_scores(values: Metrics, intervals: Metrics) -> str:
    """Macro recall, AUC, ECE and Brier score with their intervals."""
    shown = {"macro recall": ("recall", _percent), "AUC": ("auc", _number), "ECE": ("ece", _percent)}
    shown["Brier score"] = ("brier", _number)
    parts = (
        f"{title} {form(values[key], intervals[key])}"
        for title, (key, form) in shown.items()
        if values[key] is not None
    )
    return ", ".join(parts)


def format_new_patients(metrics: Metrics) -> list[str]:
    """An evaluation's ``new_patients.new_patient_metrics`` as lines of text; none of before there were any."""
    if "intervals" not in metrics:
        return []
    intervals = metrics["intervals"]
    scores = format_scores(
        {**metrics, "recall": metrics["macro_recall"]}, {**intervals, "recall": intervals["macro_recall"]}
    )
    known = f"95 % intervals over {intervals['groups']:,} patients or other groups of images"
    found = [f"accuracy {_percent(metrics['accuracy'], intervals['accuracy'])}, {scores}; {known}"]
    scans = (format_group_metrics(metrics[f"per_{name}"], name) for name in ("patient", "series"))
    return [*found, *format_tumor_classes(metrics["tumor_classes"]), *(line for lines in scans for line in lines)]


def _percent(value: float, interval: Sequence[float] | None) -> str:
    ends = f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})" if interval else ""
    return f"{100 * value:.2f} %{ends}"


def _number(value: float, interval: Sequence[float] | None) -> str:
    return f"{value:.4f}" + (f" ({interval[0]:.4f} to {interval[1]:.4f})" if interval else "")
