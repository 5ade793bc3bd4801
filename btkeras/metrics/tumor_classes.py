"""Metrics of the images that show a tumour alone, as published for FigShare's three classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from btkeras.metrics.classification import FloatArray, IntArray
from btkeras.metrics.groups import NO_TUMOR
from btkeras.metrics.intervals import Resampling, recall_metrics


def tumor_class_metrics(
    labels: IntArray, probabilities: FloatArray, groups: IntArray, classes: Sequence[str], resampling: Resampling
) -> dict[str, Any] | None:
    """Metrics of the images whose class is a tumour.

    Args:
        labels: ``[n]`` class indices.
        probabilities: ``[n, classes]``.
        groups: ``[n]`` numbers of groups.
        classes: Names, in the order of the indices.
        resampling: Number of resamples, seed, level.

    Returns:
        ``images``, their number; ``metrics.intervals.recall_metrics``, where ``no_tumor`` as the prediction is wrong;
        and ``between_tumors``, the same of the most probable tumour, whatever the probability of ``no_tumor``. None if
        there is no class ``no_tumor``, or only one of tumours.
    """
    free = list(classes).index(NO_TUMOR) if NO_TUMOR in classes else -1
    shown = labels != free
    if free < 0 or len(classes) < 3 or not shown.any():
        return None
    labels, probabilities = labels[shown], np.array(probabilities[shown])
    members = np.unique(groups[shown], return_inverse=True)[1]
    predictions = [probabilities.argmax(axis=1)]
    probabilities[:, free] = -1
    predictions.append(probabilities.argmax(axis=1))
    all_classes, tumors = (recall_metrics(labels, found, members, classes, resampling) for found in predictions)
    return {"images": len(labels), **all_classes, "between_tumors": tumors}
