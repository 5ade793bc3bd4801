"""Prediction from Python: files or arrays in, classes and probabilities out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from btkeras.data.decoder import Decoder
from btkeras.errors import ImageError
from btkeras.serving.network import load_network, newest_model

_BATCH = 32
_T = TypeVar("_T")

Image = str | Path | NDArray[np.uint8]


class Predictions(NamedTuple):
    """Attributes:
    labels: The most probable class of each image.
    probabilities: float32 ``[n, classes]``, in the order of ``Predictor.classes``.
    """

    labels: list[str]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class FilePrediction:
    """The answer for one file: a label with its probabilities, or an error.

    Attributes:
        path: As it was given.
        label: The most probable class, "" with an error.
        probabilities: By class name, in the network's order; empty with an error.
        error: Why the file could not be read, or None.
    """

    path: str
    label: str = ""
    probabilities: dict[str, float] = field(default_factory=dict)
    error: str | None = None


class Predictor:
    """A trained network with the preprocessing it was trained with.

    Args:
        model: A run folder or an exported model; without it the newest in ``saved_models/`` or ``runs/``.

    Attributes:
        source: The folder that the network was loaded from.
        classes: Class names, in the order of the probabilities.

    Raises:
        ModelError: If there is no such model.

    Example:
        >>> labels, probabilities = Predictor("runs/first").predict(["slice.png"])  # doctest: +SKIP
    """

    def __init__(self, model: str | Path | None = None) -> None:
        self._network = load_network(newest_model() if model is None else model)
        self._decoder = Decoder(self._network.size, self._network.channels, self._network.harmonise)
        self.source = self._network.source
        self.classes = self._network.classes

    def predict(self, images: Sequence[Image]) -> Predictions:
        """Classifies images.

        Args:
            images: Paths of PNG or JPEG files, or uint8 arrays ``[height, width]`` or ``[height, width, 1 or 3]``.

        Raises:
            ImageError: If one cannot be read; ``predict_files`` answers the others.
        """
        batches = [self._network.probabilities(np.stack(b)) for b in _batches(map(self._read, images), _BATCH)]
        probabilities = np.concatenate(batches) if batches else np.empty((0, len(self.classes)), np.float32)
        return Predictions([self.classes[i] for i in probabilities.argmax(axis=1)], probabilities)

    def predict_files(self, paths: Sequence[str | Path]) -> Iterator[FilePrediction]:
        """Classifies any number of files, one answer each, in their order and in bounded memory."""
        for batch in _batches(zip(paths, self._decoder.files(paths), strict=True), _BATCH):
            yield from self._answers(batch)

    def _answers(self, batch: list[tuple[str | Path, NDArray[np.uint8] | ImageError]]) -> Iterator[FilePrediction]:
        pictures = [picture for _, picture in batch if not isinstance(picture, ImageError)]
        rows = iter(self._network.probabilities(np.stack(pictures))) if pictures else iter(())
        for path, picture in batch:
            if isinstance(picture, ImageError):
                yield FilePrediction(str(path), error=str(picture))
                continue
            row = next(rows)
            probabilities = dict(zip(self.classes, row.tolist(), strict=True))
            yield FilePrediction(str(path), self.classes[int(row.argmax())], probabilities)

    def _read(self, image: Image) -> NDArray[np.uint8]:
        if isinstance(image, str | Path):
            return self._decoder.file(image)
        array = np.asarray(image)
        if array.ndim == 2:
            array = array[..., None]
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] not in (1, 3):
            raise ImageError(
                "An array must be uint8 [height, width] or [height, width, 1 or 3]",
                received=f"{array.dtype} {list(array.shape)}",
            )
        return self._decoder.array(array)


def _batches(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
