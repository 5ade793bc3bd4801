"""Reliability diagrams and risk-coverage curves."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from btkeras.metrics import wilson
from btkeras.metrics.calibration import ESTIMATOR, Reliability, reliability, risk_coverage, top_label
from btkeras.reporting import drawing
from btkeras.reporting.document import Panel
from btkeras.reporting.evidence import ReportedModel
from btkeras.reporting.numbers import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

_SIZE = (340, 310)
# More points of a curve nobody sees.
_POINTS = 200
_STYLES = {"before": (drawing.RED, (0, (4, 2)), "o"), "after": (drawing.BLUE, "-", "s")}


def reliability_panel(
    network: ReportedModel, labels: NDArray[np.int64], stages: Mapping[str, NDArray[np.float64]]
) -> Panel:
    """A reliability diagram with a curve per stage of probabilities, ``before`` and ``after`` calibration."""
    curves = {stage: reliability(*top_label(labels, p)) for stage, p in stages.items()}
    errors = ", ".join(f"{stage} {percent(curve.error)} %" for stage, curve in curves.items())
    data = {
        stage: {
            "ece": curve.error,
            "confidence": curve.confidence.tolist(),
            "frequency": curve.frequency.tolist(),
            "images": curve.images.tolist(),
        }
        for stage, curve in curves.items()
    }
    return Panel(
        name=f"reliability-{network.slug}",
        alt=f"{network.name}: expected calibration error {errors}",
        draw=functools.partial(_draw_reliability, network.name, curves),
        data={"network": network.name, "estimator": ESTIMATOR, "stages": data},
    )


def _draw_reliability(title: str, curves: Mapping[str, Reliability]) -> Drawing:
    drawn, area = drawing.axes(*_SIZE, title=title)
    lowest = 1.0
    for stage, curve in curves.items():
        color, dash, marker = _STYLES[stage]
        right = np.rint(curve.frequency * curve.images)
        bounds = np.array([wilson(float(k), int(n)) for k, n in zip(right, curve.images, strict=True)]).T
        bars = np.abs(bounds - curve.frequency)
        label = f"{stage}: ECE {percent(curve.error)} %" if len(curves) > 1 else f"ECE {percent(curve.error)} %"
        area.errorbar(
            curve.confidence, curve.frequency, bars, color=color, linestyle=dash, label=label,
            marker=marker, markersize=3.5, linewidth=1, elinewidth=0.6, alpha=0.9,
        )  # fmt: skip
        lowest = min(lowest, float(curve.confidence.min()), float(curve.frequency.min()))
    lowest = np.floor(10 * lowest - 1e-9) / 10
    area.plot([0, 1], [0, 1], color=drawing.INK, alpha=0.3, linewidth=0.8)
    beyond = 0.02 * (1 - lowest)
    area.set_xlim(lowest, 1 + beyond)
    area.set_ylim(lowest, 1 + beyond)
    area.set_xlabel("probability of the most probable class")
    area.set_ylabel("share of right answers")
    area.grid(visible=True)
    area.legend(loc="upper left")
    return drawn


def risk_panel(network: ReportedModel, labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> Panel:
    """A risk-coverage curve, and the best that any order of the same answers could do."""
    coverage, risk = risk_coverage(labels, probabilities)
    count = len(risk)
    # The least that is wrong among so many: all that is right is kept first.
    kept = np.arange(1, count + 1)
    best = np.maximum(0, kept - round(count * (1 - risk[-1]))) / kept
    shown = np.unique(np.linspace(0, count - 1, _POINTS).astype(int))
    curve = {"coverage": coverage[shown], "risk": risk[shown], "least_risk": best[shown]}
    return Panel(
        name=f"risk-coverage-{network.slug}",
        alt=f"{network.name}: area under the risk-coverage curve {percent(float(risk.mean()), 3)} %",
        draw=functools.partial(_draw_risk, network.name, float(risk.mean()), curve),
        data={
            "network": network.name,
            "aurc": float(risk.mean()),
            **{name: values.tolist() for name, values in curve.items()},
        },
    )


def _draw_risk(title: str, mean: float, curve: Mapping[str, NDArray[np.float64]]) -> Drawing:
    drawn, area = drawing.axes(*_SIZE, title=title)
    coverage = 100 * curve["coverage"]
    area.plot(coverage, 100 * curve["least_risk"], color=drawing.INK, alpha=0.3, linewidth=0.8)
    area.plot(coverage, 100 * curve["risk"], color=drawing.BLUE, label=f"AURC {percent(mean, 3)} %")
    area.set_xlim(0, 102)
    area.set_ylim(bottom=0)
    area.set_xlabel("answers kept, %")
    area.set_ylabel("wrong among them, %")
    area.grid(visible=True)
    area.legend(loc="upper left")
    return drawn
