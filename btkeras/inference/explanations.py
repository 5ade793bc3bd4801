"""Explanations of predictions: which map is drawn over each slice, and which file it goes to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from btkeras.errors import ConfigError, ModelError
from btkeras.explain.methods import DEFAULT_METHOD, Occlusion, method_of, occlude
from btkeras.files import atomic_file
from btkeras.inference.backends import Explain, InferenceBackend, load_backend
from btkeras.inference.inputs import SliceRef, opener
from btkeras.inference.overlay import SOFTWARE, Caption, draw_overlay, input_window
from btkeras.inference.predictor import FilePrediction
from btkeras.preprocessing.preprocessor import Preprocessor


class Explainer:
    """Draws explanations of a model's predictions.

    Args:
        model: A run folder, or an exported model. A SavedModel has the default method inside, any model can be
            explained by ``occlusion``, and the other methods need the run.
        method: A key of ``explain.methods.METHODS``.

    Raises:
        ConfigError: If there is no such method.
        ModelError: If there is no such model, or the method needs gradients and it has none.
    """

    def __init__(self, model: str | Path, method: str = DEFAULT_METHOD) -> None:
        title = method_of(method).title
        backend = load_backend(model)
        self._preprocessor = Preprocessor(backend.size, backend.channels, backend.harmonize)
        self._classes = backend.classes
        self._open = opener()
        self._caption = f"{title} ({method}), {SOFTWARE}, model {backend.source.name}"
        self._explain = _explain(backend, method)

    def draw(self, prediction: FilePrediction) -> bytes:
        """The explanation of a prediction's most probable class, as PNG; ImageError if its file cannot be read."""
        slices = self._open(SliceRef(prediction.file or prediction.path, prediction.slice, prediction.axis))
        image = slices.image(prediction.slice)
        index = np.array([self._classes.index(prediction.label)])
        heat = self._explain(self._preprocessor.array(image)[None], index)[0]
        caption = Caption(prediction.path, format_prediction(prediction), self._caption)
        return draw_overlay(image, heat, caption, input_window(image, self._preprocessor.harmonize))


def _explain(backend: InferenceBackend, method: str) -> Explain:
    chosen = method_of(method)
    if isinstance(chosen, Occlusion):
        return lambda images, indices: occlude(
            lambda covered: backend.predict(covered.astype(np.uint8)).probabilities,
            images.astype(np.float32),
            indices,
            chosen,
        )
    if method == DEFAULT_METHOD and backend.explain:
        return backend.explain
    if not (backend.source / "config.yaml").is_file():
        raise ModelError(
            f"The method {method} needs the network of a run, whose gradients it takes",
            received=f"{backend.source}, an exported model without it",
            remedy="Name the run with --model, or take --method occlusion",
        )
    from btkeras.evaluation.evaluate import load_best
    from btkeras.explain.cam import explainer
    from btkeras.runs import open_run

    return explainer(load_best(open_run(backend.source)), method)


def format_prediction(prediction: FilePrediction) -> str:
    """Decision, class and probability in one line."""
    best = f"{prediction.label}, probability {prediction.probabilities[prediction.label]:.3f}"
    return best if prediction.decision == prediction.label else f"{prediction.decision} (most probable: {best})"


def write_overlays(
    predictions: Iterable[FilePrediction], refs: Sequence[SliceRef], model: Path, out: Path, method: str | None = None
) -> Iterator[FilePrediction]:
    """Passes the slices' predictions on, each after its overlay was written; those with an error have none.

    Arguments as for ``Explainer`` and ``overlay_files``, whose errors come before the first prediction.
    """
    method_of(method or DEFAULT_METHOD)
    targets = overlay_files([ref.image_name for ref in refs], out)
    explainer = Explainer(model, method or DEFAULT_METHOD)

    def written(prediction: FilePrediction, target: Path) -> FilePrediction:
        if not prediction.error:
            data = explainer.draw(prediction)
            with atomic_file(target) as temporary:
                temporary.write_bytes(data)
        return prediction

    return (written(prediction, target) for prediction, target in zip(predictions, targets, strict=True))


def overlay_files(paths: Sequence[str], out: Path) -> list[Path]:
    """Where the overlay of each file goes: ``out`` itself if it ends in ``.png``, else a file each in that folder.

    Raises:
        ConfigError: If that cannot be, or would replace something that is no overlay.
    """
    if out.is_dir() or not (out.suffix or out.exists()):
        targets = [out / name for name in _names(paths)]
    elif out.suffix.lower() != ".png":
        raise ConfigError(
            "Explanations are written as PNG, or into a folder",
            received=f"{out}, which is a file" if out.exists() else out,
            remedy="End the name in .png, or name a folder",
        )
    elif len(paths) > 1:
        raise ConfigError(
            "Explanations of several images go into a folder",
            received=f"{len(paths)} images and {out}",
            remedy="Give a folder's name to --explain",
        )
    else:
        targets = [out]
    for target in targets:
        if target.exists() and not _is_overlay(target):
            raise ConfigError(
                "An explanation must not replace another image", received=target, remedy="Give another --explain"
            )
    return targets


def _names(paths: Sequence[str]) -> list[str]:
    """``slice.png``, and ``slice-2.png`` for another file of this name."""
    names: dict[str, None] = {}
    for path in paths:
        stem = name = Path(path).stem
        number = 1
        while f"{name}.png" in names:
            number += 1
            name = f"{stem}-{number}"
        names[f"{name}.png"] = None
    return list(names)


def _is_overlay(file: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(file, formats=("PNG",)) as image:
            return str(image.info.get("Software", "")).startswith("btkeras")
    except (OSError, ValueError, SyntaxError):
        return False
