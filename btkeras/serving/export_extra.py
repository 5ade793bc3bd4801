"""``assets.extra/``: what travels with an exported model, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

import btkeras
from btkeras.data.splits import PARTS
from btkeras.errors import RunError
from btkeras.evaluation.calibration import FILE as CALIBRATION
from btkeras.evaluation.calibration import Calibration
from btkeras.evaluation.outliers import Reference
from btkeras.files import sha256, write_json, write_text
from btkeras.metrics.intervals import wilson
from btkeras.models.macs import count_macs
from btkeras.models.temperature import temperature_of
from btkeras.reporting.card import FILE as CARD
from btkeras.reporting.card import card_text
from btkeras.runs import Run, read_json
from btkeras.serving.export_card import export_section
from btkeras.serving.export_deploy import Deployed
from btkeras.serving.exported import EXTRA, FACTS, LABELS, MANIFEST, OUTLIERS

_UNKNOWN_CARD = """# {name}

A network of {classes} for {size} x {size} x {channels} pictures, made with btkeras {version}. **It was never evaluated:
nothing is known of how often it is right.** `btkeras evaluate` its run, and export it again.
"""


def facts(deployed: Deployed) -> dict[str, Any]:
    """What is known of a model before it is written, for ``manifest.json``."""
    run = deployed.run
    manifest = run.manifest()
    size, _, channels = deployed.shape
    return {
        "model": deployed.model.name,
        "classes": list(deployed.classes),
        "image_size": size,
        "channels": channels,
        "harmonise": deployed.harmonise,
        "temperature": temperature_of(deployed.model),
        # Multiply-accumulates a picture.
        "macs": count_macs(deployed.fused),
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        "btkeras": btkeras.__version__,
        "run": run.path.resolve().name,
        "checkpoint": {"file": run.best_model.name, "sha256": sha256(run.best_model)},
        "trained_with": manifest["versions"],
        "dataset_images": manifest["images"],
        "dataset": PurePath(str(manifest["dataset"])).name,
        "split": _split(run),
        "test": _test_figures(run),
    }


def texts(known: Mapping[str, Any], calibration: Calibration | None, reference: Reference | None) -> dict[str, str]:
    """The texts of ``exported.TEXTS``, as far as there is something to say."""
    found = {FACTS: _json(known), LABELS: "".join(f"{name}\n" for name in known["classes"])}
    if calibration:
        found[CALIBRATION] = _json(calibration.to_json())
    if reference:
        found[OUTLIERS] = _json({"scores": reference.scores.tolist()})
    return found


def write_texts(version: Path, written: Mapping[str, str]) -> None:
    """Writes texts by their names."""
    for name, text in written.items():
        write_text(version / EXTRA / name, text)


def write_measured(version: Path, deployed: Deployed, manifest: Mapping[str, Any], selftest: Mapping[str, Any]) -> None:
    """Writes the model card and, last, ``manifest.json`` with the digests of all other files of the version.

    Args:
        version: Its folder, with all else in it.
        deployed: What was exported.
        manifest: What is known of it, and what was measured.
        selftest: As ``export_selftest.write_selftest`` returns it.
    """
    section = export_section(manifest, selftest, _digests(version))
    write_text(version / EXTRA / CARD, f"{_card(deployed)}\n{section}")
    write_json(version / MANIFEST, {**manifest, "files": _digests(version)})


def _digests(version: Path) -> dict[str, str]:
    """Of each file, by its path in the version; the manifest's cannot stand in the manifest."""
    files = sorted(path for path in version.rglob("*") if path.is_file() and path != version / MANIFEST)
    return {file.relative_to(version).as_posix(): sha256(file) for file in files}


def _card(deployed: Deployed) -> str:
    """The run's model card; of a run without figures, one that says so."""
    run = deployed.run
    if run.metrics_file.is_file():
        return card_text(run)
    size, _, channels = deployed.shape
    return _UNKNOWN_CARD.format(
        name=run.path.resolve().name,
        classes=", ".join(deployed.classes),
        size=size,
        channels=channels,
        version=btkeras.__version__,
    )


def _split(run: Run) -> dict[str, Any]:
    """What was split by what into how many pictures."""
    split = read_json(run.splits_file)
    counts = {part: sum(split["counts"][part].values()) for part in PARTS}
    return {"by": split.get("by", "image"), "seed": split["seed"], "digest": split["digest"], **counts}


def _test_figures(run: Run) -> dict[str, Any] | None:
    """Accuracy on the run's test part; None if it was not evaluated."""
    if not run.metrics_file.is_file():
        return None
    metrics = run.metrics()
    try:
        images, accuracy = int(metrics["images"]), float(metrics["accuracy"])
        macro = {name: float(value) for name, value in metrics["macro"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{run.metrics_file} must be as btkeras writes it", received=error, remedy="Evaluate the run again"
        ) from error
    interval = wilson(accuracy * images, images)
    return {"images": images, "accuracy": accuracy, "accuracy_interval": interval, "macro": macro}


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"
