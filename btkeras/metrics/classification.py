"""Classification metrics, in plain NumPy because inference imports no scikit-learn.

Labels are class indices, ``[n]`` integers; a confusion matrix is ``[classes, classes]`` with true classes in rows.
A metric whose denominator is zero is 0, as in scikit-learn with ``zero_division=0``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

METRICS = ("accuracy", "precision", "recall", "specificity", "f1")

IntArray = NDArray[np.integer]
FloatArray = NDArray[np.floating]


def confusion_matrix(labels: IntArray, predictions: IntArray, classes: int) -> NDArray[np.int64]:
    """Counts of (true, predicted) pairs."""
    pairs = np.asarray(labels) * classes + np.asarray(predictions)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def class_metrics(matrix: IntArray | FloatArray, undefined: float = 0.0) -> dict[str, FloatArray]:
    """One-against-rest metrics of each class (paper, section 4.2), each ``[..., classes]`` in 0..1.

    ``accuracy`` is (TP + TN) / n, so it counts the other classes' agreement too and is high for a rare class.

    Args:
        matrix: Confusion matrices, ``[..., classes, classes]``.
        undefined: Value of a metric whose denominator is zero.
    """
    total = matrix.sum(axis=(-2, -1))[..., np.newaxis]
    hit = np.diagonal(matrix, axis1=-2, axis2=-1).astype(float)
    predicted, actual = matrix.sum(axis=-2), matrix.sum(axis=-1)
    rejected = total - predicted - actual + hit
    return {
        "accuracy": _ratio(hit + rejected, np.broadcast_to(total, hit.shape), undefined),
        "precision": _ratio(hit, predicted, undefined),
        "recall": _ratio(hit, actual, undefined),
        "specificity": _ratio(rejected, total - actual, undefined),
        "f1": _ratio(2 * hit, predicted + actual, undefined),
    }


def accuracy(matrix: IntArray | FloatArray) -> float:
    """Fraction of images on the matrix's diagonal."""
    return float(_ratio(np.trace(matrix), matrix.sum()))


def negative_log_likelihood(labels: IntArray, probabilities: FloatArray) -> float:
    """Mean of -log(probability of the true class), in nats; a probability of 0 counts as 1e-7, as in Keras."""
    true = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(true, 1e-7, 1)).mean())


def summarize(labels: IntArray, probabilities: FloatArray, classes: Sequence[str]) -> dict[str, Any]:
    """Every metric as JSON-ready numbers: overall, macro-averaged, per class, and the confusion matrix.

    Args:
        labels: ``[n]`` class indices.
        probabilities: ``[n, classes]``.
        classes: Names, in the order of the indices.
    """
    matrix = confusion_matrix(labels, probabilities.argmax(axis=1), len(classes))
    metrics = class_metrics(matrix)
    return {
        "images": len(labels),
        "accuracy": accuracy(matrix),
        "negative_log_likelihood": negative_log_likelihood(labels, probabilities),
        "macro": {name: float(metrics[name].mean()) for name in METRICS},
        "per_class": {
            label: {name: float(metrics[name][i]) for name in METRICS} | {"images": int(matrix[i].sum())}
            for i, label in enumerate(classes)
        },
        "classes": list(classes),
        "confusion_matrix": matrix.tolist(),
    }


def _ratio(numerator: Any, denominator: Any, undefined: float = 0.0) -> FloatArray:
    numerator, denominator = np.asarray(numerator, float), np.asarray(denominator, float)
    return np.divide(numerator, denominator, out=np.full_like(numerator, undefined), where=denominator > 0)
