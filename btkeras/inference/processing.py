"""From a decoded image to an answer, but for the network between: what files, arrays and the web page share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from btkeras.decisions.calibration import COVERAGE
from btkeras.decisions.mri_check import rejection_reason
from btkeras.decisions.selective_classifier import SelectiveClassifier
from btkeras.inference.backends.base import InferenceBackend
from btkeras.preprocessing.preprocessor import Preprocessor


@dataclass(frozen=True)
class FilePrediction:
    """The answer for one file: a label with its probabilities and what they are worth, or an error.

    Attributes:
        path: As it was given; with ``#`` and the slice's number if the file has several.
        label: The most probable class, whatever the answer; "" with an error.
        probabilities: By class name, in the network's order; empty with an error.
        error: Why the file could not be read, or None.
        answer: A class, ``uncertain`` or ``rejected``, as ``evaluation.decisions.Judge`` says; "" with an error.
        set: The classes that cannot be ruled out at the wanted coverage; None if that is not known.
        ood_percentile: Percent of the validation slices that are at most as unlike the training slices; None if not known.
        reasons: Why the answer is no class, in plain words.
        file: The path without a slice's number.
        slice: Which slice of the file it is, from 0.
        slices: How many the file has; 0 with an error.
        axis: The view of a NIfTI volume, None otherwise.
    """

    path: str
    label: str = ""
    probabilities: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    decision: str = ""
    set: tuple[str, ...] | None = None
    ood_percentile: float | None = None
    reasons: tuple[str, ...] = ()
    file: str = ""
    slice: int = 0
    slices: int = 0
    axis: str | None = None


__all__ = ["FilePrediction", "Postprocessor", "PreprocessedInput"]


class PreprocessedInput(NamedTuple):
    """Attributes:
    pixels: The network's input, uint8 ``[size, size, channels]``.
    rejection: Why the image is no brain MRI slice, or None.
    """

    pixels: NDArray[np.uint8]
    rejection: str | None


@dataclass(frozen=True)
class Postprocessor:
    """What stands before and behind a network: its preprocessing and the guard, and what its outputs mean.

    Attributes:
        classes: Names of the network's outputs.
        decoder: The preprocessing it was trained with.
        selective: Makes answers of probabilities.
    """

    classes: tuple[str, ...]
    decoder: Preprocessor
    selective: SelectiveClassifier

    @classmethod
    def of(cls, network: InferenceBackend, coverage: float = COVERAGE) -> Postprocessor:
        """For a network, with prediction sets of this coverage."""
        decoder = Preprocessor(network.size, network.channels, network.harmonize)
        return cls(
            network.classes,
            decoder,
            SelectiveClassifier(network.classes, network.calibration, network.reference, coverage),
        )

    def open(self, image: NDArray[np.uint8], rejection: str | None = None) -> PreprocessedInput:
        """Prepares a decoded image, uint8 ``[height, width, 1 or 3]``, and shows it to the guard.

        Args:
            image: The image.
            rejection: What is known against it already, ``Slices.rejection``; the guard is then not asked.
        """
        return PreprocessedInput(self.decoder.array(image), rejection or rejection_reason(image))

    def answers(
        self,
        probabilities: NDArray[np.float32],
        scores: NDArray[np.float32] | None,
        refusals: Sequence[str | None],
    ) -> list[FilePrediction]:
        """The answers to images, without their paths.

        Args:
            probabilities: ``[n, classes]``.
            scores: Outlier scores ``[n]``; None if the network has none.
            refusals: What the guard says of each, ``Opened.rejection``.
        """
        decisions = self.selective.decisions(probabilities, scores, refusals)
        return [
            FilePrediction(
                "",
                self.classes[int(row.argmax())],
                dict(zip(self.classes, row.tolist(), strict=True)),
                decision=decision.decision,
                set=decision.set,
                ood_percentile=decision.ood_percentile,
                reasons=decision.reasons,
            )
            for row, decision in zip(probabilities, decisions, strict=True)
        ]
