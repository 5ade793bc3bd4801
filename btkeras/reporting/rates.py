"""ROC and precision-recall curves, each class against the rest."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from btkeras.reporting import drawing
from btkeras.reporting.document import Block, Figure, Panel
from btkeras.reporting.evidence import ReportData, ReportedModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

_SIZE = (340, 310)
# Sides of the corner that is shown, the smallest that holds the curves' bend.
_CORNERS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True)
class _Curve:
    """Attributes:
    x: ``[points]``, false positive rate or recall.
    y: ``[points]``, true positive rate or precision.
    area: Area under the ROC curve, or average precision.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    area: float


def rate_blocks(evidence: ReportData) -> list[Block]:
    """A panel per network in each of two figures."""
    against = f"of {evidence.pooled}, each class against the rest"
    notes = ("The scales differ: each plot shows the corner in which its curves bend.",)
    roc = tuple(_panel(network, "roc", _roc(network)) for network in evidence.networks)
    recall = tuple(_panel(network, "precision-recall", _precision_recall(network)) for network in evidence.networks)
    return [
        Figure("roc", f"ROC curves {against}, and the areas under them", roc, notes),
        Figure("precision-recall", f"Precision-recall curves {against}, and average precisions", recall, notes),
    ]


def _classes(network: ReportedModel) -> list[tuple[str, NDArray[np.bool_], NDArray[np.float64]]]:
    """Name, truth and probability of each class that some of the test images have, and some have not."""
    _, labels, probabilities = network.answers
    names = network.source.summary["classes"]
    return [(name, labels == i, probabilities[:, i]) for i, name in enumerate(names) if 0 < (labels == i).mean() < 1]


def _roc(network: ReportedModel) -> dict[str, _Curve]:
    from sklearn.metrics import roc_auc_score, roc_curve

    found = {}
    for name, truth, scores in _classes(network):
        false, true, _ = roc_curve(truth, scores)
        found[name] = _Curve(false, true, float(roc_auc_score(truth, scores)))
    return found


def _precision_recall(network: ReportedModel) -> dict[str, _Curve]:
    from sklearn.metrics import average_precision_score, precision_recall_curve

    found = {}
    for name, truth, scores in _classes(network):
        precision, recall, _ = precision_recall_curve(truth, scores, drop_intermediate=True)
        found[name] = _Curve(recall, precision, float(average_precision_score(truth, scores)))
    return found


def _corner(curves: Iterable[_Curve], ideal_x: float) -> float:
    """Side of the corner around the ideal point that shows the bend of every curve."""
    nearest = [float(np.maximum(np.abs(curve.x - ideal_x), 1 - curve.y).min()) for curve in curves]
    return next(side for side in _CORNERS if max(nearest, default=1.0) <= side / 2 or side == 1)


def _panel(network: ReportedModel, kind: str, curves: Mapping[str, _Curve]) -> Panel:
    measure = {"roc": "area under the ROC curve", "precision-recall": "average precision"}[kind]
    areas = ", ".join(f"{name} {curve.area:.4f}" for name, curve in curves.items())
    axes = {"roc": ("false_positive_rate", "true_positive_rate"), "precision-recall": ("recall", "precision")}[kind]
    data: dict[str, Any] = {
        name: {measure.replace(" ", "_"): curve.area, axes[0]: curve.x.tolist(), axes[1]: curve.y.tolist()}
        for name, curve in curves.items()
    }
    return Panel(
        name=f"{kind}-{network.slug}",
        alt=f"{network.name}: {measure}: {areas}",
        draw=functools.partial(_draw, network.name, [axis.replace("_", " ") for axis in axes], curves),
        data={"network": network.name, "classes": data},
    )


def _draw(title: str, names: Sequence[str], curves: Mapping[str, _Curve]) -> Drawing:
    drawn, area = drawing.axes(*_SIZE, title=title)
    rises = "false" in names[0]
    corner = _corner(curves.values(), ideal_x=0 if rises else 1)
    for number, (name, curve) in enumerate(curves.items()):
        color = drawing.COLOURS[number % len(drawing.COLOURS)]
        dash = drawing.DASHES[number % len(drawing.DASHES)]
        area.plot(curve.x, curve.y, linestyle=dash, color=color, label=f"{name} {curve.area:.4f}")
    if rises:
        area.plot([0, 1], [0, 1], color=drawing.INK, alpha=0.3, linewidth=0.8)
    # A little beyond the ideal point, so that the edge does not hide lines along it.
    beyond = 0.02 * corner
    area.set_xlim(*((-beyond, corner) if rises else (1 - corner, 1 + beyond)))
    area.set_ylim(1 - corner, 1 + beyond)
    area.set_xlabel(names[0])
    area.set_ylabel(names[1])
    area.grid(visible=True)
    area.legend(loc="lower right" if rises else "lower left")
    return drawn
