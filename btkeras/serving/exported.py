"""The folder of an exported model: ``NAME/VERSION/`` with its files and, in ``assets.extra/``, what is known of it.

TensorFlow Serving serves the highest ``VERSION`` and passes ``assets.extra/`` over, but for the warm-up requests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from btkeras.errors import ModelError, RunError
from btkeras.evaluation.calibration import FILE as CALIBRATION
from btkeras.evaluation.calibration import Calibration
from btkeras.evaluation.outliers import Reference

SAVED_MODEL = "saved_model.pb"
# By format, the file that says that it is there; a version with several is loaded from the first.
FILES: Mapping[str, str] = MappingProxyType({"savedmodel": SAVED_MODEL, "onnx": "model.onnx", "litert": "model.tflite"})
EXTRA = Path("assets.extra")
MANIFEST = EXTRA / "manifest.json"
OUTLIERS = "outliers.json"


@dataclass(frozen=True)
class Facts:
    """What an export says of its model.

    Attributes:
        classes: Names of the outputs.
        size: Side of the input, pixels.
        channels: Channels of the input.
        harmonise: Whether the input is cropped to the head and put on one scale of intensity.
        calibration: What prediction sets are made from; None if the network was not calibrated.
        reference: What outlier scores are compared with; None if there are none.
    """

    classes: tuple[str, ...]
    size: int
    channels: int
    harmonise: bool
    calibration: Calibration | None
    reference: Reference | None


def latest_version(folder: Path) -> Path | None:
    """The highest version of an exported model, of whatever format, or None."""
    versions = [path for path in folder.glob("*") if path.name.isdecimal() and model_file(path)]
    return max(versions, key=lambda path: int(path.name), default=None)


def model_file(version: Path) -> Path | None:
    """The file that a version is loaded from, or None if there is none."""
    return next((version / name for name in FILES.values() if (version / name).is_file()), None)


def version_number(version: Path) -> int | None:
    """The number of a version's folder; None if it was renamed."""
    name = version.resolve().name
    return int(name) if name.isdecimal() else None


def read_facts(version: Path) -> Facts:
    """Reads what an export carries beside its network, as far as its run had it.

    Raises:
        ModelError: If it is not as ``btkeras export`` writes it.
    """
    try:
        manifest = _read(version / MANIFEST)
        calibration, reference = _extra(version / EXTRA)
        # Models exported before there was a choice do not say whether they are harmonised.
        harmonise = manifest.get("harmonise", False)
        classes, size, channels = tuple(manifest["classes"]), manifest["image_size"], manifest["channels"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RunError) as error:
        raise not_whole(version, error) from error
    return Facts(classes, size, channels, harmonise, calibration, reference)


def not_whole(version: Path, reason: object) -> ModelError:
    """The error for an exported model that cannot be used."""
    return ModelError("An exported model must be whole and made by `btkeras export`", received=f"{version} ({reason})")


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


def _extra(folder: Path) -> tuple[Calibration | None, Reference | None]:
    found = {name: _read(folder / name) for name in (CALIBRATION, OUTLIERS) if (folder / name).is_file()}
    calibration = Calibration.from_json(found[CALIBRATION]) if CALIBRATION in found else None
    reference = Reference(np.array(found[OUTLIERS]["scores"], np.float32)) if OUTLIERS in found else None
    return calibration, reference
