"""Prediction in a fast precision, with float32 for those images whose decision the fast one could change.

The fast one is bfloat16, or int8. How far it lies from float32 is measured on the images themselves: the first are
predicted in both, and so is every later one that lies so close to a threshold, or to another class, that twice the
difference seen so far could change its class, its decision or its prediction set.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from btkeras.decisions.selective_classifier import SelectiveClassifier, log_odds
from btkeras.inference.backends import ModelOutputs, Predict

Floats = NDArray[np.float32]

# Images that are predicted in both before the fast precision is relied upon.
COMPARED = 64
# What is allowed for, in differences seen.
_MARGIN = 2.0


class Differences(NamedTuple):
    """The largest seen: of a probability's ``log_odds``, and of an OOD score as a part of it."""

    log_odds: float = 0.0
    ood_score: float = 0.0


class MixedPrecision:
    """A model in both precisions.

    Args:
        fast: Outputs in the fast precision, of uint8 ``[n, size, size, channels]``.
        exact: The same in float32.
        selective: Whose decisions are to be float32's.

    Attributes:
        seen: The largest differences so far.
    """

    def __init__(self, fast: Predict, exact: Predict, selective: SelectiveClassifier) -> None:
        self._fast, self._exact, self._selective = fast, exact, selective
        self._compared, self.seen = 0, Differences()

    def predict(self, images: NDArray[np.uint8]) -> ModelOutputs:
        """Outputs of images ``[n, size, size, channels]``: float32's, or as near to them as ``seen`` says."""
        outputs = self._fast(images)
        chosen = np.arange(len(images)) if self._compared < COMPARED else np.flatnonzero(self._close(outputs))
        if not len(chosen):
            return outputs
        exact = self._exact(images[chosen])
        self._compare(outputs, chosen, exact)
        scores = outputs.ood_scores
        if scores is not None and exact.ood_scores is not None:
            scores = _replaced(scores, chosen, exact.ood_scores)
        return ModelOutputs(_replaced(outputs.probabilities, chosen, exact.probabilities), scores)

    def _close(self, outputs: ModelOutputs) -> NDArray[np.bool_]:
        return self._selective.close(*outputs, _MARGIN * self.seen.log_odds, _MARGIN * self.seen.ood_score)

    def _compare(self, outputs: ModelOutputs, chosen: NDArray[np.integer], exact: ModelOutputs) -> None:
        distances = log_odds(outputs.probabilities[chosen]) - log_odds(exact.probabilities)
        ood_score = self.seen.ood_score
        if outputs.ood_scores is not None and exact.ood_scores is not None:
            parts = np.abs(outputs.ood_scores[chosen] / np.maximum(exact.ood_scores, np.finfo(np.float32).tiny) - 1)
            ood_score = max(ood_score, float(parts.max()))
        self.seen = Differences(max(self.seen.log_odds, float(np.abs(distances).max())), ood_score)
        self._compared += len(chosen)


def _replaced(values: Floats, rows: NDArray[np.integer], others: Floats) -> Floats:
    values = values.copy()
    values[rows] = others
    return values
