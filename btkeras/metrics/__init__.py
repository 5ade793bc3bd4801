"""Figures from labels and probabilities, how sure they are, and whether two models differ; plain NumPy and SciPy."""

from btkeras.metrics.comparisons import Difference, McNemar, holm, mcnemar, paired_bootstrap
from btkeras.metrics.figures import (
    FIGURES,
    FloatArray,
    IntArray,
    accuracy,
    class_figures,
    confusion_matrix,
    negative_log_likelihood,
    summarise,
)
from btkeras.metrics.intervals import Resampling, bootstrap_weights, clustered_bootstrap, wilson

__all__ = [
    "FIGURES",
    "Difference",
    "FloatArray",
    "IntArray",
    "McNemar",
    "Resampling",
    "accuracy",
    "bootstrap_weights",
    "class_figures",
    "clustered_bootstrap",
    "confusion_matrix",
    "holm",
    "mcnemar",
    "negative_log_likelihood",
    "paired_bootstrap",
    "summarise",
    "wilson",
]
