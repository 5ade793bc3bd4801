"""Tables of what was measured on a run beside its test metrics, each from the file that holds it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from btkeras.checksums import read_document
from btkeras.decisions.abstention import Abstention
from btkeras.decisions.calibration import load_calibration
from btkeras.errors import RunError
from btkeras.logging import logger
from btkeras.metrics import wilson
from btkeras.reporting.document import Column, Table, count, percent
from btkeras.reporting.report_data import ReportData
from btkeras.runs import Run

_Json = Mapping[str, Any]
MEASURED = ("evaluations", "selective", "explanations", "shortcuts", "duplicates")


def measured_tables(run: Run) -> dict[str, Table]:
    """The tables by ``MEASURED`` names, as far as there are files for them.

    RunError if one is something else, or the run was calibrated after its test: a command was stopped between both.
    """
    calibration, own = load_calibration(run), _abstention(run.metrics())
    if own and calibration and calibration.abstention and calibration.abstention.to_json() != own:
        raise RunError(
            f"{run.metrics_file} must be of the run's calibration",
            received="decisions by another threshold",
            remedy=f"Test it again: btkeras evaluate {run.path}",
        )
    others = other_evaluations(run)
    for name in sorted(_evaluations(run).keys() - others):
        logger.warning(f"{run.evaluations / name} is left out: the run was calibrated since; evaluate --data again")
    tables = {
        "evaluations": table_of(run.evaluations, _evaluation_table, others),
        "selective": table_of(run.metrics_file, _selective_table, run.metrics().get("selective")),
        "explanations": table_of(run.explanations_file, _explanation_table),
        "shortcuts": table_of(run.shortcuts_file, _shortcut_table),
        "duplicates": table_of(run.audit_file, _duplicate_table),
    }
    return {name: table for name, table in tables.items() if table}


def measured_blocks(data: ReportData) -> Mapping[str, list[Table]]:
    """The same of every model that was trained once; of several, with the model's name."""
    found: dict[str, list[Table]] = defaultdict(list)
    for model in data.models:
        tables = measured_tables(model.runs[0].run) if len(model.runs) == 1 else {}
        for name, table in tables.items():
            unique = replace(table, name=f"{table.name}-{model.slug}", caption=f"{model.name}: {table.caption}")
            found[name].append(unique if len(data.models) > 1 else table)
    return found


def other_evaluations(run: Run) -> dict[str, _Json]:
    """The metrics of other datasets by their names, without those that were measured before the last calibration."""
    own, found = _abstention(run.metrics()), _evaluations(run)
    return {name: metrics for name, metrics in found.items() if _abstention(metrics) in (None, own)}


def _evaluations(run: Run) -> dict[str, _Json]:
    files = sorted(run.evaluations.glob(f"*/{run.metrics_file.name}"))
    found = {file.parent.name: read_document(file) for file in files}
    return {name: metrics for name, metrics in found.items() if metrics.get("split") == "all"}


def _abstention(metrics: _Json) -> Any:
    return (metrics.get("selective") or {}).get("abstention")


def table_of(file: Path, build: Callable[[Any], Table], value: Any = ...) -> Table | None:
    """A table of a file of the run, or of a value from it; None if there is none."""
    if value is ...:
        value = read_document(file) if file.is_file() else None
    try:
        return build(value) if value else None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise RunError(
            f"{file} must be as btkeras writes it",
            received=f"{type(error).__name__}: {error}",
            remedy="Measure it again, or remove it",
        ) from error


def _evaluation_table(evaluations: Mapping[str, _Json]) -> Table:
    shares = ("accuracy (95 % Wilson)", "mean recall", "most frequent class", "coverage", "accuracy of the covered")
    columns = (Column("dataset"), Column("images", count), *Column.several(shares, percent))
    note = "Accuracy and recall are those of all images. Mean recall: over the classes that the dataset has."
    rows = []
    for name, metrics in evaluations.items():
        images, selective = metrics["images"], metrics.get("selective") or {}
        correct = sum(row[i] for i, row in enumerate(metrics["confusion_matrix"]))
        recall = fmean(row["recall"] for row in metrics["per_class"].values() if row["images"])
        accuracy = {"value": metrics["accuracy"], "interval": wilson(correct, images)}
        covered = (selective.get("coverage"), selective.get("accuracy"))
        rows.append((name, images, accuracy, recall, metrics["chance"], *covered))
    return Table.from_rows("evaluations", "Other datasets, percent", columns, rows, note)


def _selective_table(selective: _Json) -> Table:
    shares = {"coverage": "coverage", "uncertain": "abstained", "rejected": "rejected"}
    shares |= {"accuracy of the covered": "accuracy", "of the others": "withheld_accuracy"}
    columns = (Column("class"), Column("images", count), *Column.several(shares, percent))
    rows = [{"class": label, **row} for label, row in {"all classes": selective, **selective["per_class"]}.items()]
    found = selective.get("abstention")
    notes = [f"When a class is decided: {Abstention.from_json(found)}."] if found else []
    return Table.from_rows("selective", "Selective classification of the test subset, percent", columns, rows, *notes)


def _explanation_table(scores: _Json) -> Table:
    shares = {"pointing game (95 % Wilson)": "pointing", "energy inside": "energy", "IoU": "iou"}
    columns = (*Column.several({"map": "title", "weights": "network"}), *Column.several(shares, percent))
    rows = [
        row | {"pointing": {"value": row["pointing"], "interval": row["pointing_interval"]}} for row in scores["rows"]
    ]
    caption = f"Explanations of {scores['images']:,} correctly classified tumours with a {scores['region']}, percent"
    note = "A map that does no better than the baselines, or than random weights, explains nothing."
    return Table.from_rows("explanation-scores", caption, columns, rows, note)


def _shortcut_table(found: _Json) -> Table:
    shares = {"accuracy": "accuracy", "most frequent class": "chance"}
    shares |= {"tumour detection": "detection_accuracy", "the more frequent": "detection_chance"}
    columns = (
        Column("features", key=lambda row: f"{row['name']}: {row['shows']}"),
        Column("predicted by", key="predicted_by"),
        *Column.several(shares, percent),
    )
    caption = f"Prediction without the tumour's appearance, split by {found['group_by']}; percent"
    return Table.from_rows("shortcut-tests", caption, columns, found["rows"])


def _duplicate_table(audit: _Json) -> Table:
    groups, split = audit["groups"], audit["split"]
    facts = {
        "groups of duplicates": len(groups),
        "groups with different labels": sum(bool(group["conflicting"]) for group in groups),
        "unreadable images": len(audit["unreadable"]),
    }
    if split:
        leaked = f"of {split['images']['test']:,} test images, with a duplicate in the training subset"
        facts["groups in several subsets"] = split["groups_across"]
        facts[leaked] = split["test_with_duplicate_in_training"]
        facts["patients in several subsets"] = len(split["patients_across"])
    caption = "Duplicates, also resized, re-encoded, flipped or rotated"
    return Table.from_rows("duplicates", caption, (Column("what"), Column("count", count)), list(facts.items()))
