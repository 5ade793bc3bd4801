"""Whether two models differ: McNemar's exact test, a paired bootstrap over groups, and Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from btkeras.errors import DataError
from btkeras.metrics.classification import FloatArray, IntArray
from btkeras.metrics.intervals import Resampling, group_sums, percentile_interval, resampled_sums


@dataclass(frozen=True)
class McNemar:
    """Two models' predictions of the same images."""

    only_a: int  # number of images that only the first has right
    only_b: int  # number of images that only the second has right
    p: float  # two-sided p value of their being equally likely


@dataclass(frozen=True)
class Difference:
    """Two models' accuracies."""

    first: int  # column of the one model
    second: int  # column of the other
    value: float  # accuracy of the first less that of the second, in -1..1
    interval: list[float]  # percentile interval of ``value``
    p: float  # two-sided p value of its being 0


def mcnemar(correct_a: NDArray[np.bool_], correct_b: NDArray[np.bool_]) -> McNemar:
    """McNemar's exact test; it takes the images for independent of each other, ``paired_bootstrap`` does not.

    Args:
        correct_a: ``[n]``, whether the first model is right.
        correct_b: ``[n]``, the second, on the same images in the same order.

    Raises:
        DataError: If the lengths differ.
    """
    if correct_a.shape != correct_b.shape:
        raise DataError(
            "Two models must have predicted the same images", received=f"{correct_a.shape} and {correct_b.shape}"
        )
    # Imported here because inference needs this package, and not SciPy.
    from scipy.stats import binomtest

    only_a, only_b = int((correct_a & ~correct_b).sum()), int((correct_b & ~correct_a).sum())
    p = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return McNemar(only_a, only_b, p)


def paired_bootstrap(correct: FloatArray, groups: IntArray, resampling: Resampling) -> list[Difference]:
    """Differences of accuracy of all pairs of models, by drawing whole groups of images.

    All models share the draws, so that images that are hard for all do not count as a difference. The p value is twice
    the smaller share of resamples in which the difference is at most, or at least, 0. One resample is added to each
    side, since B of them cannot show a p below about 2 / B: it is never 0.

    Args:
        correct: ``[n, models]`` in 0..1, whether, or in how many of its repetitions, a model has an image right.
        groups: ``[n]`` numbers of groups, 0 to the highest without a gap.
        resampling: Number of resamples, seed, level.

    Returns:
        A difference per pair of columns, (0, 1), (0, 2), ... (1, 2), ...
    """
    sizes = np.ones((len(correct), 1))
    sums = resampled_sums(group_sums(np.concatenate([correct, sizes], axis=1), groups), resampling)
    accuracies, observed = sums[:, :-1] / sums[:, -1:], correct.mean(axis=0)
    found = []
    for a, b in combinations(range(correct.shape[1]), 2):
        # Sums of fractions are inexact, but a tie must stay a tie.
        drawn = np.round(accuracies[:, a] - accuracies[:, b], 12)
        value = float(np.round(observed[a] - observed[b], 12))
        rarer = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
        p = min(1.0, 2 * (1 + rarer) / (len(drawn) + 1))
        found.append(Difference(a, b, value, percentile_interval(drawn, resampling.level), p))
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p values that hold for all of the tests together, in the same order."""
    values = np.asarray(p_values, float)
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)))
    return adjusted.tolist()
