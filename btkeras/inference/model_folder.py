"""An exported model's folder, ``NAME/VERSION/``: a file for each format, metadata in ``assets.extra/``.

ONNX and LiteRT files have the metadata embedded, so that the file alone is enough.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

import btkeras
from btkeras.checksums import check_file
from btkeras.decisions.calibration import Calibration
from btkeras.decisions.ood import CalibrationScores
from btkeras.errors import ModelError, RunError
from btkeras.files import read_json
from btkeras.preprocessing.image_file import read_bytes
from btkeras.splitting.known_slices import HASHES, KnownSlices

SAVED_MODEL = "saved_model.pb"
FILES: Mapping[str, str] = MappingProxyType({"savedmodel": SAVED_MODEL, "onnx": "model.onnx", "litert": "model.tflite"})
# Package that runs each format, the fastest to start first (docs/performance.md): a version with several formats is
# loaded from the first whose package is installed.
ENGINES: Mapping[str, str] = MappingProxyType(
    {"litert": "ai_edge_litert", "onnx": "onnxruntime", "savedmodel": "tensorflow"}
)
EXTRA = Path("assets.extra")
MANIFEST = EXTRA / "manifest.json"
SELFTEST, SELFTEST_IMAGE = EXTRA / "selftest.json", EXTRA / "selftest.png"
IMAGE_DIGESTS = EXTRA / "image_digests.json"
IMAGE_HASHES = EXTRA / HASHES
# Hexadecimal digits of SHA-256: two of a million images share 16 of them by chance once in 37 million such sets.
DIGEST_DIGITS = 16
METADATA, LABELS, CALIBRATION, OOD_CALIBRATION = MANIFEST.name, "labels.txt", "calibration.json", "ood.json"
# Embedded in files of one format.
METADATA_FILES = (METADATA, LABELS, CALIBRATION, OOD_CALIBRATION)
# Likewise: the graph of its maps, which `inference.backends.maps` reads.
MAPS = "maps.json"

# Signatures and outputs.
PREPARED, PIXELS, BYTES, EXPLAINED = "serving_prepared", "serving_pixels", "serving_default", "serving_explained"
PROBABILITIES, OOD_SCORE, MAP = "probabilities", "ood_score", "map"

# The pretrained model's name; it lies in an installed package (setup.py puts it there), or in a clone beside it.
PRETRAINED = "brain_tumour_mri"
PRETRAINED_FOLDERS = tuple(parent / "saved_models" for parent in Path(btkeras.__file__).parents[:2])
CARD = "model_card.md"


@dataclass(frozen=True)
class ModelMetadata:
    """What is known about a model besides its network.

    Attributes:
        classes: Names of the outputs.
        size: Side of the input, pixels.
        channels: Channels of the input.
        harmonize: Whether the input is cropped to the head and intensity-normalised.
        calibration: What prediction sets and the abstention threshold are from; None if the model is not calibrated.
        ood_calibration: The calibration slices' OOD scores; None if the model has no OOD score.
    """

    classes: tuple[str, ...]
    size: int
    channels: int
    harmonize: bool
    calibration: Calibration | None
    ood_calibration: CalibrationScores | None


def latest_version(folder: Path) -> Path | None:
    """The highest version of an exported model, or None."""
    versions = [path for path in folder.glob("*") if path.name.isdecimal() and model_file(path)]
    return max(versions, key=lambda path: int(path.name), default=None)


def model_file(version: Path, explained: bool = False) -> Path | None:
    """The file that a version is loaded from, or None; if ``explained``, of a format with maps if there is one."""
    found = [name for name in ENGINES if (version / FILES[name]).is_file()]
    if explained and len(found) > 1:
        # Versions that do not say so were exported when only SavedModels had maps.
        with_maps = read_json(version / MANIFEST).get("maps", ["savedmodel"])
        found.sort(key=lambda name: name not in with_maps)
    # If no engine is installed, loading the first will say what to install.
    usable = [name for name in found if importlib.util.find_spec(ENGINES[name])] or found
    return version / FILES[usable[0]] if usable else None


def format_of(file: Path) -> str:
    """The format, a key of ``FILES``, of a version's file."""
    return next(name for name, file_name in FILES.items() if file_name == file.name)


def version_number(version: Path) -> int | None:
    """The number of a version's folder; None if it has another name."""
    return int(version.resolve().name) if version.resolve().name.isdecimal() else None


def read_metadata(version: Path) -> ModelMetadata:
    """Reads the metadata in a version's ``assets.extra/``; errors as ``parse_metadata``."""
    files = [version / EXTRA / name for name in METADATA_FILES]
    try:
        texts = {file.name: file.read_text(encoding="utf-8") for file in files if file.is_file()}
    except (OSError, ValueError) as error:
        raise invalid_model(version, error) from error
    return parse_metadata(texts, version)


