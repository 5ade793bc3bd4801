"""Confidence intervals of metrics: Wilson's, and a bootstrap that draws whole groups of images.

Slices of one patient, and duplicates, are right or wrong together. Counted one by one they make an interval too narrow,
so the bootstrap draws groups: each resample is as many groups as there are, with replacement. Where every prediction is
right, all resamples agree, and their interval would have no width: Wilson's over the groups stands in its place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.errors import DataError
from btkeras.metrics.classification import FloatArray, IntArray, accuracy, class_metrics, confusion_matrix

INTERVAL_METRICS = ("precision", "recall", "specificity", "f1")

# Drawn groups held at a time, so that memory does not grow with the number of resamples.
_CHUNK = 2**21


@dataclass(frozen=True)
class Resampling:
    """Settings of a bootstrap.

    Attributes:
        samples: Number of resamples.
        seed: Seed of the draws; equal seeds give equal results.
        level: Confidence of the intervals, in 0..1.
    """

    samples: int = 2000
    seed: int = 0
    level: float = 0.95

    def __post_init__(self) -> None:
        if self.samples < 1 or not 0 < self.level < 1:
            raise DataError("A bootstrap must have at least 1 sample and a level between 0 and 1", received=self)


def wilson(correct: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion.

    Args:
        correct: Successes, in 0..n. Need not be whole: the mean over repeated predictions of one image is not.
        n: Number of independent trials, at least 1.
        level: Confidence, in 0..1.

    Raises:
        DataError: If ``correct`` is not in 0..n.
    """
    if not (n >= 1 and 0 <= correct <= n):
        raise DataError("A proportion must have 0 <= correct <= n and n >= 1", received=f"{correct} of {n}")
    # Imported here because inference needs this package, and not SciPy.
    from scipy.special import ndtri

    p, z = correct / n, float(ndtri((1 + level) / 2))
    center = p + z**2 / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    # At 0 and n one end is the proportion itself; rounding must not put it on the wrong side.
    return max(min((center - half) / scale, p), 0.0), min(max((center + half) / scale, p), 1.0)


