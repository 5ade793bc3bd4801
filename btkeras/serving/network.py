"""A trained network behind one call, whether it comes from a run folder or from an exported SavedModel."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from btkeras.errors import ModelError

SAVED_MODEL = "saved_model.pb"
MANIFEST = Path("assets.extra") / "manifest.json"
_PLACES = ("saved_models", "runs")


@dataclass(frozen=True)
class Network:
    """Attributes:
    source: The folder it was loaded from.
    classes: Names of its outputs.
    size: Side of its input, pixels.
    channels: Channels of its input.
    harmonise: Whether its input is cropped to the head and put on one scale of intensity.
    probabilities: From uint8 ``[n, size, size, channels]`` to float32 ``[n, classes]``.
    """

    source: Path
    classes: tuple[str, ...]
    size: int
    channels: int
    harmonise: bool
    probabilities: Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def load_network(path: str | Path) -> Network:
    """Loads a run folder, or an exported model: ``NAME`` (its highest version) or ``NAME/VERSION``.

    Raises:
        ModelError: If it is neither.
    """
    folder = Path(path)
    if (folder / "config.yaml").is_file():
        return _from_run(folder)
    version = folder if (folder / SAVED_MODEL).is_file() else latest_version(folder)
    if version is not None:
        return _from_saved_model(version)
    raise ModelError(
        "A model must be a run folder or an exported model",
        received=path,
        remedy="Name what was given to `btkeras train --out` or `btkeras export --out`",
    )


def newest_model(base: Path = Path()) -> Path:
    """Finds the newest model in ``saved_models/`` or ``runs/``.

    Raises:
        ModelError: If there is none.
    """
    found = [path for place in _PLACES for path in (base / place).glob("*") if _made(path)]
    if not found:
        raise ModelError(
            "Without --model there must be a model in saved_models/ or runs/",
            received=f"none in {base.resolve()}",
            remedy="Train one (btkeras train --data DATASET --out runs/first) or name one with --model",
        )
    return max(found, key=_made)


def latest_version(folder: Path) -> Path | None:
    """The highest version of an exported model, or None."""
    versions = [path.parent for path in folder.glob(f"*/{SAVED_MODEL}") if path.parent.name.isdigit()]
    return max(versions, key=lambda path: int(path.name), default=None)


def _made(path: Path) -> float:
    """When a model was made, seconds since 1970; 0 if there is none."""
    version = latest_version(path)
    file = version / SAVED_MODEL if version else path / "best.keras"
    return file.stat().st_mtime if file.is_file() else 0.0


def _from_run(folder: Path) -> Network:
    from btkeras.evaluation.evaluate import load_best
    from btkeras.runs import open_run

    run = open_run(folder)
    model, config = load_best(run), run.config()
    return Network(
        folder,
        run.classes(),
        config.data.image_size,
        config.data.channels,
        config.data.harmonise,
        lambda images: np.asarray(model.predict_on_batch(images.astype(np.float32))),
    )


def _from_saved_model(folder: Path) -> Network:
    import tensorflow as tf

    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        loaded = tf.saved_model.load(str(folder))
        # Models exported before there was a choice have neither this key nor this signature.
        harmonise = manifest.get("harmonise", False)
        signature = "serving_prepared" if "serving_prepared" in loaded.signatures else "serving_pixels"
        loaded.signatures[signature]
        classes, size, channels = manifest["classes"], manifest["image_size"], manifest["channels"]
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            "An exported model must be whole and made by `btkeras export`", received=f"{folder} ({error})"
        ) from error

    def probabilities(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        # Not the signature alone, which holds its variables weakly: `loaded` has to live as long as this function.
        return np.asarray(loaded.signatures[signature](images=tf.constant(images))["probabilities"])

    return Network(folder, tuple(classes), size, channels, harmonise, probabilities)
