"""Prediction from Python: files or arrays in, classes and probabilities out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from btkeras.datasets.readers import Slices, check
from btkeras.datasets.readers.formats import open_slices
from btkeras.decisions.calibration import COVERAGE, check_coverage
from btkeras.decisions.selective_classifier import SelectiveClassifier
from btkeras.errors import ImageError
from btkeras.inference.backends import (
    BATCH,
    InferenceBackend,
    ModelOutputs,
    batched,
    default_model,
    load_backend,
    training_state,
)
from btkeras.inference.inputs import Opener, SliceRef, opener
from btkeras.inference.mixed_precision import MixedPrecision
from btkeras.inference.model_folder import known_slices
from btkeras.logging import logger
from btkeras.machine import map_in_threads
from btkeras.preprocessing.harmonize import find_head
from btkeras.preprocessing.mri_check import rejection_reason
from btkeras.preprocessing.preprocessor import Preprocessor, to_channels, without_equal_channels
from btkeras.splitting.known_slices import slice_hashes

Image = str | Path | NDArray[np.uint8]


@dataclass(frozen=True)
class FilePrediction:
    """The prediction for one slice of a file, or an error.

    Attributes:
        path: As it was given; with ``#`` and the slice's number if the file has several.
        label: The most probable class, whatever the decision; "" with an error.
        probabilities: By class name, in the model's order; empty with an error.
        error: Why the file could not be read, or None.
        decision: A class, ``uncertain`` or ``rejected``, of ``SelectiveClassifier``; "" with an error, and of a server
            that decides nothing.
        set: Prediction set: the classes that cannot be ruled out at the wanted coverage; None without calibration.
        ood_percentile: Percent of the calibration slices whose OOD score is at most this one's; None without them.
        reasons: Why the decision is no class.
        near_duplicate: Of which subset's slice the image is a near-duplicate: ``train``, ``validation`` or ``none``;
            None if the model has no hashes of them.
        file: The path without a slice's number.
        slice: Which slice of the file it is, from 0.
        slices: How many the file has; 0 with an error.
        axis: The view of a NIfTI volume, None otherwise.
        channel: Which of several volumes in the file was chosen, None otherwise.
    """

    path: str
    label: str = ""
    probabilities: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    decision: str = ""
    set: tuple[str, ...] | None = None
    ood_percentile: float | None = None
    reasons: tuple[str, ...] = ()
    near_duplicate: str | None = None
    file: str = ""
    slice: int = 0
    slices: int = 0
    axis: str | None = None
    channel: int | None = None


class PreprocessedInput(NamedTuple):
    """The network's input, why the image is no brain MRI slice, its prediction but for the network's outputs, and its
    ``slice_hashes``.
    """

    pixels: NDArray[np.uint8]
    rejection: str | None
    place: FilePrediction = FilePrediction("")
    hashes: NDArray[np.uint8] | None = None


def place_of(ref: SliceRef, slices: Slices, number: int) -> FilePrediction:
    """A prediction that only has the slice's place: path, file, slice, slices, axis and channel."""
    path = f"{ref.path}#{number}" if slices.count > 1 else ref.path
    axis = slices.axis or None
    return FilePrediction(path, file=ref.path, slice=number, slices=slices.count, axis=axis, channel=ref.channel)


class Predictions(NamedTuple):
    """The most probable class of each image, and float32 ``[n, classes]`` in the order of ``Predictor.classes``."""

    labels: list[str]
    probabilities: NDArray[np.float32]


