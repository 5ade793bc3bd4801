"""Metrics of labels and probabilities, their intervals, and tests of whether two models differ."""

from btkeras.metrics.classification import (
    METRICS,
    IntArray,
    accuracy,
    class_metrics,
    confusion_matrix,
    negative_log_likelihood,
    summarize,
)
from btkeras.metrics.comparisons import Difference, holm, mcnemar, paired_bootstrap
from btkeras.metrics.intervals import Resampling, bootstrap_weights, clustered_bootstrap, wilson

__all__ = [
    "METRICS",
    "Difference",
    "IntArray",
    "Resampling",
    "accuracy",
    "bootstrap_weights",
    "class_metrics",
    "clustered_bootstrap",
    "confusion_matrix",
    "holm",
    "mcnemar",
    "negative_log_likelihood",
    "paired_bootstrap",
    "summarize",
    "wilson",
]
