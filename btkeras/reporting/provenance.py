"""Where the figures come from: folders, commands, versions, devices, seeds, durations."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from btkeras.logging import duration
from btkeras.reporting.document import Block, Cell, Column, Table
from btkeras.reporting.evidence import ReportData, ReportedModel
from btkeras.reporting.numbers import UNKNOWN, count_cell
from btkeras.reporting.sources import Source, TrainedRun


def provenance_blocks(evidence: ReportData) -> list[Block]:
    """A table of the sources, one of the software, one of the trainings."""
    sources = [_source_table(source, number, evidence) for number, source in enumerate(evidence.sources)]
    return [*sources, _software_table(evidence), _run_table(evidence)]


def _source_table(source: Source, number: int, evidence: ReportData) -> Table:
    protocol, dataset = source.summary["protocol"], source.summary["dataset"]
    manifest, config = source.manifest, source.config
    bootstrap = source.summary["bootstrap"]
    folds = "one" if source.is_single else f"{protocol['folds']} folds, {protocol['test']} test part"
    facts: dict[str, Any] = {
        "folder": str(source.path),
        "started": manifest.get("started"),
        "command": _command(manifest.get("command")),
        "dataset": manifest.get("dataset"),
        "images": ", ".join(f"{label} {count:,}" for label, count in dataset["images"].items()),
        "patients": dataset["patients"] or "not named by the dataset",
        "digest of the dataset's list of files": dataset["digest"],
        "split": f"by {protocol['group_by']}, {folds}, seed {protocol['split_seed']}",
        "seeds of the trainings": ", ".join(map(str, protocol["seeds"])),
        "input": f"{config.data.image_size} x {config.data.image_size} x {config.data.channels}",
        "training of the networks": _training(source),
        "intervals": f"bootstrap of {bootstrap['samples']:,} resamples of {bootstrap['groups']:,} groups of "
        f"{bootstrap['images']:,} images, by {source.regrouped_by or protocol['group_by']}, seed {bootstrap['seed']}",
    }
    several = len(evidence.sources) > 1
    return Table(
        name=f"source-{number + 1}",
        caption=f"Where the figures come from: {source.path}" if several else "Where the figures come from",
        columns=(Column("fact", numeric=False), Column("value", numeric=False)),
        rows=tuple((Cell(key), Cell(str(value), value)) for key, value in facts.items() if value is not None),
    )


def _training(source: Source) -> str | None:
    """How networks were trained; None where there are only classical models, to which none of it applies."""
    if all("classifier" in run.manifest for run in source.runs):
        return None
    config = source.config
    return (
        f"{config.train.epochs} epochs, batch {config.train.batch_size}, {config.optimizer.name}, learning rate "
        f"{config.optimizer.learning_rate:g}, {config.schedule.name} schedule; the checkpoint by {config.train.monitor}"
    )


def _command(words: Iterable[str] | None) -> str | None:
    return None if words is None else shlex.join(["btkeras", *map(str, words)])


def _software_table(evidence: ReportData) -> Table:
    manifests = [run.manifest for source in evidence.sources for run in source.runs]
    packages = dict.fromkeys(name for manifest in manifests for name in manifest.get("versions", {}))
    facts: dict[str, list[str]] = {
        "Python": _values(manifests, "python"),
        **{name: _distinct(manifest.get("versions", {}).get(name) for manifest in manifests) for name in packages},
        "btkeras' git revision": _values(manifests, "git_revision"),
        "platform": _values(manifests, "platform"),
        "device": _values(manifests, "device"),
        "precision": _values(manifests, "precision"),
        "why that precision": _values(manifests, "precision_reason"),
        "classical classifier": _values(manifests, "classifier"),
    }
    return Table(
        name="software",
        caption="Software and machine",
        columns=(Column("fact", numeric=False), Column("value", numeric=False)),
        rows=tuple((Cell(name), Cell("; ".join(values), values)) for name, values in facts.items() if values),
        notes=("Of all trainings; several values where they differed.",),
    )


def _values(manifests: Iterable[Mapping[str, Any]], key: str) -> list[str]:
    return _distinct(manifest.get(key) for manifest in manifests)


def _distinct(values: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(str(value) for value in values if value is not None))


def _run_table(evidence: ReportData) -> Table:
    runs = [(network, run) for network in evidence.networks for run in network.runs]
    seconds = [run.manifest.get("training_seconds") for _, run in runs]
    known = [float(value) for value in seconds if value is not None]
    total = (f"Together {duration(sum(known))} of training.",) if len(known) == len(runs) > 1 else ()
    return Table(
        name="trainings",
        caption="The trainings",
        columns=(
            Column("network", numeric=False),
            Column("seed"),
            Column("fold"),
            Column("epochs"),
            Column("best epoch"),
            Column("duration"),
            Column("started", numeric=False),
            Column("folder", numeric=False),
        ),
        rows=tuple(_run_row(network, run) for network, run in runs),
        notes=total,
    )


def _run_row(network: ReportedModel, run: TrainedRun) -> tuple[Cell, ...]:
    manifest = run.manifest
    seconds, started = manifest.get("training_seconds"), manifest.get("started")
    return (
        Cell(network.name, network.name),
        Cell(str(run.seed), run.seed),
        Cell(str(run.fold), run.fold),
        count_cell(manifest.get("epochs")),
        count_cell(manifest.get("best_epoch")),
        UNKNOWN if seconds is None else Cell(duration(seconds), seconds),
        UNKNOWN if started is None else Cell(str(started), started),
        Cell(str(run.run.path), str(run.run.path)),
    )
