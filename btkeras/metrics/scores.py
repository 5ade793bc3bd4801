"""Metrics of probabilities, AUC, ECE and Brier score, with intervals from a bootstrap that draws whole groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from btkeras.metrics.calibration import bin_numbers, brier_score, expected_calibration_error, top_label
from btkeras.metrics.classification import FloatArray, IntArray
from btkeras.metrics.intervals import Resampling, bootstrap_weights, group_sums, resampled_interval, resampled_sums

SCORES = ("auc", "ece", "brier")


def macro_auc(labels: IntArray, probabilities: FloatArray) -> float | None:
    """Mean over the classes of the area under the ROC curve, each against the rest: 0..1.

    Equal probabilities count half (Mann and Whitney). Classes that no image, or every image, has are left out; None if
    none is left.
    """
    sides = _sides(labels, probabilities, np.zeros(len(labels), int))
    return float(np.mean([_areas(np.ones((1, 1)), *side) for side in sides])) if sides else None


def score_metrics(
    labels: IntArray, probabilities: FloatArray, groups: IntArray, resampling: Resampling
) -> tuple[dict[str, float | None], dict[str, list[float] | None]]:
    """``SCORES`` of probabilities, and their intervals.

    ``auc`` is ``macro_auc``, ``ece`` and ``brier`` are those of ``metrics.calibration``. Intervals of AUC and Brier
    score are the resamples' percentiles. The ECE is biased upwards, and in a resample once more: its interval is the
    basic one, twice the ECE less the percentiles (Davison and Hinkley, "Bootstrap Methods and their Application",
    1997), cut at 0, and may lie below the ECE. Where all resamples agree there is no interval:
    these are no proportions, of which Wilson's would be.

    Args:
        labels: ``[n]`` class indices.
        probabilities: ``[n, classes]``.
        groups: ``[n]`` numbers of groups, 0 to the highest without a gap.
        resampling: Number of resamples, seed, level.
    """
    ece = expected_calibration_error(labels, probabilities)
    values = {"auc": macro_auc(labels, probabilities), "ece": ece, "brier": brier_score(labels, probabilities)}
    level = resampling.level
    ends = resampled_interval(_resampled_ece(labels, probabilities, groups, resampling), level)
    errors = ((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(axis=1)
    sums = resampled_sums(group_sums(np.stack([errors, np.ones(len(labels))], axis=1), groups), resampling)
    areas = np.empty(0) if values["auc"] is None else _resampled_auc(labels, probabilities, groups, resampling)
    return values, {
        "auc": resampled_interval(areas, level),
        "ece": ends and [max(2 * ece - end, 0.0) for end in reversed(ends)],
        "brier": resampled_interval(sums[:, 0] / sums[:, 1], level),
    }


def _resampled_ece(
    labels: IntArray, probabilities: FloatArray, groups: IntArray, resampling: Resampling
) -> NDArray[np.float64]:
    """The ECE of each resample ``[samples]``, in the bins of all images."""
    confidence, right = top_label(labels, probabilities)
    gaps = np.eye(int((numbers := bin_numbers(confidence)).max()) + 1)[numbers] * (confidence - right)[:, None]
    sums = resampled_sums(group_sums(np.column_stack([gaps, np.ones(len(labels))]), groups), resampling)
    return np.asarray(np.abs(sums[:, :-1]).sum(axis=1) / sums[:, -1])


def _resampled_auc(
    labels: IntArray, probabilities: FloatArray, groups: IntArray, resampling: Resampling
) -> NDArray[np.float64]:
    """``macro_auc`` of each resample that has images of all classes."""
    sides = _sides(labels, probabilities, groups)
    chunks = bootstrap_weights(int(groups.max()) + 1, resampling.samples, resampling.seed)
    areas = np.concatenate([np.mean([_areas(weights, *side) for side in sides], axis=0) for weights in chunks])
    return areas[~np.isnan(areas)]


def _sides(labels: IntArray, probabilities: FloatArray, groups: IntArray) -> list[tuple[csr_array, csr_array]]:
    """How many images with and without a class each group has at each step of its ROC curve: ``[groups, steps]`` each.

    Classes that no image, or every image, has are left out.
    """
    found = []
    for i, values in enumerate(probabilities.T):
        truth = labels == i
        if 0 < truth.mean() < 1:
            steps = _steps(truth, values)
            shape = (int(groups.max()) + 1, int(steps.max()) + 1)
            pair = (csr_array((side.astype(float), (groups, steps)), shape=shape) for side in (truth, ~truth))
            found.append(tuple(pair))
    return found


def _steps(truth: NDArray[np.bool_], values: FloatArray) -> NDArray[np.intp]:
    """The step of the ROC curve that each image is in, from the least probable on.

    Neighbors of one side share a step, since their order does not change the area: a good network has few steps.
    """
    distinct, numbers = np.unique(values, return_inverse=True)
    sides = [np.bincount(numbers[side], minlength=len(distinct)) > 0 for side in (truth, ~truth)]
    kinds = sides[0] + 2 * sides[1]
    # Equal values of both sides count half among themselves, and are a step of their own.
    begins = np.append(False, (np.diff(kinds) != 0) | (kinds[1:] == 3))
    return np.cumsum(begins)[numbers]


def _areas(weights: FloatArray, with_class: csr_array, without: csr_array) -> NDArray[np.float64]:
    """Areas under the ROC curve where groups have these weights ``[samples, groups]``; NaN where a side has none."""
    positive, negative = np.asarray(weights @ with_class), np.asarray(weights @ without)
    below = np.cumsum(negative, axis=1) - negative / 2
    with np.errstate(invalid="ignore"):
        return np.asarray((positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1)))
