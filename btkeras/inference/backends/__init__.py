"""Inference backends: a run, a SavedModel, a LiteRT or an ONNX file behind one call."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from btkeras.decisions.finite import require_finite
from btkeras.errors import ModelError
from btkeras.files import read_json
from btkeras.inference.model_folder import (
    MANIFEST,
    OOD_SCORE,
    PRETRAINED,
    PROBABILITIES,
    SAVED_MODEL,
    ModelMetadata,
    is_pretrained,
    latest_version,
    model_file,
    pretrained_model,
    version_number,
)
from btkeras.quiet import load_tensorflow, quiet_engine

BATCH = 32
# Modules of this package: of a run, and of an exported file by its suffix.
_RUN, _LIGHT = "keras", "single_file"
_LOADERS = {".pb": "saved_model", ".onnx": _LIGHT, ".tflite": _LIGHT}
NEWEST = "newest"
_MODEL_FOLDERS = ("saved_models", "runs")
_T = TypeVar("_T")


class ModelOutputs(NamedTuple):
    """float32 ``[n, classes]``, and float32 ``[n]`` or None if the model has no OOD score."""

    probabilities: NDArray[np.float32]
    ood_scores: NDArray[np.float32] | None


Predict = Callable[[NDArray[np.uint8]], ModelOutputs]
# Outputs by name.
Signature = Callable[[NDArray[np.uint8]], Mapping[str, Any]]
Explain = Callable[[NDArray[np.uint8], NDArray[np.integer]], NDArray[np.float32]]


@dataclass(frozen=True)
class InferenceBackend(ModelMetadata):
    """A loaded model.

    Attributes:
        source: The folder it was loaded from.
        predict: Outputs for uint8 ``[n, size, size, channels]``; ModelError if they are not finite.
        fast: As ``predict``, in bfloat16 or int8; None unless the engine has both.
        explain: LayerCAM maps, float32 ``[n, size, size]`` in 0..1, for uint8 ``[n, size, size, channels]`` and class
            indices ``[n]``; None if the file has no maps.
        version: The exported version's number; None for a run.
        file: The loaded file; None for a network that was made in memory.
        engine: What runs it, and in which precision, where that is not the format's own.
    """

    source: Path
    predict: Predict
    explain: Explain | None = None
    fast: Predict | None = None
    version: int | None = None
    file: Path | None = None
    engine: str = ""

    def __post_init__(self) -> None:
        # Here, so that no format and no caller can leave it out.
        object.__setattr__(self, "predict", _finite(self.predict, self.file or self.source))
        object.__setattr__(self, "fast", self.fast and _finite(self.fast, self.file or self.source))

    def predict_all(self, images: Iterable[NDArray[np.uint8]]) -> ModelOutputs:
        """Outputs for any number of images ``[size, size, channels]``, in batches."""
        outputs = [self.predict(np.stack(batch)) for batch in batched(images, BATCH)]
        scores = [each.ood_scores for each in outputs if each.ood_scores is not None]
        nothing = np.empty((0, len(self.classes)), np.float32)
        probabilities = np.concatenate([nothing, *(each.probabilities for each in outputs)])
        return ModelOutputs(probabilities, np.concatenate(scores) if scores else None)

    def missing(self) -> str | None:
        """Which parts of a prediction this model cannot give and how to add them; None if it gives all."""
        parts = {
            "prediction sets": self.calibration,
            "abstention threshold": self.calibration and self.calibration.abstention,
            "OOD scores": self.ood_calibration,
        }
        lacking = " and no ".join(name for name, value in parts.items() if value is None)
        run = (self.source / "config.yaml").is_file()
        remedy = f"btkeras calibrate {self.source}" if run else "btkeras calibrate RUN, then export it again"
        return f"{self.source} has no {lacking}; get them with: {remedy}" if lacking else None


def _finite(predict: Predict, source: Path) -> Predict:
    def finite(images: NDArray[np.uint8]) -> ModelOutputs:
        outputs = predict(images)
        # Damaged weights may still load.
        require_finite("outputs", (values for values in outputs if values is not None), source)
        return outputs

    return finite


@dataclass(frozen=True)
class ModelLocation:
    """A run's folder or the file of an exported version, and the module that loads it."""

    path: Path
    loader: str

    @property
    def needs_tensorflow(self) -> bool:
        """Whether loading it imports TensorFlow, which takes seconds."""
        return self.loader != _LIGHT

    def load(self, images: int = BATCH) -> InferenceBackend:
        """Loads it, for about so many images: for many, a faster form or engine is worth its start.

        ModelError if it cannot be used, RunError if it is a run without a checkpoint or with a damaged file.
        """
        if self.needs_tensorflow:
            load_tensorflow()
        load: Callable[..., InferenceBackend] = importlib.import_module(f"{__name__}.{self.loader}").load
        arguments = (self.path, images) if self.loader in (_RUN, _LIGHT) else (self.path,)
        with contextlib.nullcontext() if self.needs_tensorflow else quiet_engine():
            return load(*arguments)


