"""Prediction from Python: files or arrays in, classes and probabilities out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from btkeras.datasets.readers import Slices
from btkeras.datasets.readers.images import open_slices
from btkeras.decisions.calibration import COVERAGE, check_coverage
from btkeras.errors import ImageError
from btkeras.inference.backends.base import InferenceBackend, load_backend, newest_model
from btkeras.inference.inputs import SliceRef, opener
from btkeras.inference.processing import FilePrediction, Postprocessor, PreprocessedInput
from btkeras.machine import threads

__all__ = ["FilePrediction", "Predictions", "Predictor"]

_BATCH = 32
# Files opened ahead of the network.
_CHUNK = 256
_T = TypeVar("_T")

Image = str | Path | NDArray[np.uint8]


class Predictions(NamedTuple):
    """Attributes:
    labels: The most probable class of each image.
    probabilities: float32 ``[n, classes]``, in the order of ``Predictor.classes``.
    """

    labels: list[str]
    probabilities: NDArray[np.float32]


class _Read(NamedTuple):
    opened: PreprocessedInput
    number: int
    total: int
    axis: str | None


class Predictor:
    """A trained network with the preprocessing it was trained with.

    Args:
        model: A run folder or an exported model; without it the newest in ``saved_models/`` or ``runs/``.
        coverage: Of the prediction sets: the share of slices like the validation slices whose set has the true class.
        images: About how many it will be asked for, if that is known: a run's network gets faster first, for many.

    Attributes:
        source: The folder that the network was loaded from.
        file: The file of it that answers.
        classes: Class names, in the order of the probabilities.
        missing: What the answers lack because the model was not calibrated, and how to get it; None if nothing.

    Raises:
        ModelError: If there is no such model.
        ConfigError: If the coverage is not above 0 and below 1.

    Example:
        >>> labels, probabilities = Predictor("runs/first").predict(["slice.png"])  # doctest: +SKIP
    """

    def __init__(self, model: str | Path | None = None, *, coverage: float = COVERAGE, images: int = 1) -> None:
        check_coverage(coverage)
        self._network = load_backend(newest_model() if model is None else model, images)
        self._answering = Postprocessor.of(self._network, coverage)
        self.source = self._network.source
        self.file = self._network.file or self.source
        self.classes = self._network.classes
        self.missing = self._network.missing()

    @property
    def network(self) -> InferenceBackend:
        """What answers."""
        return self._network

    def predict(self, images: Sequence[Image]) -> Predictions:
        """Classifies images.

        Args:
            images: Paths of PNG, JPEG, DICOM or NIfTI files, of which the middle slice is taken, or uint8 arrays
                ``[height, width]`` or ``[height, width, 1 or 3]``.

        Raises:
            ImageError: If one cannot be read; ``predict_files`` answers the others.
        """
        batches = [self._network.probabilities(np.stack(b)) for b in _batches(map(self._read, images), _BATCH)]
        probabilities = np.concatenate(batches) if batches else np.empty((0, len(self.classes)), np.float32)
        return Predictions([self.classes[i] for i in probabilities.argmax(axis=1)], probabilities)

    def predict_files(self, files: Sequence[str | Path | SliceRef]) -> Iterator[FilePrediction]:
        """Classifies any number of slices, one answer each, in their order and in bounded memory.

        Args:
            files: Paths, of which the middle slice is taken, or ``serving.references`` to slices.

        Raises:
            MissingExtraError: If one is DICOM or NIfTI and ``btkeras[medical]`` is not installed.
        """
        refs = [file if isinstance(file, SliceRef) else SliceRef(str(file)) for file in files]
        opened = partial(self._open, opener())
        with ThreadPoolExecutor(threads()) as pool:
            for some in _batches(refs, _CHUNK):
                for batch in _batches(zip(some, pool.map(opened, some), strict=True), _BATCH):
                    yield from self._answers(batch)

    def _open(self, opened: Callable[[SliceRef], Slices], ref: SliceRef) -> _Read | ImageError:
        try:
            slices = opened(ref)
            number = ref.number(slices)
            image = self._answering.open(slices.image(number), slices.rejection)
            return _Read(image, number, slices.count, slices.axis or None)
        except ImageError as error:
            return error

    def _answers(self, batch: list[tuple[SliceRef, _Read | ImageError]]) -> Iterator[FilePrediction]:
        opened = [item.opened for _, item in batch if not isinstance(item, ImageError)]
        known = iter(self._known(opened) if opened else ())
        for ref, item in batch:
            if isinstance(item, ImageError):
                yield FilePrediction(ref.path, error=str(item), file=ref.path)
            else:
                path = f"{ref.path}#{item.number}" if item.total > 1 else ref.path
                answer = replace(next(known), path=path, file=ref.path)
                yield replace(answer, slice=item.number, slices=item.total, axis=item.axis)

    def _known(self, opened: list[PreprocessedInput]) -> Iterator[FilePrediction]:
        """The answers to images, without their paths."""
        probabilities, scores = self._network.observe(np.stack([item.pixels for item in opened]))
        return iter(self._answering.answers(probabilities, scores, [item.rejection for item in opened]))

    def _read(self, image: Image) -> NDArray[np.uint8]:
        if isinstance(image, str | Path):
            slices = open_slices(image)
            return self._answering.decoder.array(slices.image(slices.middle))
        array = np.asarray(image)
        if array.ndim == 2:
            array = array[..., None]
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] not in (1, 3):
            raise ImageError(
                "An array must be uint8 [height, width] or [height, width, 1 or 3]",
                received=f"{array.dtype} {list(array.shape)}",
            )
        return self._answering.decoder.array(array)


def _batches(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
