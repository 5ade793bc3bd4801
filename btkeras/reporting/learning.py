"""Learning curves: what ``history.csv`` holds of each fold."""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from btkeras.errors import RunError
from btkeras.reporting import drawing
from btkeras.reporting.document import Block, Figure, Panel, Text
from btkeras.reporting.evidence import ReportData, ReportedModel
from btkeras.reporting.sources import TrainedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

_SIZE = (360, 250)


@dataclass(frozen=True)
class _Curve:
    """Attributes:
    column: Of ``history.csv``.
    name: In the legend.
    color: Of its lines.
    dash: Of its lines.
    """

    column: str
    name: str
    color: str
    dash: str


# What is shown of the history's columns, by the name of the training's one.
_FIGURES = {
    name: (_Curve(name, "training", drawing.RED, "--"), _Curve(f"val_{name}", "validation", drawing.BLUE, "-"))
    for name in ("accuracy", "loss")
}

_History = Mapping[str, Sequence[float]]


def learning_blocks(evidence: ReportData) -> list[Block]:
    """Accuracy and loss over the epochs, a figure each with a panel per network."""
    histories = {network.name: [_read(run) for run in network.runs] for network in evidence.networks}
    learning = [network for network in evidence.networks if any(histories[network.name])]
    notes = ("A thin line per training; the thick line is their mean, as far as all of them went.",)
    blocks: list[Block] = []
    for figure in _FIGURES if learning else ():
        panels = tuple(_panel(network, figure, list(filter(None, histories[network.name]))) for network in learning)
        blocks.append(Figure(f"{figure}-over-epochs", f"{figure.capitalize()} over the epochs", panels, notes))
    without = [network.name for network in evidence.networks if not any(histories[network.name])]
    if without:
        blocks.append(Text((f"Without learning curves, for they do not learn in epochs: {', '.join(without)}.",)))
    return blocks


def _read(trained: TrainedRun) -> _History:
    file = trained.run.history_file
    if not file.is_file():
        return {}
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(lines)]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise RunError(f"{file} must be a CSV file of numbers, a line per epoch", received=error) from error
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def _panel(network: ReportedModel, figure: str, histories: Sequence[_History]) -> Panel:
    curves = _FIGURES[figure]
    data = {curve.name: [list(history.get(curve.column, ())) for history in histories] for curve in curves}
    last = {name: np.mean([line[-1] for line in lines if line]) for name, lines in data.items() if any(lines)}
    ends = ", ".join(f"{name} {value:.3f}" for name, value in last.items())
    return Panel(
        name=f"learning-{figure}-{network.slug}",
        alt=f"{network.name}: {figure} over the epochs of {len(histories)} trainings; at the end on average {ends}",
        draw=functools.partial(_draw, network.name, figure, data),
        data={"network": network.name, "figure": figure, **data},
    )


def _draw(title: str, figure: str, data: Mapping[str, Sequence[Sequence[float]]]) -> Drawing:
    drawn, area = drawing.axes(*_SIZE, title=title)
    for curve in _FIGURES[figure]:
        _draw_curve(area, curve, [line for line in data[curve.name] if line])
    area.set_xlabel("epoch")
    area.set_ylabel(figure)
    area.grid(visible=True)
    area.legend(loc="best")
    return drawn


def _draw_curve(area: Axes, curve: _Curve, lines: Sequence[Sequence[float]]) -> None:
    if not lines:
        return
    for line in lines if len(lines) > 1 else ():
        area.plot(range(1, len(line) + 1), line, curve.dash, color=curve.color, linewidth=0.5, alpha=0.6)
    common = min(len(line) for line in lines)
    mean = np.mean([line[:common] for line in lines], axis=0)
    # One epoch is no line.
    marker = "o" if common == 1 else ""
    epochs = range(1, common + 1)
    area.plot(epochs, mean, curve.dash, marker=marker, color=curve.color, linewidth=1.6, label=curve.name)