class Predictor:
    """A trained model with its preprocessing; ``classes`` has the names in the order of the probabilities.

    Args:
        model: A run folder, an exported model or a loaded one; by default the pretrained one.
        coverage: Of the prediction sets: the share of slices like the calibration slices whose set has the true class.
        images: About how many will be predicted: for many, a faster form or engine is worth its start; one takes less
            memory.

    Raises:
        ModelError: If there is no such model.
        ConfigError: If the coverage is not above 0 and below 1.

    Example:
        >>> labels, probabilities = Predictor("runs/first").predict(["slice.png"])  # doctest: +SKIP
    """

    def __init__(
        self, model: str | Path | InferenceBackend | None = None, *, coverage: float = COVERAGE, images: int = BATCH
    ) -> None:
        check_coverage(coverage)
        if not isinstance(model, InferenceBackend):
            model = load_backend(default_model() if model is None else model, images)
        self.backend = model
        self.classes = model.classes
        self.preprocessor = Preprocessor(model.size, model.channels, model.harmonize)
        self.known = known_slices(model.source)
        self.selective = SelectiveClassifier(model.classes, model.calibration, model.ood_calibration, coverage)
        self._mixed = MixedPrecision(model.fast, model.predict, self.selective) if model.fast else None

    @cached_property
    def unfinished(self) -> str:
        """How far the model's training is, ``epoch 3 of 36, unfinished``; "" if it is finished or not known."""
        return training_state(self.backend.file) if self.backend.file else ""

    def preprocess(
        self, image: NDArray[np.uint8], rejection: str | None = None, *, recognize: bool = True
    ) -> PreprocessedInput:
        """Preprocesses a decoded image, uint8 ``[height, width, 1 or 3]``, and checks that it is a brain MRI slice.

        If the file is rejected already (``Slices.rejection``), its pixels are not checked. Without ``recognize`` it
        has no hashes, and ``near_duplicate`` says nothing.
        """
        image = without_equal_channels(image)
        recognize = recognize and bool(self.known)
        head = find_head(to_channels(image, 1)[..., 0]) if recognize or self.preprocessor.harmonize else None
        pixels, hashes = self.preprocessor.array(image, head), slice_hashes(image, head) if recognize else None
        return PreprocessedInput(pixels, rejection or rejection_reason(image), hashes=hashes)

    def outputs(self, pixels: NDArray[np.uint8]) -> ModelOutputs:
        """The backend's outputs for preprocessed images ``[n, size, size, channels]``, n >= 1.

        In bfloat16 or int8 where the engine has that, and in float32 where a decision is close.
        """
        return (self._mixed or self.backend).predict(pixels)

    def postprocess(self, outputs: ModelOutputs, inputs: Sequence[PreprocessedInput]) -> list[FilePrediction]:
        """Turns a backend's outputs for ``inputs`` into predictions."""
        decisions = self.selective.decisions(*outputs, [each.rejection for each in inputs])
        named = [dict(zip(self.classes, row.tolist(), strict=True)) for row in outputs.probabilities]
        labels = self._labels(outputs.probabilities)
        near = self.known.find([each.hashes for each in inputs]) if self.known else [None] * len(inputs)
        return [
            replace(each.place, label=label, probabilities=probabilities, near_duplicate=known, **vars(decision))
            for each, label, probabilities, decision, known in zip(inputs, labels, named, decisions, near, strict=True)
        ]

    def predict(self, images: Sequence[Image]) -> Predictions:
        """Classifies images.

        Args:
            images: Paths of images, DICOM or NIfTI files (their middle slice is taken), or uint8 arrays
                ``[height, width]`` or ``[height, width, 1 or 3]``.

        Raises:
            ImageError: If one cannot be read, for which ``predict_files`` predicts the others; or if they are no list.
        """
        if isinstance(images, str | Path):
            raise ImageError("Images must be a list", received=repr(str(images)), remedy="predict([PATH])")
        if self.unfinished:
            logger.warning(f"the training of {self.backend.file}: {self.unfinished}")
        probabilities = self.backend.predict_all(map(self._pixels, images)).probabilities
        return Predictions(self._labels(probabilities), probabilities)

    def predict_files(self, files: Sequence[str | Path | SliceRef]) -> Iterator[FilePrediction]:
        """Classifies any number of files (their middle slice is taken) or slices, in their order, in bounded memory.

        MissingExtraError if one is DICOM or NIfTI and ``btkeras[medical]`` is not installed.
        """
        refs = [file if isinstance(file, SliceRef) else SliceRef(str(file)) for file in files]
        read = partial(self._read, opener())
        # While the network has a batch, the next one is read.
        for batch in batched(map_in_threads(read, refs, ahead=BATCH), BATCH):
            yield from self._predictions(batch)

    def _labels(self, probabilities: NDArray[np.float32]) -> list[str]:
        return [self.classes[i] for i in probabilities.argmax(axis=1)]

    def _read(self, open_file: Opener, ref: SliceRef) -> PreprocessedInput | FilePrediction:
        """A slice's input, or the error as its prediction."""
        try:
            slices = open_file(ref)
            number = ref.number(slices)
            item = self.preprocess(slices.image(number), slices.rejection)
        except ImageError as error:
            return FilePrediction(ref.path, error=str(error), file=ref.path)
        return item._replace(place=place_of(ref, slices, number))

    def _predictions(self, batch: Sequence[PreprocessedInput | FilePrediction]) -> Iterator[FilePrediction]:
        inputs = [item for item in batch if isinstance(item, PreprocessedInput)]
        pixels = [item.pixels for item in inputs]
        outputs = self.outputs(np.stack(pixels)) if pixels else self.backend.predict_all(pixels)
        predictions = iter(self.postprocess(outputs, inputs))
        return (item if isinstance(item, FilePrediction) else next(predictions) for item in batch)

    def _pixels(self, image: Image) -> NDArray[np.uint8]:
        if isinstance(image, str | Path):
            slices = open_slices(image)
            return self.preprocessor.array(slices.image(slices.middle))
        array = np.asarray(image)
        array = array[..., None] if array.ndim == 2 else array
        valid = array.dtype == np.uint8 and array.ndim == 3 and array.shape[-1] in (1, 3)
        rule = "An array must be uint8 [height, width] or [height, width, 1 or 3]"
        check(valid, rule, f"{array.dtype} {list(array.shape)}")
        return self.preprocessor.array(array)