def load_backend(path: str | Path, images: int = BATCH) -> InferenceBackend:
    """Loads a run folder or an exported model; arguments and errors as ``locate`` and ``ModelLocation.load``."""
    return locate(path).load(images)


def locate(path: str | Path, explained: bool = False) -> ModelLocation:
    """Finds a run folder, or an exported model: ``NAME`` (its highest version), ``NAME/VERSION``, or a file in it.

    ``brain_tumour_mri`` is the pretrained model, and ``newest`` is ``newest_model()``, wherever nothing has this name.
    If ``explained``, a format with maps is preferred. ModelError if there is no model.
    """
    given = Path(path)
    if str(given) == NEWEST and not given.exists():
        given = newest_model()
    if given.name == PRETRAINED and not given.exists():
        given = pretrained_model() or given
    if (given / "config.yaml").is_file():
        return ModelLocation(given, _RUN)
    version = given if model_file(given) else latest_version(given)
    file = given if given.is_file() else version and model_file(version, explained)
    if file is None or file.suffix not in _LOADERS or (file.suffix == ".pb" and file.name != SAVED_MODEL):
        raise ModelError(
            "A model must be a run folder or an exported model",
            received=path,
            remedy="Name what was given to `btkeras train --out` or `btkeras export --out`",
        )
    return ModelLocation(file, _LOADERS[file.suffix])


def training_state(file: Path) -> str:
    """How far the training of a model, by its file, is: ``epoch 3 of 36, unfinished``; "" if finished or not known."""
    if file.suffix == ".keras":
        # Imported here because exported models do without.
        from btkeras.runs import Run

        return Run(file.parent).unfinished()
    manifest = file.parent / MANIFEST
    return str(read_json(manifest).get("unfinished", "")) if manifest.is_file() else ""


def training_data(file: Path) -> str:
    """The name of the dataset that a model, by its file, was trained on; "" if it is not known."""
    if file.suffix == ".keras":
        from btkeras.runs import Run

        return Path(str(Run(file.parent).manifest().get("dataset", ""))).name
    manifest = file.parent / MANIFEST
    return str(read_json(manifest).get("dataset", "")) if manifest.is_file() else ""


def default_model() -> Path:
    """The pretrained model; ModelError where this installation has none."""
    if found := pretrained_model():
        return found
    raise ModelError(
        "Without --model btkeras takes its pretrained model",
        received="an installation without it",
        remedy=f"Name a run or an exported model; `{NEWEST}` is the newest of your own",
    )


def newest_model(base: Path = Path()) -> Path:
    """Finds the newest model in ``saved_models/`` or ``runs/`` that is not the pretrained one; ModelError if none."""
    # The pretrained files' times are those of the clone, and say nothing about the user's own models.
    paths = [path for folder in _MODEL_FOLDERS for path in (base / folder).glob("*")]
    own = [path for path in paths if _modified(path) and not is_pretrained(path)]
    if own:
        return max(own, key=_modified)
    raise ModelError(
        f"For --model {NEWEST} there must be a model in saved_models/ or runs/",
        received=f"none in {base.resolve()}",
        remedy="Train one (btkeras train --data DATASET --out runs/first), or name one that lies elsewhere",
    )


def _modified(path: Path) -> float:
    """When a model was written, seconds since 1970; 0 if there is none."""
    version = latest_version(path)
    file = model_file(version) if version else path / "best.keras"
    return file.stat().st_mtime if file and file.is_file() else 0.0


def exported_backend(
    file: Path,
    metadata: ModelMetadata,
    signature: Signature,
    explain: Explain | None = None,
    fast: Signature | None = None,
    engine: str = "",
) -> InferenceBackend:
    """The backend of an exported file, whose outputs ``signature`` gives, and ``fast`` faster, by ``engine``."""
    return InferenceBackend(
        **vars(metadata),
        source=file.parent,
        predict=_outputs_of(signature),
        explain=explain,
        fast=fast and _outputs_of(fast),
        version=version_number(file.parent),
        file=file,
        engine=engine,
    )


def _outputs_of(signature: Signature) -> Predict:
    def predict(images: NDArray[np.uint8]) -> ModelOutputs:
        found = signature(images)
        outputs = {name: np.asarray(found[name]) for name in (PROBABILITIES, OOD_SCORE) if name in found}
        return ModelOutputs(outputs[PROBABILITIES], outputs.get(OOD_SCORE))

    return predict


def batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Lists of up to ``size`` items, as ``itertools.batched`` of Python 3.12."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
