"""Self-test of an exported model: unchanged files, and the same prediction as at the export."""

from __future__ import annotations

import json
import os
import time
import timeit
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from btkeras.errors import ModelError
from btkeras.files import sha256
from btkeras.inference.backends.single_file import ENGINE, OPENVINO, OWN_ENGINES
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
_ENGINES = {
    ".tflite": ("LiteRT", "ai-edge-litert"),
    ".onnx": ("ONNX Runtime", "onnxruntime"),
    ".pb": ("TensorFlow", "tensorflow"),
}
_TIMED = 10


def selftest(file: Path) -> dict[str, Any]:
    """Tests a version's ``file``: its files against their digests, its prediction for the image against the export's.

    Returns:
        JSON-ready; ``files`` are as many as were compared with their digests, ``difference`` is the largest of a
        probability, ``load_milliseconds`` last until the first prediction, and ``milliseconds`` is for one more image
        from its file, the least of several.

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
    seconds = timeit.repeat(lambda: _predict(predictor, image), number=1, repeat=_TIMED)
    return {
        "ok": True,
        "model": version.resolve().parent.name,
        "version": version_number(version),
        "file": str(file),
        "engine": _engine(file),
        "description": model_summary(manifest, format_of(file)),
        "manifest_sha256": sha256(version / MANIFEST),
        "files": len(manifest["files"]),
        "decision": prediction.decision,
        "difference": _difference(file, prediction, own),
        "tolerance": own["tolerance"]["probability"],
        "load_milliseconds": round(1000 * loaded, 1),
        "milliseconds": round(1000 * min(seconds), 2),
    }


def check_files(version: Path) -> None:
    """Raises ``ModelError`` unless a version's files are as they were exported."""
    manifest, _ = _documents(version)
    _check_files(version, manifest["files"])


def format_selftest(found: Mapping[str, Any]) -> list[str]:
    """A result of ``selftest`` as lines of text."""
    version = "" if found["version"] is None else f", version {found['version']}"
    rows = {
        "model": f"{found['model']}{version}: {found['file']}",
        "engine": found["engine"],
        "about": found["description"],
        "files": f"ok, {found['files']} as they were exported (manifest.json is {found['manifest_sha256']})",
        "decision": f"ok, {found['decision']} as at the export; probabilities differ by {found['difference']:.1e} at "
        f"most (allowed: {found['tolerance']:g})",
        "time": f"{found['milliseconds']:.1f} ms a slice; {found['load_milliseconds']:.0f} ms to the first prediction",
    }
    return [*(f"{name:<10}{text}" for name, text in rows.items()), "ok"]


def _documents(version: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """``manifest.json`` and ``selftest.json``."""
    rule, received = "A self-test is of an exported version, with its assets.extra/", str(version)
    try:
        if (version / MANIFEST).is_file():
            manifest = json.loads((version / MANIFEST).read_text(encoding="utf-8"))
            if "files" in manifest:
                _check_files(version, {SELFTEST.as_posix(): manifest["files"][SELFTEST.as_posix()]})
                return manifest, json.loads((version / SELFTEST).read_text(encoding="utf-8"))
            rule = "A version must have a self-test to be tested"
            received += f", which an older btkeras exported ({manifest.get('btkeras', 'not known')})"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise invalid_model(version, error) from error
    raise ModelError(rule, received=received, remedy="Export the run again with this btkeras")


def _check_files(version: Path, digests: Mapping[str, str]) -> None:
    for name, digest in digests.items():
        found = sha256(version / name) if (version / name).is_file() else None
        if found != digest:
            reason = f"whose content was changed (SHA-256 {found}, and not {digest})" if found else "which is missing"
            raise ModelError(
                "A model's files must be as they were exported",
                received=f"{version / name}, {reason}",
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
    both = percentile is not None and wanted is not None
    decided = (found.decision, None if found.set is None else list(found.set))
    # NaN is within no tolerance.
    if not difference <= tolerance["probability"]:
        received = f"a probability that differs by {difference:.2g} (allowed: {tolerance['probability']:g})"
    elif not (abs(percentile - wanted) <= tolerance["ood_percentile"] if both else percentile is wanted):
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
    if os.environ.get(ENGINE) in OPENVINO and file.suffix in OWN_ENGINES:
        name, package = f"OpenVINO ({os.environ[ENGINE]})", "openvino"
    # TensorFlow may be tensorflow-cpu: the same under another name.
    with suppress(metadata.PackageNotFoundError):
        name += f" {metadata.version(package)}"
    return name
