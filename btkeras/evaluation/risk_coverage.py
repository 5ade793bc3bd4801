"""The risk-coverage curve of an evaluation, with the point at which the decisions work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from btkeras.metrics import wilson
from btkeras.metrics.calibration import risk_coverage
from btkeras.metrics.classification import FloatArray, IntArray

_POINTS = 100


def risk_coverage_metrics(
    labels: IntArray, probabilities: FloatArray, selective: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The curve of ``metrics.calibration.risk_coverage``, JSON-ready.

    Args:
        labels: ``[n]``, class indices.
        probabilities: ``[n, classes]``.
        selective: Of ``decisions.selective_classifier.selective_metrics``, if there are decisions.

    Returns:
        ``aurc``, its area; ``coverage`` and ``risk``, up to 100 points of it; ``working_point``: the ``coverage`` of
        the decisions, their ``risk`` (share of wrong classes among these) and its 95 % Wilson ``interval``, both None
        where nothing is covered; itself None without decisions.
    """
    coverage, risk = risk_coverage(labels, probabilities)
    shown = np.unique(position(np.arange(1, _POINTS + 1) / _POINTS, len(risk)))
    curve = {"coverage": coverage[shown].tolist(), "risk": risk[shown].tolist()}
    return {"aurc": float(risk.mean()), **curve, "working_point": selective and _working_point(selective)}


def position(coverage: Any, images: int) -> Any:
    """Where on a curve of so many images at least this share is covered."""
    return np.ceil(np.asarray(coverage) * images - 1e-9).astype(int) - 1


def _working_point(selective: Mapping[str, Any]) -> dict[str, Any]:
    covered = round(selective["coverage"] * selective["images"])
    if not covered:
        return {"coverage": 0.0, "risk": None, "interval": None}
    wrong = round((1 - selective["accuracy"]) * covered)
    return {"coverage": selective["coverage"], "risk": wrong / covered, "interval": list(wilson(wrong, covered))}
