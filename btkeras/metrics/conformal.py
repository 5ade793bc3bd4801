"""Split conformal prediction sets: the classes that cannot be ruled out at a wanted coverage.

The nonconformity score of a class is 1 - its probability (least ambiguous sets, LAC: Sadinle, Lei and Wasserman, JASA
2019), which gives the smallest sets on average. A class is in an image's set unless its score is above the
finite-sample quantile of the true classes' scores on other images. If those and the new one are exchangeable, the true
class is in the set with at least the wanted probability, averaged over all images and not within each class (Vovk,
Gammerman and Shafer, "Algorithmic Learning in a Random World").

A set may be empty where the network is right more often than the coverage asks for. Sets that always held the most
probable class, or those of adaptive scores (APS, RAPS) without randomization, would then hold a single class for every
image, however unsure the network is of it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.metrics.classification import FloatArray, IntArray


def nonconformity_scores(labels: IntArray, probabilities: FloatArray) -> NDArray[np.float64]:
    """Nonconformity scores of the true classes, ``[n]`` in 0..1 and sorted."""
    true = np.asarray(probabilities, np.float64)[np.arange(len(labels)), labels]
    return np.sort(np.clip(1 - true, 0, 1))


def conformal_threshold(scores: FloatArray, coverage: float) -> float:
    """The score up to which a class is in a set: the ceil((n + 1) coverage)-th smallest of n.

    Args:
        scores: ``[n]`` of the true classes, sorted.
        coverage: Wanted, above 0 and below 1.

    Returns:
        A score; 1, which every class is within, where n images are too few to promise the coverage.
    """
    # Less a little, for (n + 1) coverage may come out above the whole number that it is.
    rank = math.ceil((len(scores) + 1) * coverage - 1e-9)
    return float(scores[rank - 1]) if rank <= len(scores) else 1.0


def prediction_sets(probabilities: FloatArray, threshold: float) -> NDArray[np.bool_]:
    """Which classes are in each image's set ``[n, classes]``; the threshold is of ``conformal_threshold``."""
    return 1 - np.asarray(probabilities, np.float64) <= threshold


def set_metrics(labels: IntArray, sets: NDArray[np.bool_]) -> dict[str, Any]:
    """Metrics of prediction sets ``[n, classes]``, as JSON-ready fractions.

    Returns:
        ``covered`` (the true class is in the set), ``covered_by_class`` (the same within each class, None where a class
        has no image), ``mean_size``, ``empty``, ``single`` (of one class), and ``single_right`` (the share of those
        that are the true class, None if there are none).
    """
    hit, sizes = sets[np.arange(len(labels)), labels], sets.sum(axis=1)
    single = sizes == 1
    return {
        "covered": float(hit.mean()),
        "covered_by_class": [
            float(hit[labels == i].mean()) if (labels == i).any() else None for i in range(sets.shape[1])
        ],
        "mean_size": float(sizes.mean()),
        "empty": float((sizes == 0).mean()),
        "single": float(single.mean()),
        "single_right": float(hit[single].mean()) if single.any() else None,
    }
