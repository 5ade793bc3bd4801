"""The saved state of a training: weights, optimizer and progress, in one file that is replaced in one rename."""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from btkeras.checksums import check_file, recorded_file
from btkeras.errors import RunError
from btkeras.runs import Run

_PROGRESS = "progress"


@dataclass
class Progress:
    """Attributes:
    epochs: Epochs that are finished.
    history: A row per finished epoch.
    best: The best checkpoint's validation metrics, empty before the first.
    best_epoch: Epoch of the best checkpoint, counted from 1; 0 before the first.
    seconds: Time spent in training so far.
    finished: Whether the training came to its end.
    wanted: Epochs that it was to have; 0 in states of earlier versions.
    """

    epochs: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)
    best_epoch: int = 0
    seconds: float = 0.0
    finished: bool = False
    wanted: int = 0


def state_of(model: keras.Model) -> dict[str, NDArray[Any]]:
    """Copies the weights and the optimizer's state, which the next step changes; data and augmentation have none."""
    return {name: np.array(variable) for name, variable in _variables(model).items()}


def save_state(target: Path, state: Mapping[str, NDArray[Any]], progress: Progress) -> None:
    """Writes what ``state_of`` gives, or nothing of it, and the progress."""
    with recorded_file(target) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **{**state, _PROGRESS: np.array(json.dumps(asdict(progress)))})


def load_progress(source: Path) -> Progress:
    """Reads only the progress."""
    with _opened(source) as arrays:
        return Progress(**json.loads(str(arrays[_PROGRESS])))


def has_weights(source: Path) -> bool:
    """Whether a state holds more than the progress."""
    with _opened(source) as arrays:
        return len(arrays.files) > 1


def restore_state(source: Path, model: keras.Model) -> None:
    """Puts weights and optimizer state into a compiled model whose optimizer is built.

    Raises:
        RunError: If the file cannot be read or belongs to another network or optimizer; nothing is changed then.
    """
    variables = _variables(model)
    with _opened(source) as arrays:
        different = set(arrays.files) ^ {*variables, _PROGRESS}
        different |= {name for name in variables.keys() - different if arrays[name].shape != variables[name].shape}
        if different:
            raise RunError(
                "The saved state must belong to this network and optimizer",
                received=f"{source}, which differs in {len(different)} variables, {min(different)} among them",
                remedy="Resume with the configuration that the run was started with",
            )
        for name, variable in variables.items():
            variable.assign(arrays[name])


def _variables(model: keras.Model) -> dict[str, keras.Variable]:
    weights = {id(variable) for variable in model.weights}
    # Random generators' states, of dropout say, are no weights. Generators' paths and an optimizer's own name, the
    # first part of its variables' paths, are counted up within a process.
    states = {
        f"model/{layer.name}/random_state_{number}": variable
        for layer in model.layers
        for number, variable in enumerate(v for v in layer.variables if id(v) not in weights)
    }
    optimizer = {f"optimizer/{variable.path.partition('/')[2]}": variable for variable in model.optimizer.variables}
    return {**{f"model/{variable.path}": variable for variable in model.weights}, **states, **optimizer}


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[np.lib.npyio.NpzFile]:
    check_file(source)
    # Opened here and not by NumPy, which leaves the file open when it is no zip.
    with source.open("rb") as file:
        try:
            arrays = np.load(file, allow_pickle=False)
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise RunError(
                "A run's saved state must be readable",
                received=f"{source} ({error})",
                remedy="Without it the run cannot go on: start a new one",
            ) from error
        yield arrays


def require_checkpoint(run: Run, progress: Progress) -> None:
    """Raises ``RunError`` if no epoch of a training was good."""
    if not progress.best:
        raise RunError(
            "A training must have an epoch whose validation loss and weights are finite",
            received=f"none of {progress.epochs} in {run.path}",
            remedy=f"In a new run, lower optimizer.learning_rate ({run.config().optimizer.learning_rate:g})",
        )


def record_result(run: Run, progress: Progress) -> None:
    """Writes to the manifest what came of a training; its speed counts the validations' time too."""
    # A run of an older revision has no number of images, and so no speed.
    images = run.manifest().get("images_per_epoch")
    run.update_manifest(
        best_epoch=progress.best_epoch,
        epochs=progress.epochs,
        training_seconds=round(progress.seconds, 1),
        training_images_per_second=round(images * progress.epochs / progress.seconds, 1) if images else None,
    )
