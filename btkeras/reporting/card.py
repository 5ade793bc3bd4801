"""A model card: what a run's model is, what it was measured to do, and what was not measured.

After Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019, arXiv:1810.03993). Every number comes from a file
of the run. The card names no folder of the machine, so that it can be published with the model.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from statistics import fmean
from typing import Any

from btkeras.checksums import read_document
from btkeras.datasets.collections import known_collections
from btkeras.datasets.dataset import Dataset
from btkeras.decisions.abstention import Abstention
from btkeras.errors import BTKerasError, RunError
from btkeras.evaluation.robustness import read_sheet
from btkeras.experiments.experiment import Experiment, is_experiment
from btkeras.files import sha256
from btkeras.metrics import wilson
from btkeras.metrics.groups import NO_TUMOR
from btkeras.reporting.document import Column, Table, count, percent
from btkeras.reporting.paper_tables import headline_table, subset_table
from btkeras.reporting.patient_tables import patient_tables
from btkeras.reporting.render import fill
from btkeras.reporting.report import split_caveats, synthetic_warning, unfinished_warning
from btkeras.reporting.report_data import ReportData, ReportedModel, load_report_data
from btkeras.reporting.tables import calibration_table, near_duplicate_table, robustness_table, set_table
from btkeras.runs import Run
from btkeras.splitting.split_file import files_digest

_Json = Mapping[str, Any]


def card_text(run: Run) -> str:
    """Writes the card of an evaluated run, as Markdown (GitHub's kind).

    Args:
        run: The run; its dataset is read for the collections that its images come from, if it is still there.

    Raises:
        RunError: If the run was not evaluated, or a file of it is not as btkeras writes it.
    """
    if is_experiment(run.path):
        raise RunError(
            "A model card must be of one training",
            received=f"{run.path}, a cross-validation",
            remedy="Name one of the runs in it, or report all of it: btkeras report",
        )
    data = load_report_data([run.path])
    model, metrics, manifest, notes = data.models[0], run.metrics(), run.manifest(), run.notes_file
    (confounded, collections), others = _collections(run), _other_evaluations(run)
    values = {
        "run": run.path.resolve().name,
        "model": model,
        "config": run.config(),
        "manifest": manifest,
        "metrics": metrics,
        "split": model.source.splits[0],
        "unfinished": unfinished_warning(data),
        "warnings": synthetic_warning(data),
        "caveats": split_caveats(model.source),
        "details": Table.from_facts("details", "The model", _details(run, manifest)),
        "collections": list(map(str, known_collections(manifest.get("sources") or []))),
        "dataset": PurePath(str(manifest["dataset"])).name,
        "confounded": confounded,
        "data_tables": [subset_table(model.source, paper=False), *collections],
        "overview": [headline_table(data), *patient_tables(data)],
        "tables": _measured(run, data, metrics, others),
        "glance": _glance(model, metrics, others),
        "notes": notes.read_text(encoding="utf-8").strip() if notes.is_file() else None,
        "command": _command(run, manifest),
    }
    return fill("card.md.jinja", values).rstrip() + "\n"


def _details(run: Run, manifest: _Json) -> dict[str, Any]:
    config, size, epochs = run.config(), manifest.get("trainable_parameters"), manifest.get("epochs")
    versions = ", ".join(f"{name} {version}" for name, version in manifest.get("versions", {}).items())
    cropping = "cropped to the head, intensities normalized" if config.data.harmonize else "the whole image, resized"
    return {
        "architecture": config.model.name,
        "classifier": manifest.get("classifier"),
        "initial weights": _name(config.model.weights),
        "trainable parameters": size and f"{size:,}",
        "input": f"{config.data.image_size} x {config.data.image_size} x {config.data.channels}, {cropping}",
        "classes": ", ".join(run.classes()),
        "trained": manifest.get("started"),
        "training": epochs and f"{epochs} epochs, the checkpoint of epoch {manifest.get('best_epoch')}",
        "optimizer": f"{config.optimizer.name}, learning rate {config.optimizer.learning_rate:g}",
        "device": manifest.get("device"),
        "precision": manifest.get("precision"),
        "versions": f"Python {manifest.get('python')}, {versions}",
        "SHA-256 of best.keras": sha256(run.best_model) if run.best_model.is_file() else None,
    }


def _collections(run: Run) -> tuple[list[str], list[Table]]:
    """The classes whose collections hold nothing else, and images by collection and class; where these are known."""
    dataset = _dataset(run)
    images = Counter((record.source, record.label) for record in dataset.records) if dataset else Counter()
    labels = {source: {label for own, label in images if own == source} for source, _ in sorted(images)}
    if dataset is None or set(labels) == {""}:
        return [], []
    alone = [name for name in dataset.classes if all(found == {name} for found in labels.values() if name in found)]
    rows = [(source or "not named", *(images[source, label] for label in dataset.classes)) for source in labels]
    columns = (Column("collection"), *Column.several(dataset.classes, count))
    table = Table.from_rows("collections", "Images by collection and class", columns, rows)
    return alone if "" not in labels else [], [table]


def _dataset(run: Run) -> Dataset | None:
    """The run's dataset, if it is still there as it was."""
    try:
        dataset = run.dataset()
    except (BTKerasError, OSError):
        return None
    return dataset if files_digest(dataset.records) == run.split_document()["dataset_digest"] else None


def _other_evaluations(run: Run) -> dict[str, _Json]:
    """The metrics of other datasets by their names."""
    files = sorted(run.evaluations.glob(f"*/{run.metrics_file.name}"))
    found = {file.parent.name: read_document(file) for file in files}
    return {name: metrics for name, metrics in found.items() if metrics.get("split") == "all"}


def _measured(run: Run, data: ReportData, metrics: _Json, others: Mapping[str, _Json]) -> dict[str, Table | None]:
    """The tables of what was measured, by name; None in place of the others."""
    model, sheet, own = data.models[0], read_sheet(run), run.metrics_file
    return {
        "confusion": _table(own, _confusion_table, metrics),
        "calibration": calibration_table(data) if metrics.get("calibration") else None,
        "sets": set_table(data) if model.is_calibrated else None,
        "selective": _table(own, _selective_table, metrics.get("selective")),
        "robustness": robustness_table(model.name, model.slug, sheet) if sheet else None,
        "explanations": _table(run.explanations_file, _explanation_table),
        "shortcuts": _table(run.shortcuts_file, _shortcut_table),
        "duplicates": _table(run.audit_file, _duplicate_table),
        "near_duplicates": near_duplicate_table(data) if model.without_near_duplicates else None,
        "others": _table(run.evaluations, _other_table, others),
    }


def _table(file: Path, build: Callable[[Any], Table], value: Any = ...) -> Table | None:
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


def _confusion_table(metrics: _Json) -> Table:
    columns = (Column("class"), *Column.several(metrics["classes"], count))
    rows = [(label, *row) for label, row in zip(metrics["classes"], metrics["confusion_matrix"], strict=True)]
    return Table.from_rows(
        "confusion", "Confusion matrix: true classes (rows), predicted classes (columns)", columns, rows
    )


def _glance(model: ReportedModel, metrics: _Json, others: Mapping[str, _Json]) -> Table:
    """What to know first: accuracy, missed tumours and false alarms, coverage, and the same of other datasets."""
    facts = {"test accuracy": f"{_share(metrics)} (95 % interval {percent(model.accuracy_interval)})"}
    facts |= _tumor_errors(metrics)
    facts["decided (the others are uncertain or rejected)"] = _decided(metrics)
    facts |= {f"accuracy on {name}": f"{_share(found)}; decided: {_decided(found)}" for name, found in others.items()}
    return Table.from_facts("glance", "At a glance", facts)


def _share(metrics: _Json) -> str:
    return f"{percent(metrics['accuracy'])} % of {metrics['images']:,} images"


def _decided(metrics: _Json) -> str:
    """How many images get a class, and for how many of these it is right; "" where nothing is withheld."""
    found = metrics.get("selective")
    if not found:
        return ""
    right = f", right in {percent(found['accuracy'], 1)} % of these" if found["coverage"] else ""
    return f"{percent(found['coverage'], 1)} % of the images{right}"


def _tumor_errors(metrics: _Json) -> dict[str, str]:
    """Missed tumours and false alarms, where there is a class without tumour."""
    rows = dict(zip(metrics["classes"], metrics["confusion_matrix"], strict=True))
    without = rows.pop(NO_TUMOR, None)
    if without is None or not rows:
        return {}
    i = metrics["classes"].index(NO_TUMOR)
    return {
        f"images of tumours predicted as {NO_TUMOR}": f"{sum(row[i] for row in rows.values()):,} of "
        f"{sum(map(sum, rows.values())):,}",
        "images without a tumour predicted as one": f"{sum(without) - without[i]:,} of {sum(without):,}",
    }


def _other_table(evaluations: Mapping[str, _Json]) -> Table:
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
    return Table.from_rows("explanations", caption, columns, rows, note)


def _shortcut_table(found: _Json) -> Table:
    shares = {"accuracy": "accuracy", "most frequent class": "chance"}
    shares |= {"tumour detection": "detection_accuracy", "the more frequent": "detection_chance"}
    columns = (
        Column("features", key=lambda row: f"{row['name']}: {row['shows']}"),
        Column("predicted by", key="predicted_by"),
        *Column.several(shares, percent),
    )
    caption = f"Prediction without the tumour's appearance, split by {found['group_by']}; percent"
    return Table.from_rows("shortcuts", caption, columns, found["rows"])


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


def _command(run: Run, manifest: _Json) -> str | None:
    """The command that began it all, with names in place of this machine's folders; None if it was Python.

    A fold's is that of its cross-validation, whose folds may have been started by others.
    """
    above = next((folder for folder in run.path.resolve().parents if is_experiment(folder)), None)
    if manifest.get("fold") is not None and above is not None:
        experiment = Experiment(above)
        manifest = experiment.manifest() if experiment.manifest_file.is_file() else {}
    arguments = manifest.get("command") or [""]
    if arguments[0] not in ("train", "cv"):
        return None
    return " ".join(shlex.join(["btkeras", *map(_without_folder, map(str, arguments))]).split())


def _without_folder(argument: str) -> str:
    """An argument, an option's or a setting's value too, whose absolute paths are names only."""
    head, equals, tail = argument.rpartition("=")
    shortened = _name(tail) if PurePath(tail).is_absolute() or tail.startswith("~") else tail
    return f"{head}{equals}{shortened}"


def _name(path: str) -> str:
    """The name of a file; of a checkpoint with that of its run."""
    value = PurePath(path)
    return "/".join(value.parts[-2:] if value.suffix == ".keras" else value.parts[-1:])
