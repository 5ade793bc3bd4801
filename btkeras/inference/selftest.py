"""Whether an exported model is what was exported and answers as it did then: after installation, and each update.

Without TensorFlow, if the file that answers needs none.
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
from btkeras.inference.model_folder import FILES, MANIFEST, SELFTEST, SELFTEST_IMAGE, not_whole, version_number
from btkeras.inference.predictor import Predictor
from btkeras.inference.pretrained import described
from btkeras.inference.processing import FilePrediction

# By the ending of a model's file: what runs it, and the package that it is.
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
    """A self-test that was passed.

    Attributes:
        model: The model's name.
        version: The exported version's number, or None.
        file: The file that answers.
        engine: What runs it, with its version.
        description: What it was trained on, and its test accuracy.
        manifest_sha256: Digest of ``manifest.json``, which holds those of the version's other files.
        files: How many files of the version were compared with their digests.
        answer: To the image that travels with the model.
        difference: Largest difference of a probability from the one at the export.
        tolerance: Of it.
        load_milliseconds: From nothing to the first answer, without Python's own start.
        milliseconds: For one more image, from its file to its answer; the least of several.
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
        """As an object."""
        return {"ok": True, **asdict(self), "file": str(self.file)}

    def lines(self) -> list[str]:
        """In words."""
        version = "" if self.version is None else f", version {self.version}"
        return [
            f"{'model':<8}{self.model}{version}: {self.file}",
            f"{'engine':<8}{self.engine}",
            f"{'worth':<8}{self.description}",
            f"{'files':<8}ok, {self.files} as they were exported (manifest.json is {self.manifest_sha256})",
            f"{'decision':<8}ok, {self.decision} as at the export; probabilities differ by {self.difference:.1e} at most "
            f"(allowed: {self.tolerance:g})",
            f"{'time':<8}{self.milliseconds:.1f} ms a slice; {self.load_milliseconds:.0f} ms to the first answer",
            "ok",
        ]


def selftest(file: Path) -> SelfTest:
    """Compares a version's files with their digests, and its answer to its own image with the one at the export.

    Args:
        file: The version's file that answers, ``network.Location.path``.

    Raises:
        ModelError: If a file is missing or was changed, the answer is another one, an engine is missing, or the model
            carries no self-test.
    """
    version = file.parent
    manifest, expected = _documents(version)
    _check_files(version, manifest["files"])
    known = next((known for known in expected["formats"].values() if known["file"] == file.name), None)
    if known is None or file.name not in manifest["files"]:
        raise ModelError(
            "A model's file must be one that was exported with its version",
            received=f"{file}, of which {version / MANIFEST} knows nothing",
            remedy="Remove it, or export the run again",
        )
    image = version / SELFTEST_IMAGE
    start = time.perf_counter()
    predictor = Predictor(file, coverage=expected["coverage"])
    answer = _answer(predictor, image)
    loaded = time.perf_counter() - start
    difference = _compared(file, answer, known)
    form = next(form for form, name in FILES.items() if name == file.name)
    return SelfTest(
        model=version.resolve().parent.name,
        version=version_number(version),
        file=file,
        engine=_engine(file),
        description=described(manifest, form),
        manifest_sha256=sha256(version / MANIFEST),
        files=len(manifest["files"]),
        decision=answer.decision,
        difference=difference,
        tolerance=known["tolerance"]["probability"],
        load_milliseconds=round(1000 * loaded, 1),
        milliseconds=_milliseconds(predictor, image),
    )


def _documents(version: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    if not (version / MANIFEST).is_file():
        raise ModelError(
            "A self-test is of an exported version, with its assets.extra/", received=version, remedy=_EXPORT_AGAIN
        )
    try:
        manifest = json.loads((version / MANIFEST).read_text(encoding="utf-8"))
        if "files" not in manifest:
            raise ModelError(
                "A version must carry a self-test to be tested",
                received=f"{version}, which an older btkeras exported ({manifest.get('btkeras', 'not known')})",
                remedy=_EXPORT_AGAIN,
            )
        _check_files(version, {str(SELFTEST.as_posix()): manifest["files"][SELFTEST.as_posix()]})
        return manifest, json.loads((version / SELFTEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise not_whole(version, error) from error


def _check_files(version: Path, digests: Mapping[str, str]) -> None:
    for name, digest in digests.items():
        file = version / name
        if not file.is_file():
            raise _changed(f"{file}, which is missing")
        if sha256(file) != digest:
            raise _changed(f"{file}, whose content is another (SHA-256 {sha256(file)}, and not {digest})")


def _changed(received: str) -> ModelError:
    return ModelError(
        "A model's files must be as they were exported",
        received=received,
        remedy="Install it again, or export the run again",
    )


def _answer(predictor: Predictor, image: Path) -> FilePrediction:
    (answer,) = predictor.predict_files([image])
    if answer.error:
        raise not_whole(image, answer.error)
    return answer


def _compared(file: Path, answer: FilePrediction, known: Mapping[str, Any]) -> float:
    """The largest difference of a probability; ModelError if the answer is another one."""
    allowed = known["tolerance"]
    difference = max(abs(answer.probabilities.get(name, -1.0) - p) for name, p in known["probabilities"].items())
    # NaN is within no tolerance.
    if not difference <= allowed["probability"]:
        raise _another(file, f"a probability that differs by {difference:.2g} (allowed: {allowed['probability']:g})")
    ood = (answer.ood_percentile, known["ood_percentile"])
    if (ood[0] is None) != (ood[1] is None) or (
        None not in ood and not abs(ood[0] - ood[1]) <= allowed["ood_percentile"]  # type: ignore[operator]
    ):
        raise _another(file, f"an outlier percentage of {ood[0]} and not {ood[1]}")
    found = (answer.decision, None if answer.set is None else list(answer.set))
    if known["decided"] and found != (known["decision"], known["set"]):
        raise _another(file, f"{found[0]} of the set {found[1]}, and not {known['decision']} of {known['set']}")
    return difference


def _another(file: Path, received: str) -> ModelError:
    return ModelError(
        "A model must answer as it did when it was exported",
        received=f"{received}, from {file} with {_engine(file)}",
        remedy="Do not use it here. Try the engine's version in constraints.txt, or another format of the model",
    )


def _engine(file: Path) -> str:
    name, package = _ENGINES[file.suffix]
    wanted = os.environ.get(ENGINE)
    if file.suffix == ".onnx" and wanted in OPENVINO:
        name, package = f"OpenVINO ({wanted})", "openvino"
    try:
        return f"{name} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        # Such as tensorflow-cpu: the same under another name.
        return name


def _milliseconds(predictor: Predictor, image: Path) -> float:
    times = []
    for _ in range(_TIMED):
        start = time.perf_counter()
        _answer(predictor, image)
        times.append(time.perf_counter() - start)
    return round(1000 * min(times), 2)
