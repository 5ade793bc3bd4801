"""How a run came about: what its manifest records at the start, and of the runs that its weights began with."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from btkeras.config import ExperimentConfig
from btkeras.datasets.dataset import Dataset
from btkeras.files import read_json, sha256
from btkeras.machine import package_versions

CONFIG, MANIFEST, BEST_MODEL = "config.yaml", "manifest.json", "best.keras"
_PACKAGES = ("btkeras", "keras", "tensorflow", "tensorflow-cpu", "jax", "numpy", "pillow", "scikit-learn")


def command_of_process() -> dict[str, Any]:
    """``command``, this process's arguments, and btkeras' ``git_revision``."""
    return {"command": sys.argv[1:], "git_revision": _git_revision()}


def first_manifest(config: ExperimentConfig, dataset: Dataset) -> dict[str, Any]:
    """The manifest at the start: command, dataset, seeds, versions, and the runs that weights and teacher are of."""
    teacher = config.train.teacher
    checkpoints = [Path(config.model.weights), *([Path(teacher) / BEST_MODEL] if teacher else [])]
    return {
        **command_of_process(),
        "began_with": [step for file in checkpoints for step in steps_to(file)],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "dataset": str(dataset.root.resolve()),
        "classes": list(dataset.classes),
        "images": dataset.counts(),
        "sources": sorted({record.source for record in dataset.records} - {""}),
        "patients": len({record.patient for record in dataset.records if record.patient}) or None,
        "seeds": {"train": config.train.seed, "split": config.data.split_seed},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": package_versions(_PACKAGES),
    }


def steps_to(checkpoint: Path) -> list[dict[str, Any]]:
    """The runs that made a run's checkpoint, the last one its own; none if it lies in no run.

    Each has ``run``, ``sha256`` (of the checkpoint), ``command`` and ``git_revision``.
    """
    folder = checkpoint.parent
    if checkpoint.name != BEST_MODEL or not all((folder / name).is_file() for name in (CONFIG, MANIFEST, BEST_MODEL)):
        return []
    manifest = read_json(folder / MANIFEST)
    own = {"run": str(folder), "sha256": sha256(checkpoint)}
    return [*manifest.get("began_with", []), own | {key: manifest.get(key) for key in ("command", "git_revision")}]


def _git_revision() -> str | None:
    """The revision of btkeras' own checkout; None for an installed package."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