def parse_metadata(texts: Mapping[str, str], source: Path) -> ModelMetadata:
    """Parses texts by the names of ``METADATA_FILES``; ModelError if they are not as ``btkeras export`` writes them."""
    try:
        parsed: dict[str, Any] = {
            name: json.loads(texts[name]) for name in METADATA_FILES if name in texts and name.endswith(".json")
        }
        manifest, ood = parsed[METADATA], parsed.get(OOD_CALIBRATION)
        return ModelMetadata(
            classes=tuple(manifest["classes"]),
            size=manifest["image_size"],
            channels=manifest["channels"],
            # Models exported before there was a choice do not say.
            harmonize=manifest.get("harmonize", False),
            calibration=Calibration.from_json(parsed[CALIBRATION]) if CALIBRATION in parsed else None,
            ood_calibration=CalibrationScores(np.array(ood["scores"], np.float32)) if ood else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RunError) as error:
        raise invalid_model(source, error) from error


def hashes_file(source: Path) -> Path | None:
    """The file that ``known_slices`` reads, in the folder of a version or a run; None where there is none."""
    return next((file for file in (source / IMAGE_HASHES, source / HASHES) if file.is_file()), None)


def known_slices(source: Path) -> KnownSlices | None:
    """Hashes of the slices that a version, or a run, was trained and validated on; None where there are none.

    Raises:
        ModelError: If the file is damaged.
        RunError: If it is not the one that the run recorded.
    """
    file = hashes_file(source)
    if file is None:
        return None
    check_file(file)
    try:
        return KnownSlices.read(file)
    except (OSError, ValueError) as error:
        raise invalid_model(file, error) from error


def invalid_model(source: Path, reason: object) -> ModelError:
    """The error for an exported model that cannot be used."""
    text = f"without {reason}" if isinstance(reason, KeyError) else str(reason)
    received = f"{source} ({textwrap.shorten(text, 300, placeholder='...')})"
    return ModelError("An exported model must be whole and made by `btkeras export`", received=received)


def require_engine(module: str, extra: str) -> Any:
    """Imports a format's module, of an extra of btkeras; ModelError if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ModelError(
            f"The format {extra} needs the package {module.split('.')[0]}",
            received=error,
            remedy=f"Install it: pip install 'btkeras[{extra}]'",
        ) from error


def image_digest(file: Path) -> str:
    """Identifies an image by its content, since a name may be a patient's; ImageError if it cannot be read."""
    return hashlib.sha256(read_bytes(file)).hexdigest()[:DIGEST_DIGITS]


def pretrained_model() -> Path | None:
    """The folder of the model that is installed with btkeras; None where this installation has none."""
    return next((folder / PRETRAINED for folder in PRETRAINED_FOLDERS if latest_version(folder / PRETRAINED)), None)


def is_pretrained(model: Path) -> bool:
    """Whether a path is the pretrained model or in it, or a duplicate of it under the same name."""
    pretrained = pretrained_model()
    if pretrained is None or model.resolve().is_relative_to(pretrained.resolve()):
        return pretrained is not None
    # As in a clone beside an installed package.
    same_name = [path for path in (model, *model.parents[:2]) if path.name == PRETRAINED]
    manifests = [version / MANIFEST for version in map(latest_version, [*same_name[:1], pretrained]) if version]
    return len(manifests) == 2 and manifests[0].read_bytes() == manifests[1].read_bytes()


def pretrained_summary(file: Path) -> str:
    """What to know about the pretrained model, one of whose files is given, in one line."""
    manifest = json.loads((file.parent / MANIFEST).read_text(encoding="utf-8"))
    summary = model_summary(manifest, format_of(file))
    return f"installed with btkeras, research use only: {summary}; see {file.parent / EXTRA / CARD}"


def model_summary(manifest: Mapping[str, Any], model_format: str) -> str:
    """An exported model's training data and test accuracy, of a format's file, in one line."""
    split = manifest.get("split")
    trained = f"{split['train']:,} slices of {manifest['dataset']}" if split else "slices that it does not name"
    test = metrics_of(manifest, model_format)
    if test is None:
        return f"trained on {trained}; never evaluated"
    low, high = test["accuracy_interval"]
    group_by = f", split by {split['group_by']}" if split else ""
    return (
        f"trained on {trained}; test accuracy {100 * test['accuracy']:.2f} % of {test['images']:,} slices{group_by} "
        f"(95 % interval {100 * low:.1f} to {100 * high:.1f})"
    )


def metrics_of(manifest: Mapping[str, Any], model_format: str) -> Mapping[str, Any] | None:
    """Test metrics of a format's file: its own if it is quantized, else the checkpoint's."""
    own = [row.get("test") for row in manifest.get("quantization", ()) if row["format"] == model_format]
    metrics: Mapping[str, Any] | None = own[0] if own and own[0] else manifest.get("test")
    return metrics
