"""A report's figures: learning curves, confusion matrices, ROC, precision-recall, calibration and robustness."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.errors import RunError
from btkeras.reporting.document import Block, Figure, Panel, Text, percent
from btkeras.reporting.plots import BLUE, RED, Line, LinePlot, MatrixPlot, nth_style, thin
from btkeras.reporting.report_data import ReportData, ReportedModel
from btkeras.reporting.sources import TrainedRun

_POOLED, _FOLD = (390, 330), (170, 175)
# Sides of the corner that is shown, the smallest that holds the curves' bend.
_CORNERS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_SCALES = "The scales differ: each plot shows the corner in which its curves bend."
_SHADING = (
    "Rows are the true classes, columns the predicted ones. Blue: right; orange: wrong; the stronger, the larger its "
    "share of the row. Errors are shown stronger than they are, to be seen at all."
)
_Plot = LinePlot | MatrixPlot


def _figure(
    name: str, caption: str, models: Sequence[ReportedModel], panel: Callable[[ReportedModel], Panel], *notes: str
) -> Figure:
    return Figure(name, caption, tuple(map(panel, models)), notes)


def learning_blocks(data: ReportData) -> list[Block]:
    """Accuracy and loss over the epochs, as ``history.csv`` has them: a figure each with a panel per model."""
    histories = {model.name: [found for run in model.runs if (found := _history(run))] for model in data.models}
    learning = [model for model in data.models if histories[model.name]]
    note = "A thin line per training; the thick line is their mean, as far as all of them went."
    blocks: list[Block] = [
        _figure(
            f"{metric}-over-epochs",
            f"{metric.capitalize()} over the epochs",
            learning,
            lambda model, metric=metric: _learning_panel(model, metric, histories[model.name]),
            note,
        )
        for metric in (("accuracy", "loss") if learning else ())
    ]
    without = [model.name for model in data.models if not histories[model.name]]
    if without:
        blocks.append(Text((f"Without learning curves, for they do not learn in epochs: {', '.join(without)}.",)))
    return blocks


def _history(trained: TrainedRun) -> dict[str, list[float]]:
    file = trained.run.history_file
    if not file.is_file():
        return {}
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(lines)]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise RunError(f"{file} must be a CSV file of numbers, a line per epoch", received=error) from error
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def _learning_panel(model: ReportedModel, metric: str, histories: Sequence[Mapping[str, list[float]]]) -> Panel:
    columns = {"training": metric, "validation": f"val_{metric}"}
    curves = {name: [history.get(column, []) for history in histories] for name, column in columns.items()}
    last = {name: np.mean([line[-1] for line in lines if line]) for name, lines in curves.items() if any(lines)}
    ends = ", ".join(f"{name} {value:.3f}" for name, value in last.items())
    styles = {"training": {"color": RED, "linestyle": "--"}, "validation": {"color": BLUE, "linestyle": "-"}}
    lines = [line for name in last for line in _mean_lines(name, [line for line in curves[name] if line], styles[name])]
    return Panel(
        f"learning-{metric}-{model.slug}",
        f"{model.name}: {metric} over the epochs of {len(histories)} trainings; at the end on average {ends}",
        LinePlot(model.name, ("epoch", metric), lines, (360, 250)).draw,
        {"model": model.name, "metric": metric, **curves},
    )


def _mean_lines(name: str, curves: Sequence[Sequence[float]], style: Mapping[str, Any]) -> list[Line]:
    common = min(map(len, curves))
    mean = np.mean([curve[:common] for curve in curves], axis=0)
    # One epoch is no line.
    thick = Line(
        range(1, common + 1), mean, {**style, "linewidth": 1.6, "marker": "o" if common == 1 else "", "label": name}
    )
    several = curves if len(curves) > 1 else ()
    return [*(Line(range(1, len(c) + 1), c, {**style, "linewidth": 0.5, "alpha": 0.6}) for c in several), thick]


def matrix_blocks(data: ReportData) -> list[Block]:
    """The pooled confusion matrices, then those of the folds."""
    pooled = _figure("confusion", f"Confusion matrices of {data.pooled}", data.models, _pooled_panel, _SHADING)
    return [pooled, *(_fold_figure(model) for model in data.models if len(model.runs) > 1)]


def _pooled_panel(model: ReportedModel) -> Panel:
    pooled = model.metrics["pooled"]
    classes, matrix = pooled["classes"], pooled["confusion_matrix"]
    return Panel(
        f"confusion-{model.slug}",
        f"Confusion matrix of {model.name}: {_format_matrix(classes, matrix)}",
        MatrixPlot(model.name, matrix, classes, _POOLED).draw,
        {"model": model.name, "classes": classes, "confusion_matrix": matrix},
    )


def _fold_figure(model: ReportedModel) -> Figure:
    several_seeds = len({run.seed for run in model.runs}) > 1
    short = _short(model.metrics["pooled"]["classes"])
    return Figure(
        f"folds-{model.slug}",
        f"Confusion matrices of the single folds of {model.name}, with their accuracies",
        tuple(_fold_panel(model, fold, short, several_seeds) for fold in model.metrics["folds"]),
        (", ".join(f"{beginning} {label}" for label, beginning in short.items()) + ".",),
    )


def _fold_panel(model: ReportedModel, fold: Mapping[str, Any], short: Mapping[str, str], several_seeds: bool) -> Panel:
    matrix = fold["confusion_matrix"]
    where = f"fold {fold['fold']}" + (f", seed {fold['seed']}" if several_seeds else "")
    metrics = {key: fold[key] for key in ("fold", "seed", "accuracy", "confusion_matrix")}
    return Panel(
        f"confusion-{model.slug}-seed-{fold['seed']}-fold-{fold['fold']}",
        f"Confusion matrix of {model.name}, {where}: {_format_matrix(list(short), matrix)}",
        MatrixPlot(f"{where}: {percent(fold['accuracy'])} %", matrix, list(short.values()), _FOLD).draw,
        {"model": model.name, "classes": list(short), **metrics},
    )


def _format_matrix(classes: Sequence[str], matrix: Sequence[Sequence[int]]) -> str:
    counts = np.array(matrix)
    wrong = [
        (int(counts[i, j]), f"{counts[i, j]} of {classes[i]} predicted as {classes[j]}")
        for i, j in zip(*np.nonzero(counts), strict=True)
        if i != j
    ]
    # Python's sort keeps the order of equals, so that the text is the same each time.
    most = [text for _, text in sorted(wrong, key=lambda item: -item[0])[:3]]
    return f"{counts.trace():,} of {counts.sum():,} right" + (f"; most often wrong: {', '.join(most)}" if most else "")


def _short(classes: Sequence[str]) -> dict[str, str]:
    """The shortest beginnings that tell the classes apart."""
    length = next(n for n in range(1, 100) if len({label[:n] for label in classes}) == len(set(classes)))
    return {label: label[:length].capitalize() for label in classes}


def curve_blocks(data: ReportData) -> list[Block]:
    """ROC and precision-recall curves, each class against the rest."""
    of = f"of {data.pooled}, each class against the rest"
    recall = f"Precision-recall curves {of}, and average precisions"
    return [
        _figure("roc", f"ROC curves {of}, and the areas under them", data.models, _roc_panel, _SCALES),
        _figure("precision-recall", recall, data.models, _precision_recall_panel, _SCALES),
    ]


def _classes(model: ReportedModel) -> dict[str, tuple[NDArray[np.bool_], NDArray[np.float64]]]:
    """Truth and probability of each class that some of the test images have, and some have not."""
    found = {
        name: (model.labels == i, model.probabilities[:, i]) for i, name in enumerate(model.source.summary["classes"])
    }
    return {name: pair for name, pair in found.items() if 0 < pair[0].mean() < 1}


def _roc_panel(model: ReportedModel) -> Panel:
    from sklearn.metrics import roc_auc_score, roc_curve

    found = {name: (*roc_curve(*pair)[:2], roc_auc_score(*pair)) for name, pair in _classes(model).items()}
    keys = ("false_positive_rate", "true_positive_rate", "area_under_the_ROC_curve")
    return _rate_panel("roc", model, keys, found, rises=True)


def _precision_recall_panel(model: ReportedModel) -> Panel:
    from sklearn.metrics import average_precision_score, precision_recall_curve

    found = {}
    for name, pair in _classes(model).items():
        precision, recall, _ = precision_recall_curve(*pair, drop_intermediate=True)
        found[name] = (recall, precision, average_precision_score(*pair))
    return _rate_panel("precision-recall", model, ("recall", "precision", "average_precision"), found, rises=False)


def _rate_panel(
    kind: str, model: ReportedModel, keys: Sequence[str], curves: Mapping[str, Any], *, rises: bool
) -> Panel:
    x, y, measure = (key.replace("_", " ") for key in keys)
    corner = _corner([(xs, ys) for xs, ys, _ in curves.values()], ideal_x=0 if rises else 1)
    # A little beyond the ideal point, so that the edge does not hide lines along it.
    beyond = 0.02 * corner
    limits = ((-beyond, corner) if rises else (1 - corner, 1 + beyond), (1 - corner, 1 + beyond))
    lines = [
        Line(xs, ys, {**nth_style(number), "label": f"{name} {area:.4f}"})
        for number, (name, (xs, ys, area)) in enumerate(curves.items())
    ]
    lines += [thin([0, 1], [0, 1])] if rises else []
    legend = {"loc": "lower right" if rises else "lower left"}
    areas = ", ".join(f"{name} {area:.4f}" for name, (_, _, area) in curves.items())
    shown = {
        name: dict(zip(keys, (xs.tolist(), ys.tolist(), float(area)), strict=True))
        for name, (xs, ys, area) in curves.items()
    }
    return Panel(
        f"{kind}-{model.slug}",
        f"{model.name}: {measure}: {areas}",
        LinePlot(model.name, (x, y), lines, limits=limits, legend=legend).draw,
        {"model": model.name, "classes": shown},
    )


def _corner(curves: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]], ideal_x: float) -> float:
    """Side of the corner around the ideal point that shows the bend of every curve."""
    nearest = [float(np.maximum(np.abs(x - ideal_x), 1 - y).min()) for x, y in curves]
    return next(side for side in _CORNERS if max(nearest, default=1.0) <= side / 2 or side == 1)
