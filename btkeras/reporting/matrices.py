"""Confusion matrices: of each fold, small, and of all folds together."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from btkeras.reporting import drawing
from btkeras.reporting.document import Block, Figure, Panel
from btkeras.reporting.evidence import ReportData, ReportedModel
from btkeras.reporting.numbers import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

_POOLED, _FOLD = (390, 330), (170, 175)
_SHADE = 0.55


def matrix_blocks(evidence: ReportData) -> list[Block]:
    """The pooled matrices, then those of the folds."""
    shading = (
        "Rows are the true classes, columns the answers. Blue: right; orange: wrong; the stronger, the larger its part "
        "of the row, where errors are shown stronger than they are, to be seen at all."
    )
    pooled = tuple(_pooled_panel(network) for network in evidence.networks)
    blocks: list[Block] = [Figure("confusion", f"Confusion matrices of {evidence.pooled}", pooled, (shading,))]
    short = _short(evidence.sources[0].summary["classes"])
    letters = ", ".join(f"{beginning} {label}" for label, beginning in short.items())
    return blocks + [_folds(network, letters) for network in evidence.networks if len(network.runs) > 1]


def _folds(network: ReportedModel, letters: str) -> Figure:
    several_seeds = len({run.seed for run in network.runs}) > 1
    panels = tuple(_fold_panel(network, fold, several_seeds) for fold in network.figures["folds"])
    caption = f"Confusion matrices of the single folds of {network.name}, with their accuracies"
    return Figure(f"folds-{network.slug}", caption, panels, (f"{letters}.",))


def _pooled_panel(network: ReportedModel) -> Panel:
    pooled = network.figures["pooled"]
    classes, matrix = pooled["classes"], pooled["confusion_matrix"]
    return Panel(
        name=f"confusion-{network.slug}",
        alt=f"Confusion matrix of {network.name}: {_in_words(classes, matrix)}",
        draw=functools.partial(_draw, network.name, matrix, classes, _POOLED),
        data={"network": network.name, "classes": classes, "confusion_matrix": matrix},
    )


def _fold_panel(network: ReportedModel, fold: Any, several_seeds: bool) -> Panel:
    classes, matrix = network.figures["pooled"]["classes"], fold["confusion_matrix"]
    where = f"fold {fold['fold']}" + (f", seed {fold['seed']}" if several_seeds else "")
    title = f"{where}: {percent(fold['accuracy'])} %"
    facts = {"network": network.name, "fold": fold["fold"], "seed": fold["seed"], "classes": classes}
    return Panel(
        name=f"confusion-{network.slug}-seed-{fold['seed']}-fold-{fold['fold']}",
        alt=f"Confusion matrix of {network.name}, {where}: {_in_words(classes, matrix)}",
        draw=functools.partial(_draw, title, matrix, list(_short(classes).values()), _FOLD),
        data={**facts, "accuracy": fold["accuracy"], "confusion_matrix": matrix},
    )


def _in_words(classes: Sequence[str], matrix: Sequence[Sequence[int]]) -> str:
    wrong = [
        (matrix[i][j], f"{matrix[i][j]} of {classes[i]} taken for {classes[j]}")
        for i in range(len(classes))
        for j in range(len(classes))
        if i != j and matrix[i][j]
    ]
    total, right = sum(map(sum, matrix)), sum(row[i] for i, row in enumerate(matrix))
    # Python's sort keeps the order of equals, so that the text is the same each time.
    most = [text for _, text in sorted(wrong, key=lambda item: -item[0])[:3]]
    return f"{right:,} of {total:,} right" + (f"; most often wrong: {', '.join(most)}" if most else "")


def _short(classes: Sequence[str]) -> dict[str, str]:
    """The shortest beginnings that tell the classes apart."""
    length = next(n for n in range(1, 100) if len({label[:n] for label in classes}) == len(set(classes)))
    return {label: label[:length].capitalize() for label in classes}


def _draw(title: str, matrix: Sequence[Sequence[int]], labels: Sequence[str], size: tuple[int, int]) -> Drawing:
    from matplotlib.patches import Rectangle

    drawn, area = drawing.axes(*size, title=title)
    counts = np.array(matrix)
    parts = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for i, j in np.ndindex(*counts.shape):
        # The root makes an error of one in a hundred visible.
        part, color = (parts[i, j], drawing.BLUE) if i == j else (np.cbrt(parts[i, j]), drawing.RED)
        if counts[i, j]:
            area.add_patch(Rectangle((j, i), 1, 1, facecolor=color, alpha=_SHADE * float(part), linewidth=0))
        weight = "bold" if i == j else "normal"
        area.text(j + 0.5, i + 0.5, f"{counts[i, j]:,}", ha="center", va="center", fontweight=weight)
    middles = np.arange(len(labels)) + 0.5
    area.set_xlim(0, len(labels))
    area.set_ylim(len(labels), 0)
    area.set_xticks(middles, labels)
    area.set_yticks(middles, labels)
    area.tick_params(length=0)
    area.spines[:].set_visible(False)
    area.set_xlabel("answer")
    area.set_ylabel("true class")
    return drawn
