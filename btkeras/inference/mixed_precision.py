"""Prediction in a fast precision, with float32 for those images whose decision the fast one could change.

The fast one is bfloat16, or int8. How far it lies from float32 is measured on the images themselves: the first are
predicted in both, and so is every later one that lies so close to a threshold, or to another class, that one and a
half times the difference seen so far could change its class, its decision or its prediction set.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from btkeras.decisions.selective_classifier import LEAST, SelectiveClassifier, log_odds, log_probabilities
from btkeras.inference.backends import ModelOutputs, Predict

Floats = NDArray[np.float32]

# Images that are predicted in both before the fast precision is relied upon; and of those that are not quite sure.
COMPARED = 64
# What is allowed for, in differences seen. Of 2,326 slices in five random orders none changed, nor with 1.0.
_MARGIN = 1.5


class Differences(NamedTuple):
    """The largest seen: of a probability's ``log_odds``, of the two largest ``log_probabilities``' difference, and of
    an OOD score as a part of it.
    """

    log_odds: float = 0.0
    lead: float = 0.0
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
        self._compared, self._compared_unsure, self.seen = 0, 0, Differences()

    def predict(self, images: NDArray[np.uint8]) -> ModelOutputs:
        """Outputs of images ``[n, size, size, channels]``: float32's, or as near to them as ``seen`` says."""
        outputs = self._fast(images)
        chosen = np.flatnonzero(self._close(outputs))
        if self._compared < COMPARED:
            chosen = np.arange(len(images))
        elif self._compared_unsure < COMPARED:
            chosen = np.union1d(chosen, np.flatnonzero(_unsure(outputs.probabilities)))
        if not len(chosen):
            return outputs
        exact = self._exact(images[chosen])
        self._compare(outputs, chosen, exact)
        scores = outputs.ood_scores
        if scores is not None and exact.ood_scores is not None:
            scores = _replaced(scores, chosen, exact.ood_scores)
        return ModelOutputs(_replaced(outputs.probabilities, chosen, exact.probabilities), scores)

    def _close(self, outputs: ModelOutputs) -> NDArray[np.bool_]:
        distance, lead, part = (_MARGIN * each for each in self.seen)
        return self._selective.close(*outputs, distance=distance, lead=lead, part=part)

    def _compare(self, outputs: ModelOutputs, chosen: NDArray[np.integer], exact: ModelOutputs) -> None:
        fast = outputs.probabilities[chosen]
        found = self.seen._replace(
            log_odds=_largest(log_odds(fast) - log_odds(exact.probabilities)),
            lead=_largest(_leads(fast, fast) - _leads(exact.probabilities, fast)),
        )
        if outputs.ood_scores is not None and exact.ood_scores is not None:
            parts = outputs.ood_scores[chosen] / np.maximum(exact.ood_scores, np.finfo(np.float32).tiny) - 1
            found = found._replace(ood_score=_largest(parts))
        self.seen = Differences(*map(max, self.seen, found))
        self._compared += len(chosen)
        self._compared_unsure += int(_unsure(fast).sum())


def _unsure(probabilities: Floats) -> NDArray[np.bool_]:
    """Where two classes have probabilities that a difference can be seen of."""
    unsure: NDArray[np.bool_] = np.sort(probabilities, axis=1)[:, -2] > LEAST
    return unsure


def _largest(differences: NDArray[np.floating]) -> float:
    return float(np.abs(differences).max())


def _leads(probabilities: Floats, ranked_by: Floats) -> NDArray[np.float64]:
    """Differences of the logarithms of the classes that are first and second in another's ranking ``[n]``."""
    second, first = np.argsort(ranked_by, axis=1)[:, -2:].T
    rows, logarithms = np.arange(len(probabilities)), log_probabilities(probabilities)
    return logarithms[rows, first] - logarithms[rows, second]


def _replaced(values: Floats, rows: NDArray[np.integer], others: Floats) -> Floats:
    values = values.copy()
    values[rows] = others
    return values
