"""Explanations of files: which network explains them, and where the images go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from btkeras.errors import ConfigError, ModelError
from btkeras.explain.methods import DEFAULT_METHOD, Occlusion, method_of, occlude
from btkeras.files import atomic_file
from btkeras.inference.backends.base import Explain, load_backend
from btkeras.inference.inputs import SliceRef, opener
from btkeras.inference.overlay import SOFTWARE, Caption, draw_overlay, seen_window
from btkeras.inference.predictor import FilePrediction
from btkeras.preprocessing.preprocessor import Preprocessor

_Explain = Callable[[NDArray[np.uint8], int], NDArray[np.float32]]


class Explainer:
    """Draws what a network's answers rest on.

    Args:
        model: A run folder, or an exported model: a SavedModel has the default method inside, and anything can be
            explained by ``occlusion``.
        method: A key of ``evaluation.explain.METHODS``.

    Raises:
        ConfigError: If there is no such method.
        ModelError: If there is no such model, or it has no gradients and the method needs them.
    """

    def __init__(self, model: str | Path, method: str = DEFAULT_METHOD) -> None:
        chosen = method_of(method)
        network = load_backend(model)
        self._decoder = Preprocessor(network.size, network.channels, network.harmonize)
        self._classes = network.classes
        self._opened = opener()
        self._caption = f"{chosen.title} ({method}), {SOFTWARE}, model {network.source.name}"
        if isinstance(chosen, Occlusion):
            settings = chosen

            def probabilities(images: NDArray[np.float32]) -> NDArray[np.float32]:
                return network.observe(images.astype(np.uint8))[0]

            self._explain: _Explain = lambda image, index: occlude(
                probabilities, image[None].astype(np.float32), np.array([index]), settings
            )[0]
        else:
            own = network.explain if method == DEFAULT_METHOD else None
            maps = own or _from_run(network.source, method)
            self._explain = lambda image, index: maps(image[None], np.array([index]))[0]

    def image(self, answer: FilePrediction) -> bytes:
        """The overlay of one file, as PNG: what speaks for its most probable class.

        Args:
            answer: For a file that could be read.

        Raises:
            ImageError: If it can no longer be read.
        """
        opened = self._opened(SliceRef(answer.file or answer.path, answer.slice, answer.axis))
        stored = opened.image(answer.slice)
        heat = self._explain(self._decoder.array(stored), self._classes.index(answer.label))
        caption = Caption(answer.path, in_words(answer), self._caption)
        return draw_overlay(stored, heat, caption, seen_window(stored, self._decoder.harmonize))

    def write(self, answer: FilePrediction, target: Path) -> None:
        """Writes the overlay of one file; errors as ``image``."""
        data = self.image(answer)
        with atomic_file(target) as temporary:
            temporary.write_bytes(data)


def in_words(answer: FilePrediction) -> str:
    """An answer in one line."""
    best = f"{answer.label}, probability {answer.probabilities[answer.label]:.3f}"
    return best if answer.decision == answer.label else f"{answer.decision} (most probable: {best})"


def overlays(
    answers: Iterable[FilePrediction], refs: Sequence[SliceRef], model: Path, out: Path, method: str | None = None
) -> Iterator[FilePrediction]:
    """Passes answers on, each after its overlay was written; those of files that cannot be read have none.

    Args:
        answers: One for each of ``refs``, in their order.
        refs: The slices.
        model: As for ``Explainer``.
        out: As for ``overlay_files``.
        method: As for ``Explainer``.

    Raises:
        ConfigError: Before the first answer is asked for, if there is no such method or no place for the overlays.
        ModelError: Likewise, as ``Explainer``.
    """
    method_of(method or DEFAULT_METHOD)
    targets = overlay_files([ref.image_name for ref in refs], out)
    made = Explainer(model, method or DEFAULT_METHOD)
    return (_written(answer, made, target) for answer, target in zip(answers, targets, strict=True))


def _written(answer: FilePrediction, made: Explainer, target: Path) -> FilePrediction:
    if not answer.error:
        made.write(answer, target)
    return answer


def _from_run(folder: Path, method: str) -> Explain:
    if not (folder / "config.yaml").is_file():
        raise ModelError(
            f"The method {method} needs the network of a run, whose gradients it takes",
            received=f"{folder}, an exported model without it",
            remedy="Name the run with --model, or take --method occlusion",
        )
    from btkeras.evaluation.evaluate import load_best
    from btkeras.explain.cam import explainer
    from btkeras.runs import open_run

    return explainer(load_best(open_run(folder)), method)


def overlay_files(paths: Sequence[str], out: Path) -> list[Path]:
    """Where the overlay of each file goes: ``out`` itself if it ends in ``.png``, else a file each in that folder.

    Raises:
        ConfigError: If that cannot be, or would replace something that is no overlay.
    """
    if out.suffix.lower() == ".png" and not out.is_dir():
        if len(paths) > 1:
            raise ConfigError(
                "Explanations of several images go into a folder",
                received=f"{len(paths)} images and {out}",
                remedy="Give a folder's name to --explain",
            )
        targets = [out]
    elif out.suffix and not out.is_dir():
        raise ConfigError(
            "Explanations are written as PNG, or into a folder", received=out, remedy="End the name in .png"
        )
    elif out.exists() and not out.is_dir():
        raise ConfigError("Explanations go into a folder", received=f"{out}, which is a file", remedy="Name another")
    else:
        targets = [out / name for name in _names(paths)]
    for target in targets:
        if target.exists() and not _is_overlay(target):
            raise ConfigError(
                "An explanation must not replace another image", received=target, remedy="Give another --explain"
            )
    return targets


def _names(paths: Sequence[str]) -> list[str]:
    """``slice.png``, and ``slice-2.png`` for another file of this name."""
    seen: Counter[str] = Counter()
    names: list[str] = []
    taken: set[str] = set()
    for path in paths:
        stem = Path(path).stem
        seen[stem] += 1
        name = f"{stem}.png" if seen[stem] == 1 else f"{stem}-{seen[stem]}.png"
        while name in taken:
            seen[stem] += 1
            name = f"{stem}-{seen[stem]}.png"
        taken.add(name)
        names.append(name)
    return names


def _is_overlay(file: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(file, formats=("PNG",)) as image:
            return str(image.info.get("Software", "")).startswith("btkeras")
    except (OSError, ValueError, SyntaxError):
        return False
