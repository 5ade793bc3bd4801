"""A report's confusion matrices, and the accuracies of its models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.reporting import published
from btkeras.reporting.document import Block, Figure, Panel, percent
from btkeras.reporting.plots import SIZE, draw_estimates, draw_matrix
from btkeras.reporting.report_data import ReportData, ReportedModel

_SHADING = (
    "Blue: right; orange: wrong; the stronger, the larger its share of the row. Errors are shown stronger than they "
    "are, to be seen at all."
)


def headline_figures(data: ReportData) -> list[Block]:
    """The best model's confusion matrix and, of models that compare, their accuracies with intervals."""
    best = data.best
    matrix = replace(_matrix_panel(best), name=f"headline-{best.slug}")
    caption = f"Confusion matrix of {best.name}. Off the diagonal, a class is taken for another"
    blocks: list[Block] = [Figure("headline", caption, (matrix,), (_SHADING,))]
    if data.comparisons:
        caption = "Accuracies of all models. Where intervals overlap widely, the order may be chance"
        blocks.append(Figure("accuracies", caption, (_accuracy_panel(data),)))
    return blocks


def _accuracy_panel(data: ReportData) -> Panel:
    rows = {model.name: (100 * model.accuracy, [100 * end for end in model.accuracy_interval]) for model in data.ranked}
    paper = {**published.METHODS, **published.NETWORKS, **published.ABLATION}
    known = [model for model in data.ranked if published.compares_with(model.source.manifest["classes"])]
    marks = {model.name: 100 * paper[model.model]["accuracy"] for model in known if model.model in paper}
    alt = "Accuracy, %: " + ", ".join(f"{name} {value:.2f}" for name, (value, _) in rows.items())
    numbers = {name: {"accuracy": value, "interval": interval} for name, (value, interval) in rows.items()}
    draw = partial(draw_estimates, "", "accuracy, %", rows, marks, "the paper's")
    return Panel("accuracies-of-all", alt, draw, {"models": numbers, "paper": marks})


def matrix_blocks(data: ReportData) -> list[Block]:
    """The pooled confusion matrices of several models, and those of the folds."""
    caption, panels = f"Confusion matrices of {data.pooled}", tuple(map(_matrix_panel, data.models))
    pooled = Figure("confusion", caption, panels, (_SHADING,))
    folds = [_fold_figure(model) for model in data.models if len(model.runs) > 1]
    return [*([pooled] if len(data.models) > 1 else []), *folds]


def _fold_figure(model: ReportedModel) -> Figure:
    classes = model.metrics["pooled"]["classes"]
    # The shortest beginnings that tell the classes apart.
    length = next(n for n in range(1, 100) if len({label[:n] for label in classes}) == len(set(classes)))
    short = {label: label[:length].capitalize() for label in classes}
    panels = tuple(_matrix_panel(model, fold, list(short.values())) for fold in model.metrics["folds"])
    caption = f"Confusion matrices of the single folds of {model.name}, with their accuracies"
    note = ", ".join(f"{beginning} {label}" for label, beginning in short.items())
    return Figure(f"folds-{model.slug}", caption, panels, (f"{note}.",))


def _matrix_panel(model: ReportedModel, fold: Mapping[str, Any] | None = None, short: Sequence[str] = ()) -> Panel:
    """The matrix of all predictions, or, smaller and with short labels, of a fold's."""
    classes, matrix = model.metrics["pooled"]["classes"], (fold or model.metrics["pooled"])["confusion_matrix"]
    name, title, where, data = f"confusion-{model.slug}", model.name, "", {}
    if fold:
        several_seeds = len({run.seed for run in model.runs}) > 1
        where = f"fold {fold['fold']}" + (f", seed {fold['seed']}" if several_seeds else "")
        name, title = f"{name}-seed-{fold['seed']}-fold-{fold['fold']}", f"{where}: {percent(fold['accuracy'])} %"
        data = {key: fold[key] for key in ("fold", "seed", "accuracy")}
    alt = f"Confusion matrix of {model.name}{where and f', {where}'}: {_format_matrix(classes, np.array(matrix))}"
    draw = partial(draw_matrix, title, matrix, short or classes, size=(230, 235) if fold else SIZE)
    return Panel(name, alt, draw, {"model": model.name, "classes": classes, **data, "confusion_matrix": matrix})


def _format_matrix(classes: Sequence[str], counts: NDArray[np.int64]) -> str:
    wrong = [(counts[i, j], classes[i], classes[j]) for i, j in zip(*np.nonzero(counts), strict=True) if i != j]
    # Python's sort keeps the order of equals, so that the text is the same each time.
    wrong = sorted(wrong, key=lambda each: -each[0])[:3]
    most = ", ".join(f"{n} of {label} predicted as {other}" for n, label, other in wrong)
    return f"{counts.trace():,} of {counts.sum():,} right" + (f"; most often wrong: {most}" if most else "")
