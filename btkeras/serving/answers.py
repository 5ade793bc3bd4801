"""From a decoded picture to an answer, but for the network between: what files, arrays and the web page share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from btkeras.data.decoder import Decoder
from btkeras.data.guard import check_slice
from btkeras.evaluation.verdicts import COVERAGE, Judge
from btkeras.serving.network import Network
from btkeras.serving.prediction import FilePrediction

__all__ = ["Answering", "FilePrediction", "Opened"]


class Opened(NamedTuple):
    """Attributes:
    pixels: The network's input, uint8 ``[size, size, channels]``.
    refusal: Why the picture is no brain MRI slice, or None.
    """

    pixels: NDArray[np.uint8]
    refusal: str | None


@dataclass(frozen=True)
class Answering:
    """What stands before and behind a network: its preprocessing and the guard, and what its outputs mean.

    Attributes:
        classes: Names of the network's outputs.
        decoder: The preprocessing it was trained with.
        judge: Makes answers of probabilities.
    """

    classes: tuple[str, ...]
    decoder: Decoder
    judge: Judge

    @classmethod
    def of(cls, network: Network, coverage: float = COVERAGE) -> Answering:
        """For a network, with prediction sets of this coverage."""
        decoder = Decoder(network.size, network.channels, network.harmonise)
        return cls(network.classes, decoder, Judge(network.classes, network.calibration, network.reference, coverage))

    def open(self, picture: NDArray[np.uint8], refusal: str | None = None) -> Opened:
        """Prepares a decoded picture, uint8 ``[height, width, 1 or 3]``, and shows it to the guard.

        Args:
            picture: The picture.
            refusal: What is known against it already, ``Slices.refusal``; the guard is then not asked.
        """
        return Opened(self.decoder.array(picture), refusal or check_slice(picture))

    def answers(
        self,
        probabilities: NDArray[np.float32],
        scores: NDArray[np.float32] | None,
        refusals: Sequence[str | None],
    ) -> list[FilePrediction]:
        """The answers to pictures, without their paths.

        Args:
            probabilities: ``[n, classes]``.
            scores: Outlier scores ``[n]``; None if the network has none.
            refusals: What the guard says of each, ``Opened.refusal``.
        """
        verdicts = self.judge.verdicts(probabilities, scores, refusals)
        return [
            FilePrediction(
                "",
                self.classes[int(row.argmax())],
                dict(zip(self.classes, row.tolist(), strict=True)),
                answer=verdict.answer,
                set=verdict.set,
                outlier=verdict.outlier,
                reasons=verdict.reasons,
            )
            for row, verdict in zip(probabilities, verdicts, strict=True)
        ]
