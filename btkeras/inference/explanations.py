"""Explanations of predictions: which map is drawn over each slice, and which file it goes to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from btkeras.errors import ConfigError, ModelError
from btkeras.explain.methods import DEFAULT_METHOD, Occlusion, method_of, occlude
from btkeras.files import atomic_file
from btkeras.inference.backends import Explain, InferenceBackend
from btkeras.inference.inputs import SliceRef, opener
from btkeras.inference.overlay import SOFTWARE, Caption, draw_overlay, input_window
from btkeras.inference.predictor import FilePrediction, Predictor
from btkeras.metrics.groups import NO_TUMOR


class Explainer:
    """Draws explanations of a model's predictions.

    An exported model has the default method inside, any model can be explained by ``occlusion``, and the other methods
    need the run. ConfigError if the method is none of ``METHODS``, ModelError if there is no such model, or the method
    needs gradients and it has none.
    """

    def __init__(self, model: str | Path, method: str = DEFAULT_METHOD) -> None:
        chosen = method_of(method)
        self._predictor = Predictor(model)
        backend = self._predictor.backend
        self._open = opener()
        self._coarse = isinstance(chosen, Occlusion)
        self._caption = f"{chosen.title}, model {_model_name(backend)}, {SOFTWARE}"
        self._explain = map_method(backend, method)

    def draw(self, prediction: FilePrediction) -> bytes:
        """The explanation of a prediction's most probable class, as PNG; ImageError if its file cannot be read."""
        file = prediction.file or prediction.path
        slices = self._open(SliceRef(file, prediction.slice, prediction.axis, prediction.channel))
        image = slices.image(prediction.slice)
        index = np.array([self._predictor.classes.index(prediction.label)])
        preprocessor = self._predictor.preprocessor
        (heat,) = self._explain(preprocessor.array(image)[None], index)
        # Without the folders, whose names may be a patient's.
        doubt = map_doubt(prediction, heat, coarse=self._coarse)
        caption = Caption(Path(prediction.path).name, format_prediction(prediction), self._caption, doubt)
        return draw_overlay(image, heat, caption, input_window(image, preprocessor.harmonize))


def _model_name(backend: InferenceBackend) -> str:
    folder = backend.source.resolve()
    return folder.name if backend.version is None else f"{folder.parent.name}, version {backend.version}"


def map_method(backend: InferenceBackend, method: str) -> Explain:
    """What makes a model's maps by a method; ConfigError if there is none, ModelError if it cannot be used here."""
    chosen = method_of(method)
    if isinstance(chosen, Occlusion):

        def predict(covered: NDArray[np.float32]) -> NDArray[np.float32]:
            return backend.predict(covered.astype(np.uint8)).probabilities

        return lambda images, indices: occlude(predict, images.astype(np.float32), indices, chosen)
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


def map_doubt(prediction: FilePrediction, heat: NDArray[np.float32], *, coarse: bool = False) -> str:
    """Why a map ``[rows, columns]`` in 0..1 says little about its prediction, as a sentence; "" if nothing is known.

    ``coarse``: whether its method finds fewer tumours than the default one.
    """
    reasons = {
        "no place speaks for the class": not heat.any(),
        f"the decision is {prediction.decision}": prediction.decision != prediction.label,
        "that there is no tumour has no place": prediction.label == NO_TUMOR,
        "occlusion is coarse": coarse,
    }
    found = [reason for reason, holds in reasons.items() if holds]
    return f"This map says little: {', and '.join(found)}." if found else ""


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
            with atomic_file(target) as temporary:
                temporary.write_bytes(explainer.draw(prediction))
        return prediction

    return map(written, predictions, targets)


def overlay_files(paths: Sequence[str], out: Path) -> list[Path]:
    """Where the overlay of each file goes: ``out`` itself if it ends in ``.png``, else a file each in that folder.

    ConfigError if that cannot be, or would replace something that is no overlay.
    """
    folder = out.is_dir() or not (out.suffix or out.exists())
    targets = [out / name for name in _names(paths)] if folder else [out]
    rule = received = remedy = ""
    if not folder and out.suffix.lower() != ".png":
        rule, remedy = "Explanations are written as PNG, or into a folder", "End the name in .png, or name a folder"
        received = f"{out}, which is a file" if out.exists() else str(out)
    elif not folder and len(paths) > 1:
        rule, remedy = "Explanations of several images go into a folder", "Give a folder's name to --explain"
        received = f"{len(paths)} images and {out}"
    elif replaced := [target for target in targets if target.exists() and not _is_overlay(target)]:
        rule, remedy = "An explanation must not replace another image", "Give another --explain"
        received = str(replaced[0])
    if rule:
        raise ConfigError(rule, received=received, remedy=remedy)
    return targets


def _names(paths: Sequence[str]) -> list[str]:
    """``slice.png``, and ``slice-2.png`` for another file of this name."""
    names: dict[str, None] = {}
    for stem in (Path(path).stem for path in paths):
        candidates = chain([f"{stem}.png"], (f"{stem}-{number}.png" for number in count(2)))
        names[next(name for name in candidates if name not in names)] = None
    return list(names)


def _is_overlay(file: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(file, formats=("PNG",)) as image:
            return str(image.info.get("Software", "")).startswith("btkeras")
    except (OSError, ValueError, SyntaxError):
        return False
