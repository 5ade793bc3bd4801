"""Self-test of an exported model: files unchanged, and the same prediction as at the export.

Without TensorFlow, unless the tested file needs it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

from btkeras.errors import ModelError
from btkeras.files import sha256
from btkeras.inference.backends.onnx import ENGINE, OPENVINO
from btkeras.inference.model_folder import (
    MANIFEST,
    SELFTEST,
    SELFTEST_IMAGE,
    format_of,
    invalid_model,
    model_summary,
    version_number,
)
from btkeras.inference.predictor import FilePrediction, Predictor

# Engine and its package, by a model file's suffix.
_ENGINES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        ".tflite": ("LiteRT", "ai-edge-litert"),
        ".onnx": ("ONNX Runtime", "onnxruntime"),
        ".pb": ("TensorFlow", "tensorflow"),
    }
)
_TIMED = 10
_EXPORT_AGAIN = "Export the run again with this btkeras"


@dataclass(frozen=True)
class SelfTest:
    """A passed self-test.

    Attributes:
        model: The model's name.
        version: The exported version's number, or None.
        file: The tested file.
        engine: What runs it, with its version.
        description: Training data and test accuracy.
        manifest_sha256: Digest of ``manifest.json``, which holds those of the version's other files.
        files: How many files of the version were compared with their digests.
        decision: For the self-test image.
        difference: Largest difference of a probability from the export's.
        tolerance: Of that difference.
        load_milliseconds: Loading and the first prediction.
        milliseconds: For one more image, from its file; the least of several.
    """

    model: str
    version: int | None
    file: Path
    engine: str
    description: str
    manifest_sha256: str
    files: int
    decision: str
    difference: float
    tolerance: float
    load_milliseconds: float
    milliseconds: float

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"ok": True, **asdict(self), "file": str(self.file)}

    def lines(self) -> list[str]:
        """As text."""
        version = "" if self.version is None else f", version {self.version}"
        rows = {
            "model": f"{self.model}{version}: {self.file}",
            "engine": self.engine,
            "about": self.description,
            "files": f"ok, {self.files} as they were exported (manifest.json is {self.manifest_sha256})",
            "decision": f"ok, {self.decision} as at the export; probabilities differ by {self.difference:.1e} at most "
            f"(allowed: {self.tolerance:g})",
            "time": f"{self.milliseconds:.1f} ms a slice; {self.load_milliseconds:.0f} ms to the first prediction",
        }
        return [*(f"{name:<10}{text}" for name, text in rows.items()), "ok"]


def selftest(file: Path) -> SelfTest:
    """Compares a version's files with their digests, and its prediction for the self-test image with the export's.

    Args:
        file: The version's file to test, ``ModelLocation.path``.

    Raises:
        ModelError: If a file is missing or changed, the prediction differs, an engine is missing, or the version has
            no self-test.
    """
    version = file.parent
    manifest, expected = _documents(version)
    _check_files(version, manifest["files"])
    own = next((row for row in expected["formats"].values() if row["file"] == file.name), None)
    if own is None or file.name not in manifest["files"]:
        raise ModelError(
            "A model's file must be one that was exported with its version",
            received=f"{file}, which is not in {version / MANIFEST}",
            remedy="Remove it, or export the run again",
        )
    image = version / SELFTEST_IMAGE
    start = time.perf_counter()
    predictor = Predictor(file, coverage=expected["coverage"])
    prediction = _predict(predictor, image)
    loaded = time.perf_counter() - start
    return SelfTest(
        model=version.resolve().parent.name,
        version=version_number(version),
        file=file,
        engine=_engine(file),
        description=model_summary(manifest, format_of(file)),
        manifest_sha256=sha256(version / MANIFEST),
        files=len(manifest["files"]),
        decision=prediction.decision,
        difference=_difference(file, prediction, own),
        tolerance=own["tolerance"]["probability"],
        load_milliseconds=round(1000 * loaded, 1),
        milliseconds=_milliseconds(predictor, image),
    )


def _documents(version: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """``manifest.json`` and ``selftest.json``."""
    if not (version / MANIFEST).is_file():
        raise ModelError(
            "A self-test is of an exported version, with its assets.extra/", received=version, remedy=_EXPORT_AGAIN
        )
    try:
        manifest = json.loads((version / MANIFEST).read_text(encoding="utf-8"))
        if "files" not in manifest:
            raise ModelError(
                "A version must have a self-test to be tested",
                received=f"{version}, which an older btkeras exported ({manifest.get('btkeras', 'not known')})",
                remedy=_EXPORT_AGAIN,
            )
        name = SELFTEST.as_posix()
        _check_files(version, {name: manifest["files"][name]})
        return manifest, json.loads((version / SELFTEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise invalid_model(version, error) from error


def _check_files(version: Path, digests: Mapping[str, str]) -> None:
    for name, digest in digests.items():
        file = version / name
        if not file.is_file():
            received = f"{file}, which is missing"
        elif sha256(file) != digest:
            received = f"{file}, whose content was changed (SHA-256 {sha256(file)}, and not {digest})"
        else:
            continue
        raise ModelError(
            "A model's files must be as they were exported",
            received=received,
            remedy="Install it again, or export the run again",
        )


def _predict(predictor: Predictor, image: Path) -> FilePrediction:
    (prediction,) = predictor.predict_files([image])
    if prediction.error:
        raise invalid_model(image, prediction.error)
    return prediction


def _difference(file: Path, found: FilePrediction, expected: Mapping[str, Any]) -> float:
    """The largest difference of a probability; ModelError if the prediction is beyond the tolerance."""
    tolerance = expected["tolerance"]
    difference = max(abs(found.probabilities.get(name, -1.0) - p) for name, p in expected["probabilities"].items())
    percentile, wanted = found.ood_percentile, expected["ood_percentile"]
    decided = (found.decision, None if found.set is None else list(found.set))
    if percentile is None or wanted is None:
        same_percentile = percentile is wanted
    else:
        same_percentile = abs(percentile - wanted) <= tolerance["ood_percentile"]
    # NaN is within no tolerance.
    if not difference <= tolerance["probability"]:
        received = f"a probability that differs by {difference:.2g} (allowed: {tolerance['probability']:g})"
    elif not same_percentile:
        received = f"an OOD percentile of {percentile} and not {wanted}"
    elif expected["decided"] and decided != (expected["decision"], expected["set"]):
        received = f"{decided[0]} of the set {decided[1]}, and not {expected['decision']} of {expected['set']}"
    else:
        return difference
    raise ModelError(
        "A model must predict as it did when it was exported",
        received=f"{received}, from {file} with {_engine(file)}",
        remedy="Do not use it here. Try the engine's version in constraints.txt, or another format of the model",
    )


def _engine(file: Path) -> str:
    name, package = _ENGINES[file.suffix]
    chosen = os.environ.get(ENGINE)
    if file.suffix == ".onnx" and chosen in OPENVINO:
        name, package = f"OpenVINO ({chosen})", "openvino"
    try:
        return f"{name} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        # Such as tensorflow-cpu: the same under another name.
        return name


def _milliseconds(predictor: Predictor, image: Path) -> float:
    times = []
    for _ in range(_TIMED):
        start = time.perf_counter()
        _predict(predictor, image)
        times.append(time.perf_counter() - start)
    return round(1000 * min(times), 2)
