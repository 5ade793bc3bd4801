"""The risk-coverage curve of an evaluation, with the point at which the decisions work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from btkeras.decisions.abstention import Abstention
from btkeras.metrics import wilson
from btkeras.metrics.calibration import risk_coverage
from btkeras.metrics.classification import FloatArray, IntArray

# Coverages of the text's rows.
SHOWN = (1.0, 0.8, 0.6, 0.5, 0.4)
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
    shown = np.unique(_position(np.arange(1, _POINTS + 1) / _POINTS, len(risk)))
    curve = {"coverage": coverage[shown].tolist(), "risk": risk[shown].tolist()}
    return {"aurc": float(risk.mean()), **curve, "working_point": selective and _working_point(selective)}


def _position(coverage: Any, images: int) -> Any:
    """Where on a curve of so many images at least this share is covered."""
    return np.ceil(np.asarray(coverage) * images - 1e-9).astype(int) - 1


def _working_point(selective: Mapping[str, Any]) -> dict[str, Any]:
    covered = round(selective["coverage"] * selective["images"])
    if not covered:
        return {"coverage": 0.0, "risk": None, "interval": None}
    wrong = round((1 - selective["accuracy"]) * covered)
    return {"coverage": selective["coverage"], "risk": wrong / covered, "interval": list(wilson(wrong, covered))}


def format_risk_coverage(metrics: Mapping[str, Any]) -> list[str]:
    """An evaluation's ``risk_coverage`` as lines of text; none if it has none."""
    found = metrics.get("risk_coverage")
    if not found:
        return []
    risks = np.array(found["risk"])[_position(SHOWN, len(found["risk"]))]
    point = found["working_point"]
    return [
        f"wrong, of the surest images (AURC {100 * found['aurc']:.2f} %):",
        f"  {'coverage':10}" + "".join(f"{100 * share:7.0f} %" for share in SHOWN),
        f"  {'risk':10}" + "".join(f"{100 * risk:7.1f} %" for risk in risks),
        *([f"  {_format_point(point)}"] if point else []),
        *_format_abstention(metrics),
    ]


def _format_point(point: Mapping[str, Any]) -> str:
    if point["risk"] is None:
        return "working point: no image gets a class"
    low, high = point["interval"]
    return (
        f"working point: coverage {100 * point['coverage']:.1f} %, risk {100 * point['risk']:.1f} % "
        f"(95 % interval {100 * low:.1f} to {100 * high:.1f})"
    )


def _format_abstention(metrics: Mapping[str, Any]) -> list[str]:
    found = (metrics.get("selective") or {}).get("abstention")
    return [f"  {Abstention.from_json(found)}"] if found else []
