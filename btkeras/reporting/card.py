"""A model card: what a run's network is, what it was measured to do, and what was not measured.

After Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019, arXiv:1810.03993). Every number comes from a file
of the run; nothing is claimed that was not measured. It names no folder of the machine, so that it can travel with the
network.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from btkeras.datasets.dataset import Dataset
from btkeras.errors import BTKerasError, RunError
from btkeras.evaluation.robustness_sheet import read_sheet
from btkeras.experiments.experiment import Experiment, is_experiment
from btkeras.files import read_json, sha256
from btkeras.reporting import card_tables as tables
from btkeras.reporting.document import Table
from btkeras.reporting.evidence import ReportedModel, load_report_data
from btkeras.reporting.headline import accuracy_interval, split_caveats, synthetic_warning
from btkeras.reporting.numbers import interval_text, percent
from btkeras.reporting.robustness import sheet_table
from btkeras.reporting.template import fill
from btkeras.reporting.to_markdown import escape, render_block
from btkeras.runs import Run
from btkeras.splitting.splits import files_digest

FILE = "model_card.md"
EXPLANATIONS = "explanations.json"
SHORTCUTS = "shortcuts.json"
AUDIT = "audit.json"
NOTES = "notes.md"

_HEALTHY = "no_tumor"
_Json = Mapping[str, Any]


def card_text(run: Run) -> str:
    """Writes the card of an evaluated run.

    Args:
        run: The run; its dataset is looked at for the collections that its images come from, if it is still there.

    Returns:
        Markdown (GitHub's kind), with a line's end.

    Raises:
        RunError: If the run was not evaluated, or a file of it is not as btkeras writes it.
    """
    if is_experiment(run.path):
        raise RunError(
            "A model card must be of one training",
            received=f"{run.path}, a cross-validation",
            remedy="Name one of the runs in it, or report all of it: btkeras report",
        )
    evidence = load_report_data([run.path])
    network, metrics, manifest = evidence.networks[0], run.metrics(), run.manifest()
    split, dataset = read_json(run.splits_file), _dataset(run)
    measured = _measured(run, network, metrics)
    worth = split_caveats(network.source)
    values = {
        "name": run.path.resolve().name,
        "network": network.model,
        "classes": run.classes(),
        "metrics": metrics,
        "interval": interval_text(accuracy_interval(network)),
        "warnings": synthetic_warning(evidence),
        "details": tables.fact_table("The network", _details(run, manifest)),
        "dataset": PurePath(str(manifest["dataset"])).name,
        "split": split,
        "group_by": split.get("group_by", "image"),
        "manifest": manifest,
        "data": _data_tables(split, dataset),
        "confounded": _confounded(dataset),
        # The last says that nothing is known of other scanners.
        "worth": worth[:-1] if measured["others"] else worth,
        "figures": _figure_tables(run, metrics, network),
        "mistakes": _mistakes(metrics),
        "classical": "classifier" in manifest,
        "seed": run.config().train.seed,
        "monitor": run.config().train.monitor,
        "fold": manifest.get("fold"),
        "notes": _notes(run),
        "command": _command(_started_by(run, manifest)),
        "revision": (manifest.get("git_revision") or "").removesuffix("-dirty"),
        "changed": (manifest.get("git_revision") or "").endswith("-dirty"),
        **measured,
    }
    filters: dict[str, Callable[..., Any]] = {"md": escape, "block": render_block, "percent": percent}
    # Not HTML: `md` escapes what comes from files, for Markdown.
    return fill("card.md.jinja", values, filters, autoescape=False).rstrip() + "\n"


def _notes(run: Run) -> str | None:
    """What whoever trained it has to say, Markdown: ``RUN/notes.md``."""
    file = run.path / NOTES
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None


def _measured(run: Run, network: ReportedModel, metrics: _Json) -> dict[str, Any]:
    """What other commands may have measured; None or nothing where they did not."""
    calibration = metrics.get("calibration")
    sheet = read_sheet(run)
    sets = calibration["conformal"] if calibration else None
    return {
        "calibration": _part(run, run.metrics_file.name, tables.calibration_table, calibration),
        "calibrated": bool(sets),
        "sets": _part(run, run.metrics_file.name, tables.set_table, sets),
        "rejection": _part(run, run.metrics_file.name, tables.refusal_table, metrics.get("selective")),
        "explanations": _part(run, EXPLANATIONS, tables.explanation_table, _read(run, EXPLANATIONS)),
        "shortcuts": _part(run, SHORTCUTS, tables.shortcut_table, _read(run, SHORTCUTS)),
        "robustness": sheet_table(network.name, network.slug, sheet) if sheet else None,
        "copies": _part(run, AUDIT, tables.copy_table, _read(run, AUDIT)),
        "others": _part(run, "evaluations", tables.other_dataset_table, _evaluations(run) or None),
    }


def _read(run: Run, name: str) -> _Json | None:
    file = run.path / name
    return read_json(file) if file.is_file() else None


def _part(run: Run, name: str, build: Callable[[Any], Table], value: Any) -> Table | None:
    """A table of what was measured; None if it was not."""
    if value is None:
        return None
    try:
        return build(value)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise RunError(
            f"{run.path / name} must be as btkeras writes it",
            received=f"{type(error).__name__}: {error}",
            remedy="Measure it again, or remove it",
        ) from error


def _evaluations(run: Run) -> list[tuple[str, _Json]]:
    """Names and figures of the other datasets that the network was tested on."""
    found = [(file.parent.name, read_json(file)) for file in sorted((run.path / "evaluations").glob("*/metrics.json"))]
    return [(name, metrics) for name, metrics in found if metrics.get("split") == "all"]


def _details(run: Run, manifest: _Json) -> dict[str, Any]:
    config, size = run.config(), manifest.get("trainable_parameters")
    versions = ", ".join(f"{name} {version}" for name, version in manifest.get("versions", {}).items())
    epochs = manifest.get("epochs")
    return {
        "architecture": config.model.name,
        "classifier": manifest.get("classifier"),
        "weights at the start": PurePath(config.model.weights).name,
        "trainable parameters": None if size is None else f"{size:,}",
        "input": f"{config.data.image_size} x {config.data.image_size} x {config.data.channels}, "
        + ("cropped to the head, on one scale of intensity" if config.data.harmonize else "the whole image, stretched"),
        "classes": ", ".join(run.classes()),
        "trained": manifest.get("started"),
        "training": None
        if epochs is None
        else f"{epochs} epochs, the checkpoint of epoch {manifest.get('best_epoch')}",
        "optimizer": f"{config.optimizer.name}, learning rate {config.optimizer.learning_rate:g}",
        "device": manifest.get("device"),
        "precision": manifest.get("precision"),
        "versions": f"Python {manifest.get('python')}, {versions}",
        "SHA-256 of best.keras": sha256(run.best_model) if run.best_model.is_file() else None,
    }


def _dataset(run: Run) -> Dataset | None:
    """The run's dataset, if it is still there as it was."""
    try:
        dataset = run.dataset()
    except (BTKerasError, OSError):
        return None
    return dataset if files_digest(dataset.records) == read_json(run.splits_file)["dataset_digest"] else None


def _data_tables(split: _Json, dataset: Dataset | None) -> list[Table]:
    sources = tables.source_table(dataset) if dataset else None
    return [tables.subset_table(split), *([sources] if sources else [])]


def _confounded(dataset: Dataset | None) -> list[str]:
    """The classes whose collections hold nothing of any other class; none where collections are not named."""
    labels: dict[str, set[str]] = defaultdict(set)
    for record in dataset.records if dataset else ():
        labels[record.source].add(record.label)
    if dataset is None or "" in labels:
        return []
    return [name for name in dataset.classes if all(found == {name} for found in labels.values() if name in found)]


def _figure_tables(run: Run, metrics: _Json, network: ReportedModel) -> list[Table]:
    builds: tuple[Callable[[_Json], Table], ...] = (
        lambda found: tables.headline_table(found, network),
        lambda found: tables.class_table(found, network),
        tables.confusion_table,
    )
    built = [_part(run, run.metrics_file.name, build, metrics) for build in builds]
    return [table for table in built if table]


def _mistakes(metrics: _Json) -> list[str]:
    """Missed tumours and false alarms in words, where there is a class without tumour."""
    classes, matrix = metrics["classes"], metrics["confusion_matrix"]
    if _HEALTHY not in classes or len(classes) < 2:
        return []
    no_tumor = classes.index(_HEALTHY)
    tumors = sum(sum(row) for i, row in enumerate(matrix) if i != no_tumor)
    missed = sum(row[no_tumor] for i, row in enumerate(matrix) if i != no_tumor)
    without = sum(matrix[no_tumor])
    return [
        f"Of {tumors:,} test images of tumours, {missed:,} are answered {_HEALTHY}; of {without:,} without a "
        f"tumour, {without - matrix[no_tumor][no_tumor]:,} are answered with one."
    ]


def _started_by(run: Run, manifest: _Json) -> Sequence[str]:
    """The words of the command that began it all: a cross-validation's, which its folds' need not be."""
    above = next((folder for folder in run.path.resolve().parents if is_experiment(folder)), None)
    if manifest.get("fold") is None or above is None:
        return manifest.get("command") or []
    experiment = Experiment(above)
    return read_json(experiment.manifest_file).get("command") or [] if experiment.manifest_file.is_file() else []


def _command(words: Sequence[str]) -> str | None:
    """The command that started the training, with names in place of this machine's folders; None if it was Python."""
    if not words or words[0] not in ("train", "cv"):
        return None
    return " ".join(shlex.join(["btkeras", *map(_without_folder, map(str, words))]).split())


def _without_folder(word: str) -> str:
    """A word of a command line, an option's or a setting's value too, whose absolute paths are names only."""
    head, equals, tail = word.rpartition("=")
    value = PurePath(tail)
    shortened = value.name if value.is_absolute() or tail.startswith("~") else tail
    return f"{head}{equals}{shortened}"