def bootstrap_weights(groups: int, samples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Yields how often each group is drawn in each of ``samples`` resamples, in chunks ``[<= samples, groups]``.

    Each resample draws as many groups as there are, with replacement.
    """
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // groups)
    for start in range(0, samples, rows):
        count = min(rows, samples - start)
        drawn = rng.integers(0, groups, (count, groups))
        drawn += np.arange(count)[:, np.newaxis] * groups
        # Floating point, for BLAS multiplies whole numbers far slower; counts stay exact.
        yield np.bincount(drawn.ravel(), minlength=count * groups).reshape(count, groups).astype(float)


def group_sums(values: IntArray | FloatArray, groups: IntArray) -> NDArray[np.float64]:
    """Sums the rows ``[n, ...]`` of each group: ``[groups, ...]``; groups are numbered from 0 without a gap."""
    sums = np.zeros((int(groups.max()) + 1, *values.shape[1:]))
    np.add.at(sums, groups, values)
    return sums


def resampled_sums(per_group: FloatArray, resampling: Resampling) -> NDArray[np.float64]:
    """Sums of the drawn groups' rows: ``[groups, k]`` gives ``[samples, k]``."""
    chunks = bootstrap_weights(len(per_group), resampling.samples, resampling.seed)
    return np.concatenate([weights @ per_group for weights in chunks])


def percentile_interval(values: FloatArray, level: float) -> list[float]:
    """Low and high end of the middle ``level`` of the resamples' values ``[samples]``."""
    tail = 50 * (1 - level)
    low, high = np.percentile(values, (tail, 100 - tail))
    return [float(low), float(high)]


def resampled_interval(values: FloatArray, level: float) -> list[float] | None:
    """``percentile_interval`` of the resamples' values that are not NaN; None where all agree, or none is left."""
    defined = values[~np.isnan(values)]
    low, high = percentile_interval(defined, level) if len(defined) else (0.0, 0.0)
    # Sums in another order differ by rounding.
    return [low, high] if high - low > 1e-12 else None


def mean_interval(values: FloatArray, intervals: Sequence[Sequence[float]]) -> list[float]:
    """The interval of a mean of independent proportions ``[k]`` from their own intervals.

    The squares of the distances to the ends add up, for each end apart: MOVER (Zou, Huang and Zhang, "A note on
    confidence interval estimation for a linear function of binomial proportions", Computational Statistics & Data
    Analysis 53, 2009). Of one proportion it is that one's interval.
    """
    mean, ends = float(np.mean(values)), np.asarray(intervals, float).T
    low, high = np.sqrt(((ends - values) ** 2).sum(axis=1)) / len(values)
    return [max(mean - float(low), 0.0), min(mean + float(high), 1.0)]


def clustered_bootstrap(
    labels: IntArray, predictions: IntArray, groups: IntArray, classes: Sequence[str], resampling: Resampling
) -> dict[str, Any]:
    """Percentile intervals of the overall accuracy and of the macro-averaged and per-class metrics.

    A resample may draw no image of a class, or none that is predicted as it. A metric that loses its denominator so is
    left out of its interval, and so is the macro average over it. A metric without a denominator in the images
    themselves is 0 throughout, as in ``summarize``.

    Where all resamples agree, or none has a value, the interval is Wilson's, with groups as the trials: all of them for
    the accuracy, else those with an image that the metric is of. F1 is 2 J / (1 + J), where J is the share of hits
    among the images that are of the class or predicted as it, and so are its ends. The macro averages have
    ``mean_interval`` of their classes', which takes these for independent.

    Args:
        labels: ``[n]`` class indices.
        predictions: ``[n]`` class indices.
        groups: ``[n]`` numbers of groups, 0 to the highest without a gap.
        classes: Names, in the order of the indices.
        resampling: Number of resamples, seed, level.

    Returns:
        ``[low, high]`` for ``accuracy`` and each macro-averaged metric, and ``per_class`` by name; JSON-ready. None
        in place of the interval of a metric without a denominator.
    """
    matrices = _resampled_matrices(labels, predictions, groups, len(classes), resampling)
    observed = class_metrics(confusion_matrix(labels, predictions, len(classes)), undefined=np.nan)
    metrics = {
        name: np.where(np.isnan(observed[name]), 0.0, values)
        for name, values in class_metrics(matrices, undefined=np.nan).items()
    }
    interval = partial(resampled_interval, level=resampling.level)
    agreed = {
        name: _class_intervals(labels, predictions, groups, name, observed[name], resampling.level)
        for name in INTERVAL_METRICS
    }
    return {
        "accuracy": _accuracy_interval(matrices, labels == predictions, groups, resampling.level),
        **{
            name: interval(metrics[name].mean(axis=1)) or _macro_interval(observed[name], agreed[name])
            for name in INTERVAL_METRICS
        },
        "per_class": {
            label: {name: interval(metrics[name][:, i]) or agreed[name][i] for name in INTERVAL_METRICS}
            for i, label in enumerate(classes)
        },
    }


def recall_metrics(
    labels: IntArray, predictions: IntArray, groups: IntArray, classes: Sequence[str], resampling: Resampling
) -> dict[str, Any]:
    """Accuracy and recalls where not all classes need occur; arguments as of ``clustered_bootstrap``.

    Returns:
        JSON-ready: ``accuracy``; ``macro_recall``, the mean over the classes that occur; ``intervals`` of both, as of
        ``clustered_bootstrap``; ``per_class`` with ``recall`` (None of a class that does not occur) and ``support``,
        the number of its labels; and ``confusion_matrix``.
    """
    matrix = confusion_matrix(labels, predictions, len(classes))
    occurring, recalls = matrix.sum(axis=1) > 0, class_metrics(matrix, undefined=np.nan)["recall"]
    matrices = _resampled_matrices(labels, predictions, groups, len(classes), resampling)
    drawn = class_metrics(matrices, undefined=np.nan)["recall"][:, occurring].mean(axis=1)
    agreed = _class_intervals(labels, predictions, groups, "recall", recalls, resampling.level)
    rows = zip(recalls.tolist(), matrix.sum(axis=1).tolist(), strict=True)
    return {
        "accuracy": accuracy(matrix),
        "macro_recall": float(recalls[occurring].mean()),
        "intervals": {
            "accuracy": _accuracy_interval(matrices, labels == predictions, groups, resampling.level),
            "macro_recall": resampled_interval(drawn, resampling.level)
            or _macro_interval(recalls[occurring], [found for found in agreed if found]),
        },
        "per_class": {
            label: {"recall": recall if support else None, "support": support}
            for label, (recall, support) in zip(classes, rows, strict=True)
        },
        "confusion_matrix": matrix.tolist(),
    }


def _resampled_matrices(
    labels: IntArray, predictions: IntArray, groups: IntArray, size: int, resampling: Resampling
) -> NDArray[np.float64]:
    """The confusion matrix of each resample ``[samples, size, size]``."""
    counts = group_sums(np.eye(size * size)[labels * size + predictions], groups)
    return resampled_sums(counts, resampling).reshape(-1, size, size)


def _accuracy_interval(matrices: FloatArray, correct: NDArray[np.bool_], groups: IntArray, level: float) -> list[float]:
    """The bootstrap's, or Wilson's over the groups."""
    accuracies = np.trace(matrices, axis1=1, axis2=2) / matrices.sum(axis=(1, 2))
    return resampled_interval(accuracies, level) or _proportion_interval(float(correct.mean()), groups, level)


def _proportion_interval(share: float, groups: IntArray, level: float) -> list[float]:
    """Wilson's interval of a share of images, where only the different ones of ``groups`` are independent."""
    count = len(np.unique(groups))
    return list(wilson(min(share * count, count), count, level))


def _class_intervals(
    labels: IntArray, predictions: IntArray, groups: IntArray, name: str, values: FloatArray, level: float
) -> list[list[float] | None]:
    """Wilson's intervals of a metric's value of each class ``[classes]``; None where that is NaN."""
    found: list[list[float] | None] = []
    for i, value in enumerate(values.tolist()):
        actual, predicted = labels == i, predictions == i
        trials = {"precision": predicted, "recall": actual, "specificity": ~actual, "f1": actual | predicted}[name]
        # F1 is no share of images; that of the hits among the images with the class, which F1 rises with, is one.
        share = value / (2 - value) if name == "f1" else value
        ends = None if np.isnan(value) else _proportion_interval(share, groups[trials], level)
        found.append([2 * end / (1 + end) for end in ends] if ends and name == "f1" else ends)
    return found


def _macro_interval(values: FloatArray, intervals: Sequence[Sequence[float] | None]) -> list[float] | None:
    """``mean_interval`` of classes, of which those without a value are 0; None if none has one."""
    known = np.nan_to_num(values)
    ends = [own or (value, value) for own, value in zip(intervals, known.tolist(), strict=True)]
    return mean_interval(known, ends) if any(intervals) else None
