"""``assets.extra/``: what travels with an exported model, for people and for programs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import btkeras
from btkeras.errors import RunError
from btkeras.evaluation.calibration import FILE as CALIBRATION
from btkeras.files import write_json, write_text
from btkeras.metrics.intervals import wilson
from btkeras.models.macs import count_macs
from btkeras.models.temperature import temperature_of
from btkeras.reporting.card import FILE as CARD
from btkeras.reporting.card import card_text
from btkeras.runs import Run
from btkeras.serving.export_deploy import Deployed
from btkeras.serving.export_quantize import Cost
from btkeras.serving.export_words import export_lines
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
        "checkpoint": {"file": run.best_model.name, "sha256": _sha256(run.best_model)},
        "trained_with": manifest["versions"],
        "trained_on": manifest["images"],
        "test": _test_figures(run),
    }


def texts(deployed: Deployed, known: Mapping[str, Any]) -> dict[str, str]:
    """The texts of ``exported.TEXTS``, as far as the run has them."""
    found = {FACTS: _json(known), LABELS: "".join(f"{name}\n" for name in deployed.classes)}
    if deployed.calibration:
        found[CALIBRATION] = _json(deployed.calibration.to_json())
    if deployed.outliers:
        found[OUTLIERS] = _json({"scores": deployed.outliers.reference.scores.tolist()})
    return found


def write_texts(version: Path, written: Mapping[str, str]) -> None:
    """Writes texts by their names."""
    for name, text in written.items():
        write_text(version / EXTRA / name, text)


def write_measured(
    version: Path, deployed: Deployed, known: Mapping[str, Any], measured: Mapping[str, Any], costs: Sequence[Cost]
) -> None:
    """Writes ``manifest.json`` with what was measured of the export, and the model card."""
    manifest = {**known, **measured, "quantization": [cost.to_json() for cost in costs]}
    write_json(version / MANIFEST, manifest)
    exported = "\n".join(export_lines(manifest))
    write_text(version / EXTRA / CARD, f"{_card(deployed)}\n## This export\n\n```\n{exported}\n```\n")


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


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"
