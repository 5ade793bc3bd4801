"""A model card: what a run's model is, what it was measured to do, and what was not measured.

After Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019, arXiv:1810.03993). Every number comes from a file
of the run. The card names no folder of the machine, so that it can be published with the model.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from btkeras.config import ExperimentConfig
from btkeras.datasets.collections import known_collections
from btkeras.datasets.dataset import Dataset
from btkeras.errors import BTKerasError, RunError
from btkeras.evaluation.robustness import read_sheet
from btkeras.experiments.experiment import Experiment, is_experiment
from btkeras.files import sha256
from btkeras.metrics.groups import NO_TUMOR
from btkeras.reporting.document import Column, Table, count, percent
from btkeras.reporting.measured_tables import MEASURED, measured_tables, other_evaluations, table_of
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
    (confounded, collections), others = _collections(run), other_evaluations(run)
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
        "tables": _measured(run, data, metrics),
        "glance": _glance(model, metrics, others),
        "notes": notes.read_text(encoding="utf-8").strip() if notes.is_file() else None,
        "commands": _commands(run, manifest),
    }
    return fill("card.md.jinja", values).rstrip() + "\n"


def _details(run: Run, manifest: _Json) -> dict[str, Any]:
    config, size = run.config(), manifest.get("trainable_parameters")
    versions = ", ".join(f"{name} {version}" for name, version in manifest.get("versions", {}).items())
    cropping = "cropped to the head, intensities normalized" if config.data.harmonize else "the whole image, resized"
    return {
        "architecture": config.model.name,
        "classifier": manifest.get("classifier"),
        "trainable parameters": size and f"{size:,}",
        "input": f"{config.data.image_size} x {config.data.image_size} x {config.data.channels}, {cropping}",
        "classes": ", ".join(run.classes()),
        "trained": manifest.get("started"),
        **(_averaged(manifest["ensemble"]) if manifest.get("ensemble") else _training(config, manifest)),
        "device": manifest.get("device"),
        "precision": manifest.get("precision"),
        "versions": f"Python {manifest.get('python')}, {versions}",
        "SHA-256 of best.keras": sha256(run.best_model) if run.best_model.is_file() else None,
    }


def _training(config: ExperimentConfig, manifest: _Json) -> dict[str, Any]:
    epochs, best = manifest.get("epochs"), manifest.get("best_epoch") or ""
    return {
        "initial weights": _name(config.model.weights),
        "teacher": _name(config.train.teacher) or None,
        "training": epochs and f"{epochs} epochs{best and f', the checkpoint of epoch {best}'}",
        "optimizer": f"{config.optimizer.name}, learning rate {config.optimizer.learning_rate:g}",
    }


def _averaged(ensemble: _Json) -> dict[str, str]:
    """What an ensemble averages; its trainings are among the commands."""
    count = len(ensemble["runs"])
    views = "".join(f", test-time augmentation by {view}" for view in ensemble["views"])
    shares, scale = ensemble.get("shares"), ensemble.get("kernel_scale", 1)
    scaled = f", kernels times {scale:g}" if scale != 1 else ""
    scaled += f", at {ensemble['image_size']} pixels" if ensemble.get("image_size") else ""
    of_weights = f"the weights of {count} networks, with shares of {', '.join(map(str, shares))}" if shares else ""
    return {"average of": f"{of_weights or f'{count} network' + 's' * (count > 1)}{scaled}{views}"}


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


def _measured(run: Run, data: ReportData, metrics: _Json) -> dict[str, Table | None]:
    """The tables of what was measured, by name; None in place of the others."""
    model, sheet = data.models[0], read_sheet(run)
    return {
        **dict.fromkeys(MEASURED),
        **measured_tables(run),
        "confusion": table_of(run.metrics_file, _confusion_table, metrics),
        "calibration": calibration_table(data) if metrics.get("calibration") else None,
        "sets": set_table(data) if model.is_calibrated else None,
        "robustness": robustness_table(model.name, model.slug, sheet) if sheet else None,
        "near_duplicates": near_duplicate_table(data) if model.without_near_duplicates else None,
    }


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


def _commands(run: Run, manifest: _Json) -> list[str]:
    """The commands that made it, with names in place of this machine's folders; none if it was Python.

    A fold's is that of its cross-validation, whose folds may have been started by others. An ensemble's begin with
    those of its runs, and each with those that its weights began with. ``calibrate`` is the last, if it was run.
    """
    calibrated = manifest.get("calibrated") or {}
    above = next((folder for folder in run.path.resolve().parents if is_experiment(folder)), None)
    if manifest.get("fold") is not None and above is not None:
        experiment = Experiment(above)
        manifest = experiment.manifest() if experiment.manifest_file.is_file() else {}
    before = [*manifest.get("began_with", []), *manifest.get("ensemble", {}).get("runs", [])]
    lines = [*before, {"command": manifest.get("command")}, calibrated]
    found = [
        " ".join(shlex.join(["btkeras", *map(_without_folder, map(str, arguments))]).split())
        + (f"    # at {revision.removesuffix('-dirty')}" if revision else "")
        for arguments, revision in ((each.get("command"), each.get("git_revision")) for each in lines)
        if arguments and arguments[0] in ("train", "cv", "ensemble", "calibrate")
    ]
    # All folds of a cross-validation have one.
    return list(dict.fromkeys(found))


def _without_folder(argument: str) -> str:
    """An argument, an option's or a setting's value too, whose absolute paths are names only."""
    head, equals, tail = argument.rpartition("=")
    shortened = _name(tail) if PurePath(tail).is_absolute() or tail.startswith("~") else tail
    return f"{head}{equals}{shortened}"


def _name(path: str) -> str:
    """The name of a file; of a checkpoint with that of its run."""
    value = PurePath(path)
    return "/".join(value.parts[-2:] if value.suffix == ".keras" else value.parts[-1:])
