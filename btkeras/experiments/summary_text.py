"""``summary.json`` as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from btkeras.evaluation.text_table import aligned, ends, percent
from btkeras.experiments.near_duplicates import format_pooled
from btkeras.metrics import METRICS


def summary_table(summary: Mapping[str, Any]) -> str:
    """Mean and standard deviation over the folds in percent, what the comparisons say, and figures of all folds."""
    models, bootstrap = summary["models"], summary["bootstrap"]
    rows = [("percent", *METRICS, "95 % interval", "parameters")]
    for name, entry in models.items():
        size = f"{entry['parameters']:,}" if entry["parameters"] else "-"
        rows.append((name, *(_spread(entry, metric) for metric in METRICS), ends(entry["intervals"]["accuracy"]), size))
    explained = (
        "Mean and standard deviation over folds and seeds; precision, recall, specificity and F1 are means over "
        f"classes. Intervals are of a bootstrap over {bootstrap['groups']:,} groups of {bootstrap['images']:,} images; "
        "that of a patient's decisions is Wilson's."
    )
    notes = [f"- {comparison['conclusion']}" for comparison in summary["comparisons"]]
    notes += [
        line for name, entry in models.items() for line in format_pooled(name, entry.get("without_near_duplicates"))
    ]
    blocks = (aligned(rows), [explained], notes, _pooled(models))
    return "\n\n".join("\n".join(lines) for lines in blocks if lines)


def _pooled(models: Mapping[str, Any]) -> list[str]:
    """Figures of the predictions of all folds together, and of the decisions on patients where these are known."""
    rows = [("all folds together", "macro recall", "95 % interval", "AUC", "ECE", "Brier score", "patients right", "")]
    for name, entry in models.items():
        pooled, auc = entry["pooled"], entry["pooled"]["auc"]
        recall = (percent(pooled["macro"]["recall"]), ends(entry["intervals"]["recall"]))
        scores = ("-" if auc is None else f"{auc:.4f}", percent(pooled["ece"]), f"{pooled['brier']:.4f}")
        rows.append((name, *recall, *scores, *_patients(entry["per_patient"])))
    return aligned(rows)


def _patients(found: Mapping[str, Any] | None) -> tuple[str, str]:
    if not found:
        return "-", ""
    row = found["rules"][found["rule"]]
    return percent(row["accuracy"]), f"of {found['groups']:,} ({ends(row['intervals']['accuracy_wilson'])})"


def _spread(entry: Mapping[str, Any], metric: str) -> str:
    mean, deviation = entry["mean"][metric], (entry["std"] or {}).get(metric)
    return f"{100 * mean:.2f}" + (f" ± {100 * deviation:.2f}" if deviation is not None else "")
