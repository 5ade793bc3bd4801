"""The run folder: what is in it, and how it comes to be."""

from __future__ import annotations

import csv
import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import btkeras
from btkeras.config import ExperimentConfig
from btkeras.config_io import changed_keys, dump_config, load_config
from btkeras.datasets.dataset import Dataset, Record, load_dataset
from btkeras.errors import DataError, RunError
from btkeras.files import atomic_file, atomic_folder, write_json, write_text
from btkeras.splitting.splits import Split, load_split, save_split

_PACKAGES = ("btkeras", "keras", "tensorflow", "tensorflow-cpu", "jax", "numpy", "pillow", "scikit-learn")


@dataclass(frozen=True)
class Run:
    """A run folder's paths and the reading and writing of its files."""

    path: Path

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def splits_file(self) -> Path:
        return self.path / "splits.json"

    @property
    def manifest_file(self) -> Path:
        return self.path / "manifest.json"

    @property
    def history_file(self) -> Path:
        return self.path / "history.csv"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.json"

    @property
    def predictions_file(self) -> Path:
        return self.path / "predictions.csv"

    @property
    def best_model(self) -> Path:
        return self.path / "best.keras"

    @property
    def state_file(self) -> Path:
        return self.path / "last" / "state.npz"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    def config(self) -> ExperimentConfig:
        """The configuration as it was resolved."""
        return load_config(self.config_file)

    def manifest(self) -> dict[str, Any]:
        """What is known about the run: dataset, versions, device, precision, seeds, durations."""
        return read_json(self.manifest_file)

    def metrics(self) -> dict[str, Any]:
        """The test figures, as ``evaluate`` wrote them."""
        return read_json(self.metrics_file)

    def update_manifest(self, **values: Any) -> None:
        """Adds to the manifest, or replaces values."""
        write_json(self.manifest_file, self.manifest() | values)

    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the network's outputs."""
        return tuple(self.manifest()["classes"])

    def dataset(self) -> Dataset:
        """The dataset that the run was started with.

        Raises:
            DataError: If it is no longer where it was.
        """
        return dataset_of(self.manifest())

    def use_dataset(self, dataset: Dataset) -> None:
        """Says where the run's dataset is now.

        Raises:
            DataError: If it is not the one that was split.
        """
        load_split(self.splits_file, dataset)
        self.update_manifest(dataset=str(dataset.root.resolve()))

    def split(self, dataset: Dataset) -> Split:
        """The split, verified against the dataset and less what was skipped as broken."""
        broken = [item["path"] for item in self.manifest().get("broken", [])]
        return load_split(self.splits_file, dataset).without(broken)


def read_json(file: Path) -> dict[str, Any]:
    """Reads a JSON object of a run.

    Raises:
        RunError: If it cannot be read or is something else.
    """
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{file} must be readable JSON", received=error) from error
    if not isinstance(document, dict):
        raise RunError(f"{file} must hold a JSON object", received=type(document).__name__)
    return document


def dataset_of(manifest: Mapping[str, Any]) -> Dataset:
    """The dataset that a manifest names.

    Raises:
        DataError: If it is no longer there.
    """
    folder = Path(manifest["dataset"])
    if not folder.is_dir():
        raise DataError(
            "A run's dataset must still be where it was",
            received=f"{folder}, which is gone",
            remedy="Put it back, or say where it is now: --resume --data DATASET",
        )
    return load_dataset(folder)


def require_new(path: Path) -> None:
    """Checks that a run can be made here.

    Raises:
        RunError: If something is there already.
    """
    if path.exists():
        raise RunError(
            "A new run must have a new folder",
            received=f"{path}, which exists",
            remedy="Choose another --out, or go on with it: --resume",
        )


def create_run(path: Path, config: ExperimentConfig, dataset: Dataset, split: Split, **facts: Any) -> Run:
    """Makes a run folder with its configuration, split and manifest, all at once.

    Args:
        path: The folder to make.
        config: As resolved.
        dataset: The images.
        split: Their use.
        **facts: What else the manifest says.

    Raises:
        RunError: If something is there already.
    """
    require_new(path)
    with atomic_folder(path) as temporary:
        run = Run(temporary)
        write_text(run.config_file, dump_config(config))
        save_split(split, dataset, run.splits_file)
        write_json(run.manifest_file, first_manifest(config, dataset) | facts)
    return Run(path)


# In the version of an exported model.
_EXPORT = "assets.extra/manifest.json"
_EXPORTED = (
    "This is an exported model, which can be asked by predict, evaluate --data, selftest and benchmark; "
    "for all else name the run that it was exported from"
)


