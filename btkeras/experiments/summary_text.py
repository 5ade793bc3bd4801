"""``summary.json`` as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from btkeras.evaluation.group_text import format_group_metrics, format_scores, format_tumor_classes
from btkeras.experiments.near_duplicates import format_pooled
from btkeras.metrics import METRICS


def summary_table(summary: Mapping[str, Any]) -> str:
    """Mean and standard deviation over the folds in percent, figures of all folds together, and the comparisons."""
    width = max(len(name) for name in summary["models"]) + 2
    lines = [f"{'':{width}}" + "".join(f"{name:>15}" for name in METRICS) + f"{'95 % interval':>18}{'parameters':>13}"]
    for name, entry in summary["models"].items():
        cells = "".join(f"{_spread(entry, metric):>15}" for metric in METRICS)
        low, high = (100 * end for end in entry["intervals"]["accuracy"])
        size = f"{entry['parameters']:,}" if entry["parameters"] else "-"
        lines.append(f"{name:{width}}{cells}{f'{low:.2f} to {high:.2f}':>18}{size:>13}")
    bootstrap = summary["bootstrap"]
    explained = (
        "Percent, mean and standard deviation over folds and seeds; precision, recall, specificity and F1 are means "
        f"over classes. Intervals are of a bootstrap over {bootstrap['groups']:,} groups of {bootstrap['images']:,} "
        "images; that of a patient's decisions is Wilson's."
    )
    models = summary["models"].items()
    notes = [line for name, entry in models for line in format_pooled(name, entry.get("without_near_duplicates"))]
    notes += [f"- {comparison['conclusion']}" for comparison in summary["comparisons"]]
    pooled = [line for name, entry in summary["models"].items() for line in _pooled(name, entry)]
    return "\n".join([*lines, "", explained, "", *pooled, *notes])


def _pooled(name: str, entry: Mapping[str, Any]) -> Iterator[str]:
    """Figures of a model's predictions of all folds."""
    values = {"recall": entry["pooled"]["macro"]["recall"], **entry["pooled"]}
    scores = format_scores(values, entry["intervals"])
    blocks = (
        scores,
        format_tumor_classes(entry["tumor_classes"]),
        format_group_metrics(entry["per_patient"], "patient"),
    )
    for lines in filter(None, blocks):
        yield from (name, *(f"  {line}" for line in lines), "")


def _spread(entry: Mapping[str, Any], metric: str) -> str:
    mean, deviation = entry["mean"][metric], (entry["std"] or {}).get(metric)
    return f"{100 * mean:.2f}" + (f" ± {100 * deviation:.2f}" if deviation is not None else "")
