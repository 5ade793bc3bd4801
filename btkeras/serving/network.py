"""A trained network behind one call, whether it comes from a run folder or from an exported SavedModel."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from btkeras.errors import ModelError, RunError
from btkeras.evaluation.calibration import FILE as CALIBRATION
from btkeras.evaluation.calibration import Calibration, load_calibration
from btkeras.evaluation.outliers import Reference, load_outliers, with_features

SAVED_MODEL = "saved_model.pb"
EXTRA = Path("assets.extra")
MANIFEST = EXTRA / "manifest.json"
OUTLIERS = "outliers.json"
_PLACES = ("saved_models", "runs")


Observation = tuple[NDArray[np.float32], NDArray[np.float32] | None]


@dataclass(frozen=True)
class Network:
    """Attributes:
    source: The folder it was loaded from.
    classes: Names of its outputs.
    size: Side of its input, pixels.
    channels: Channels of its input.
    harmonise: Whether its input is cropped to the head and put on one scale of intensity.
    observe: From uint8 ``[n, size, size, channels]`` to probabilities, float32 ``[n, classes]``, and to outlier
        scores, float32 ``[n]``, or None if it has none.
    calibration: What prediction sets are made from; None if it was not calibrated.
    reference: What outlier scores are compared with; None if it has none.
    """

    source: Path
    classes: tuple[str, ...]
    size: int
    channels: int
    harmonise: bool
    observe: Callable[[NDArray[np.uint8]], Observation]
    calibration: Calibration | None
    reference: Reference | None

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
    model, config, classes = load_best(run), run.config(), run.classes()
    calibration, outliers = load_calibration(run, model), load_outliers(run)
    network = with_features(model)

    def observe(images: NDArray[np.uint8]) -> Observation:
        outputs = np.asarray(network.predict_on_batch(images.astype(np.float32)))
        probabilities, features = np.split(outputs, [len(classes)], axis=1)
        return probabilities, outliers.score(features) if outliers else None

    reference = outliers.reference if outliers else None
    data = config.data
    return Network(folder, classes, data.image_size, data.channels, data.harmonise, observe, calibration, reference)


def _from_saved_model(folder: Path) -> Network:
    import tensorflow as tf

    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        loaded = tf.saved_model.load(str(folder))
        # Models exported before there was a choice have neither this key nor this signature.
        harmonise = manifest.get("harmonise", False)
        signature = "serving_prepared" if "serving_prepared" in loaded.signatures else "serving_pixels"
        loaded.signatures[signature]
        classes, size, channels = tuple(manifest["classes"]), manifest["image_size"], manifest["channels"]
        calibration, reference = _extra(folder / EXTRA)
    except (OSError, ValueError, KeyError, TypeError, RunError) as error:
        raise ModelError(
            "An exported model must be whole and made by `btkeras export`", received=f"{folder} ({error})"
        ) from error

    def observe(images: NDArray[np.uint8]) -> Observation:
        # Not the signature alone, which holds its variables weakly: `loaded` has to live as long as this function.
        answer = loaded.signatures[signature](images=tf.constant(images))
        scores = answer.get("outlier_score")
        return np.asarray(answer["probabilities"]), None if scores is None else np.asarray(scores)

    return Network(folder, classes, size, channels, harmonise, observe, calibration, reference)


def _extra(folder: Path) -> tuple[Calibration | None, Reference | None]:
    """What an export carries beside the graph, as far as its run had it."""
    found = {
        name: json.loads((folder / name).read_text(encoding="utf-8"))
        for name in (CALIBRATION, OUTLIERS)
        if (folder / name).is_file()
    }
    calibration = Calibration.from_json(found[CALIBRATION]) if CALIBRATION in found else None
    reference = Reference(np.array(found[OUTLIERS]["scores"], np.float32)) if OUTLIERS in found else None
    return calibration, reference
