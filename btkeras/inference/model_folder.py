"""An exported model's folder: ``NAME/VERSION/`` with the files of its formats and, in ``assets.extra/``, what it is.

TensorFlow Serving serves the highest ``VERSION`` and passes ``assets.extra/`` over, but for the warm-up requests. A
model that is one file carries the same texts inside, so that it can be sent anywhere alone.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from btkeras.decisions.calibration import Calibration
from btkeras.decisions.ood import CalibrationScores
from btkeras.errors import ModelError, RunError
from btkeras.runs import Run

SAVED_MODEL = "saved_model.pb"
# By format, the file that says that it is there.
FILES: Mapping[str, str] = MappingProxyType({"savedmodel": SAVED_MODEL, "onnx": "model.onnx", "litert": "model.tflite"})
# By format, the package that answers with it, the one first that a new process answers soonest with (measured in
# docs/performance.md): a version with several formats is loaded from the first that is installed.
ENGINES: Mapping[str, str] = MappingProxyType(
    {"litert": "ai_edge_litert", "onnx": "onnxruntime", "savedmodel": "tensorflow"}
)
# The only one that has maps of what an answer rests on.
_EXPLAINED = "savedmodel"
EXTRA = Path("assets.extra")
MANIFEST = EXTRA / "manifest.json"
# What `btkeras selftest` shows a version and expects of it, and what `btkeras evaluate` knows its run's images by.
SELFTEST, SELFTEST_IMAGE = EXTRA / "selftest.json", EXTRA / "selftest.png"
IMAGES = EXTRA / "image_digests.json"
METADATA, LABELS, OUTLIERS = MANIFEST.name, "labels.txt", "ood.json"
# What a file carries inside.
CALIBRATION = Run.calibration_file.name
TEXTS = (METADATA, LABELS, CALIBRATION, OUTLIERS)

# Serving's own names: signatures, their inputs and outputs.
PREPARED, PIXELS, BYTES, EXPLAINED = "serving_prepared", "serving_pixels", "serving_default", "serving_explained"
PROBABILITIES, SCORE = "probabilities", "ood_score"


@dataclass(frozen=True)
class ModelMetadata:
    """What an export says of its model.

    Attributes:
        classes: Names of the outputs.
        size: Side of the input, pixels.
        channels: Channels of the input.
        harmonize: Whether the input is cropped to the head and put on one scale of intensity.
        calibration: What prediction sets are made from; None if the network was not calibrated.
        reference: What outlier scores are compared with; None if there are none.
    """

    classes: tuple[str, ...]
    size: int
    channels: int
    harmonize: bool
    calibration: Calibration | None
    reference: CalibrationScores | None


def latest_version(folder: Path) -> Path | None:
    """The highest version of an exported model, of whatever format, or None."""
    versions = [path for path in folder.glob("*") if path.name.isdecimal() and model_file(path)]
    return max(versions, key=lambda path: int(path.name), default=None)


def model_file(version: Path, explained: bool = False) -> Path | None:
    """The file that a version is loaded from, or None if there is none.

    Args:
        version: Its folder.
        explained: Whether maps of its answers are wanted, which not every format has.
    """
    found = [form for form in ENGINES if (version / FILES[form]).is_file()]
    if explained:
        found.sort(key=lambda form: form != _EXPLAINED)
    # If none is installed, loading the first will say what to install.
    usable = [form for form in found if importlib.util.find_spec(ENGINES[form])] or found
    return version / FILES[usable[0]] if usable else None


def version_number(version: Path) -> int | None:
    """The number of a version's folder; None if it has another name."""
    name = version.resolve().name
    return int(name) if name.isdecimal() else None


def read_metadata(version: Path) -> ModelMetadata:
    """Reads what a version's folder says of its model; errors as ``facts_of``."""
    return metadata_of(read_texts(version), version)


def read_texts(version: Path) -> dict[str, str]:
    """Reads the files of ``TEXTS`` that a version has in its ``assets.extra/``.

    Raises:
        ModelError: If one cannot be read.
    """
    files = [version / EXTRA / name for name in TEXTS]
    try:
        return {file.name: file.read_text(encoding="utf-8") for file in files if file.is_file()}
    except (OSError, ValueError) as error:
        raise not_whole(version, error) from error


def metadata_of(texts: Mapping[str, str], source: Path) -> ModelMetadata:
    """Understands what an export carries beside its network.

    Args:
        texts: By the names of ``TEXTS``, as far as its run had them.
        source: They come from, for the message.

    Raises:
        ModelError: If they are not as ``btkeras export`` writes them.
    """
    try:
        found: dict[str, Any] = {name: json.loads(texts[name]) for name in TEXTS if name in texts and name != LABELS}
        manifest, scores = found[METADATA], found.get(OUTLIERS)
        return ModelMetadata(
            classes=tuple(manifest["classes"]),
            size=manifest["image_size"],
            channels=manifest["channels"],
            # Models exported before there was a choice do not say.
            harmonize=manifest.get("harmonize", False),
            calibration=Calibration.from_json(found[CALIBRATION]) if CALIBRATION in found else None,
            reference=CalibrationScores(np.array(scores["scores"], np.float32)) if scores else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RunError) as error:
        reason = f"without {error}" if isinstance(error, KeyError) else error
        raise not_whole(source, reason) from error


def not_whole(source: Path, reason: object) -> ModelError:
    """The error for an exported model that cannot be used."""
    return ModelError("An exported model must be whole and made by `btkeras export`", received=f"{source} ({reason})")


def engine(module: str, extra: str) -> Any:
    """Imports what a format needs.

    Args:
        module: Its name.
        extra: btkeras' extra that installs it.

    Raises:
        ModelError: If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ModelError(
            f"The format {extra} needs the package {module.split('.')[0]}",
            received=error,
            remedy=f"Install it: pip install 'btkeras[{extra}]'",
        ) from error