def open_run(path: str | Path) -> Run:
    """Opens a run folder.

    Raises:
        RunError: If it is none.
    """
    run = Run(Path(path))
    missing = [file.name for file in (run.config_file, run.splits_file, run.manifest_file) if not file.is_file()]
    if missing:
        raise RunError(
            "A run folder must hold config.yaml, splits.json and manifest.json",
            received=f"{path} without {', '.join(missing)}" if run.path.exists() else f"{path}, which is not there",
            remedy=_EXPORTED if _is_exported(run.path) else "Name the folder given to `btkeras train --out`",
        )
    return run


def _is_exported(path: Path) -> bool:
    """Whether a path is an exported model's, a version of one, or a file in a version."""
    versions = (path, path.parent, *path.glob("*"))
    return any((version / _EXPORT).is_file() for version in versions)


def require_same_config(run: Run, config: ExperimentConfig | None) -> None:
    """Checks that a run is resumed with the configuration that it was started with, if one is given at all.

    Raises:
        RunError: If it differs.
    """
    different = changed_keys(run.config(), config) if config else []
    if different:
        raise RunError(
            "A resumed run must keep its configuration",
            received=f"another {', '.join(different)}",
            remedy=f"Leave --config and --set away, or start a new run (its own is in {run.config_file})",
        )


def write_predictions(
    target: Path, records: Sequence[Record], classes: Sequence[str], probabilities: Sequence[Sequence[float]]
) -> None:
    """Writes ``predictions.csv``: path, label, prediction, and a probability per class (shortest exact decimals)."""
    with atomic_file(target) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label", "prediction", *classes])
        for record, row in zip(records, probabilities, strict=True):
            best = max(range(len(classes)), key=row.__getitem__)
            writer.writerow([record.path, record.label, classes[best], *row])


def read_predictions(
    source: Path, classes: Sequence[str]
) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.float64]]:
    """Reads ``predictions.csv``.

    Args:
        source: The file.
        classes: Names that its header must have, in this order.

    Returns:
        Paths; class indices ``[n]``; probabilities ``[n, classes]``, exactly as they were written.

    Raises:
        RunError: If it cannot be read, is of other classes, is empty, or a line is not as ``write_predictions``
            writes it.
    """
    try:
        with source.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(
            f"{source} must be a CSV file with a header", received=error, remedy="Evaluate the run again"
        ) from error
    expected = ["path", "label", "prediction", *classes]
    if header != expected or not rows:
        raise RunError(
            f"{source} must have the columns {','.join(expected)}, and images",
            received=f"{','.join(header)} and {len(rows)} lines",
            remedy="Evaluate the run again",
        )
    found = [_prediction(row, classes, f"line {line} of {source}") for line, row in enumerate(rows, start=2)]
    paths, labels, probabilities = zip(*found, strict=True)
    return tuple(paths), np.array(labels), np.array(probabilities)


def _prediction(row: Sequence[str], classes: Sequence[str], where: str) -> tuple[str, int, list[float]]:
    # Too few fields, a word for a number and an unknown label are all ValueErrors.
    with suppress(ValueError):
        path, label, prediction, *values = row
        probabilities = [float(value) for value in values]
        # A softmax may round to a little more than 1. NaN is in no range.
        valid = len(values) == len(classes) and all(0 <= value <= 1 + 1e-6 for value in probabilities)
        if valid and prediction == classes[probabilities.index(max(probabilities))]:
            return path, classes.index(label), probabilities
    raise RunError(
        f"A prediction must be a path, a label, the most probable class and {len(classes)} probabilities",
        received=f"{','.join(row)[:200]!r} in {where}",
        remedy="Evaluate the run again",
    )


def write_history(target: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Writes ``history.csv``: a line per epoch. No durations, so that a resumed run's file equals another's."""
    with atomic_file(target) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def first_manifest(config: ExperimentConfig, dataset: Dataset) -> dict[str, Any]:
    """What is known when a run begins: command, dataset, seeds, versions."""
    return {
        "command": sys.argv[1:],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "dataset": str(dataset.root.resolve()),
        "classes": list(dataset.classes),
        "images": dataset.counts(),
        "sources": sorted({record.source for record in dataset.records} - {""}),
        "patients": len({record.patient for record in dataset.records if record.patient}) or None,
        "seeds": {"train": config.train.seed, "split": config.data.split_seed},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": _versions(),
        "git_revision": _git_revision(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git_revision() -> str | None:
    """The revision of btkeras' own checkout; None for an installed package."""
    folder = Path(btkeras.__file__).parent
    try:
        command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
