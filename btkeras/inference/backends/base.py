"""A trained network behind one call, whether it comes from a run folder or was exported, and in whatever format."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from btkeras.decisions.calibration import Calibration
from btkeras.decisions.ood import CalibrationScores
from btkeras.errors import ModelError
from btkeras.inference.model_folder import SAVED_MODEL, ModelMetadata, latest_version, model_file, version_number
from btkeras.inference.pretrained import installed_for, is_pretrained, pretrained_model

# By the ending of the file that an exported model is loaded from: a module with `load(file) -> Network`.
_LOADERS: Mapping[str, str] = MappingProxyType({".pb": "saved_model", ".onnx": "onnx", ".tflite": "litert"})
_RUN = "keras"
# Those that need no TensorFlow.
_LIGHT = ("onnx", "litert")
_PLACES = ("saved_models", "runs")

ModelOutputs = tuple[NDArray[np.float32], NDArray[np.float32] | None]
Observe = Callable[[NDArray[np.uint8]], ModelOutputs]
Explain = Callable[[NDArray[np.uint8], NDArray[np.integer]], NDArray[np.float32]]


@dataclass(frozen=True)
class InferenceBackend:
    """Attributes:
    source: The folder it was loaded from.
    classes: Names of its outputs.
    size: Side of its input, pixels.
    channels: Channels of its input.
    harmonize: Whether its input is cropped to the head and put on one scale of intensity.
    observe: From uint8 ``[n, size, size, channels]`` to probabilities, float32 ``[n, classes]``, and to outlier
        scores, float32 ``[n]``, or None if it has none.
    calibration: What prediction sets are made from; None if it was not calibrated.
    reference: What outlier scores are compared with; None if it has none.
    explain: From uint8 ``[n, size, size, channels]`` and the indices ``[n]`` of the classes to explain to float32
        ``[n, size, size]`` in 0..1: LayerCAM as ``evaluation.explain`` computes it; None where it cannot.
    version: The exported version's number; None for a run.
    file: The file that answers; None for a network that was made in memory.
    """

    source: Path
    classes: tuple[str, ...]
    size: int
    channels: int
    harmonize: bool
    observe: Observe
    calibration: Calibration | None
    reference: CalibrationScores | None
    explain: Explain | None = None
    version: int | None = None
    file: Path | None = None

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The probabilities alone."""
        return self.observe(images)[0]

    def missing(self) -> str | None:
        """What its answers lack and how to get it, as a sentence; None if they lack nothing."""
        lacks = [
            words
            for words, part in (("prediction sets", self.calibration), ("outlier scores", self.reference))
            if part is None
        ]
        if not lacks:
            return None
        run = (self.source / "config.yaml").is_file()
        remedy = f"btkeras calibrate {self.source}" if run else "btkeras calibrate RUN, then export it again"
        return f"{self.source} has no {' and no '.join(lacks)}; get them with: {remedy}"


@dataclass(frozen=True)
class ModelLocation:
    """Where a network lies and how it is loaded.

    Attributes:
        path: A run's folder, or the file of an exported version.
        loader: The module that loads it.
    """

    path: Path
    loader: str

    @property
    def needs_tensorflow(self) -> bool:
        """Whether loading it imports TensorFlow, which takes seconds."""
        return self.loader not in _LIGHT

    def load(self, images: int = 1) -> InferenceBackend:
        """Loads it.

        Args:
            images: About how many will be asked for: for many, a run's network is brought into a faster form first.

        Raises:
            ModelError: If it cannot be used.
            RunError: If it is a run without a network, or a file of it is damaged.
        """
        # Each in its module, so that a format needs only its own engine.
        load: Callable[..., InferenceBackend] = importlib.import_module(
            f"btkeras.inference.backends.{self.loader}"
        ).load
        return load(self.path, images) if self.loader == _RUN else load(self.path)


def exported_backend(
    file: Path, facts: ModelMetadata, observe: Observe, explain: Explain | None = None
) -> InferenceBackend:
    """The network of an exported version, whatever its format.

    Args:
        file: The version's file.
        facts: What lies beside or in its file.
        observe: As in ``Network``.
        explain: As in ``Network``.
    """
    return InferenceBackend(
        source=file.parent,
        classes=facts.classes,
        size=facts.size,
        channels=facts.channels,
        harmonize=facts.harmonize,
        observe=_finite(observe, file),
        calibration=facts.calibration,
        reference=facts.reference,
        explain=explain,
        version=version_number(file.parent),
        file=file,
    )


def _finite(observe: Observe, file: Path) -> Observe:
    """Damaged weights may still load, and give no numbers."""

    def checked(images: NDArray[np.uint8]) -> ModelOutputs:
        found = observe(images)
        if not all(np.isfinite(part).all() for part in found if part is not None):
            raise ModelError(
                "A network's answers must be finite numbers",
                received=f"others from {file}",
                remedy=f"Is it damaged? btkeras selftest --model {file}",
            )
        return found

    return checked


def load_backend(path: str | Path, images: int = 1) -> InferenceBackend:
    """Loads a run folder, or an exported model; arguments and errors as ``locate`` and ``Location.load``."""
    return locate(path).load(images)


def locate(path: str | Path, explained: bool = False) -> ModelLocation:
    """Finds a run folder, or an exported model: ``NAME`` (its highest version), ``NAME/VERSION``, or a file in it.

    Args:
        path: The one or the other; ``brain_tumour_mri`` is the installed model wherever there is none of this name.
        explained: Whether maps of its answers are wanted: of a version with several formats, one that has them.

    Raises:
        ModelError: If it is neither.
    """
    given = installed_for(Path(path))
    if (given / "config.yaml").is_file():
        return ModelLocation(given, _RUN)
    file = _exported_file(given, explained)
    if file is None:
        raise ModelError(
            "A model must be a run folder or an exported model",
            received=path,
            remedy="Name what was given to `btkeras train --out` or `btkeras export --out`",
        )
    return ModelLocation(file, _LOADERS[file.suffix])


def _exported_file(given: Path, explained: bool) -> Path | None:
    if given.is_file():
        return given if given.name == SAVED_MODEL or given.suffix in (".onnx", ".tflite") else None
    version = given if model_file(given) else latest_version(given)
    return model_file(version, explained) if version else None


def newest_model(base: Path = Path()) -> Path:
    """Finds the newest model in ``saved_models/`` or ``runs/``; where there is none, the one that is installed.

    Raises:
        ModelError: If there is none.
    """
    shipped = pretrained_model()
    # Its files are as new as the clone is: of the user's own models it says nothing.
    found = [
        path
        for place in _PLACES
        for path in (base / place).glob("*")
        if _made(path) and not is_pretrained(path, shipped)
    ]
    if not found and shipped is not None:
        return shipped
    if not found:
        raise ModelError(
            "Without --model there must be a model in saved_models/ or runs/",
            received=f"none in {base.resolve()}",
            remedy="Train one (btkeras train --data DATASET --out runs/first) or name one with --model",
        )
    return max(found, key=_made)


def _made(path: Path) -> float:
    """When a model was made, seconds since 1970; 0 if there is none."""
    version = latest_version(path)
    file = model_file(version) if version else path / "best.keras"
    return file.stat().st_mtime if file and file.is_file() else 0.0
