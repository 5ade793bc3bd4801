"""Learn then Test for selective classification: from which confidence on predictions are given, so that few are wrong.

Angelopoulos, Bates, Candès, Jordan and Lei, "Learn then Test: Calibrating Predictive Algorithms to Achieve Risk
Control" (2021, arXiv:2110.01052), with fixed-sequence testing: thresholds are tested from strict to lax, each with the
exact binomial p-value of "more than the wanted risk is wrong above it", until one is not rejected. The last rejected
one controls the risk: for images that are exchangeable with the tested ones, the share of wrong predictions at or above
it exceeds the wanted risk with a probability of at most 1 - the confidence level, over the draw of the tested images.
Images of one patient are not independent, so that fewer images count than there are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from btkeras.metrics.classification import FloatArray

# Share of the surest images at which the sequence begins. With fewer, one error may end it, and a model that covers
# less is of little use.
LEAST_COVERAGE = 0.3
_STEPS = 70


@dataclass(frozen=True)
class ControlledRisk:
    """A threshold and what was found at or above it; see ``control_risk``."""

    threshold: float | None  # least confidence of a prediction; None if no threshold controls the risk
    covered: int  # images at or above it; without a threshold, at or above the strictest that was tested
    wrong: int  # wrong predictions among these
    bound: float  # upper confidence bound of the risk there (Clopper and Pearson, one-sided)


def control_risk(confidences: FloatArray, right: NDArray[np.bool_], risk: float, level: float) -> ControlledRisk:
    """The laxest threshold that controls the risk.

    Args:
        confidences: ``[n]``, n at least 1; larger is surer.
        right: ``[n]``, whether the prediction is right.
        risk: Largest wanted share of wrong predictions, above 0 and below 1.
        level: Confidence level, above 0 and below 1.
    """
    # Imported here because it takes longer than a prediction, which does not need it.
    from scipy.stats import beta

    ordered = np.sort(np.asarray(confidences, np.float64))[::-1]
    # Of fewer images, all right, no test would be rejected.
    testable = math.ceil(math.log(1 - level) / math.log(1 - risk))
    first = min(max(math.ceil(LEAST_COVERAGE * len(ordered)), testable), len(ordered))
    counts = np.unique(np.linspace(first, len(ordered), _STEPS).round().astype(int))
    thresholds = ordered[counts - 1]
    # All images of equal confidence count.
    covered = np.searchsorted(-ordered, -thresholds, side="right")
    wrong = np.array([int((~right[confidences >= threshold]).sum()) for threshold in thresholds])
    # The binomial p-value is at most 1 - level where this bound is at most the risk.
    bounds = np.where(wrong < covered, beta.ppf(level, wrong + 1, np.maximum(covered - wrong, 1)), 1.0)
    failed = np.flatnonzero(bounds > risk)
    last = int(failed[0]) - 1 if len(failed) else len(bounds) - 1
    at = max(last, 0)
    threshold = float(thresholds[at]) if last >= 0 else None
    return ControlledRisk(threshold, int(covered[at]), int(wrong[at]), float(bounds[at]))
