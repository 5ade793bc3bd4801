"""A report's figures: learning curves, confusion matrices, ROC, precision-recall, calibration and robustness."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.metrics import wilson
from btkeras.metrics.calibration import ESTIMATOR, Reliability, reliability, risk_coverage, top_label
from btkeras.reporting.document import Block, Figure, Panel, Text, percent, tenths
from btkeras.reporting.plots import BLUE, RED, Line, LinePlot, MatrixPlot, nth_style, thin
from btkeras.reporting.report_data import ReportData, ReportedModel

_POOLED, _FOLD = (390, 330), (170, 175)
# Sides of the corner that is shown, the smallest that holds the curves' bend.
_CORNERS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_SCALES = "The scales differ: each plot shows the corner in which its curves bend."
_SHADING = (
    "Rows are the true classes, columns the predicted ones. Blue: right; orange: wrong; the stronger, the larger its "
    "share of the row. Errors are shown stronger than they are, to be seen at all."
)
_STAGE_STYLES: dict[str, dict[str, Any]] = {
    "before": {"color": RED, "linestyle": (0, (4, 2)), "marker": "o"},
    "after": {"color": BLUE, "marker": "s"},
}
_BESIDE = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
# More points of a curve nobody sees.
_POINTS = 200
_BINS = (
    f"{ESTIMATOR[0].upper()}{ESTIMATOR[1:]}; bars are 95 % Wilson intervals. The scales differ: each plot shows where "
    "its points lie."
)


def _figure(
    name: str, caption: str, models: Sequence[ReportedModel], panel: Callable[[ReportedModel], Panel], *notes: str
) -> Figure:
    return Figure(name, caption, tuple(map(panel, models)), notes)


def learning_blocks(data: ReportData) -> list[Block]:
    """Accuracy and loss over the epochs, as ``history.csv`` has them: a figure each with a panel per model."""
    histories = {model.name: [run.history for run in model.runs if run.history] for model in data.models}
    learning = [model for model in data.models if histories[model.name]]
    without = [model.name for model in data.models if not histories[model.name]]
    note = "A thin line per training; the thick line is their mean, as far as all of them went."
    blocks: list[Block] = []
    for metric in ("accuracy", "loss") if learning else ():
        panels = tuple(_learning_panel(model, metric, histories[model.name]) for model in learning)
        blocks.append(Figure(f"{metric}-over-epochs", f"{metric.capitalize()} over the epochs", panels, (note,)))
    if without:
        blocks.append(Text((f"Without learning curves, for they do not learn in epochs: {', '.join(without)}.",)))
    return blocks


def _learning_panel(model: ReportedModel, metric: str, histories: Sequence[Mapping[str, list[float]]]) -> Panel:
    columns = {"training": metric, "validation": f"val_{metric}"}
    curves = {name: [history.get(column, []) for history in histories] for name, column in columns.items()}
    last = {name: np.mean([line[-1] for line in lines if line]) for name, lines in curves.items() if any(lines)}
    ends = ", ".join(f"{name} {value:.3f}" for name, value in last.items())
    lines = [line for name in last for line in _mean_lines(name, list(filter(None, curves[name])))]
    return Panel(
        f"learning-{metric}-{model.slug}",
        f"{model.name}: {metric} over the epochs of {len(histories)} trainings; at the end on average {ends}",
        LinePlot(model.name, ("epoch", metric), lines, (360, 250)).draw,
        {"model": model.name, "metric": metric, **curves},
    )


def _mean_lines(name: str, curves: Sequence[Sequence[float]]) -> list[Line]:
    style = {"training": {"color": RED, "linestyle": "--"}, "validation": {"color": BLUE}}[name]
    common = min(map(len, curves))
    mean, epochs = np.mean([curve[:common] for curve in curves], axis=0), range(1, common + 1)
    thin_style = {**style, "linewidth": 0.5, "alpha": 0.6}
    lines = [Line(range(1, len(curve) + 1), curve, thin_style) for curve in curves] if len(curves) > 1 else []
    # One epoch is no line.
    marker = "o" if common == 1 else ""
    return [*lines, Line(epochs, mean, {**style, "linewidth": 1.6, "marker": marker, "label": name})]


def matrix_blocks(data: ReportData) -> list[Block]:
    """The pooled confusion matrices, then those of the folds."""
    pooled = _figure("confusion", f"Confusion matrices of {data.pooled}", data.models, _pooled_panel, _SHADING)
    return [pooled, *(_fold_figure(model) for model in data.models if len(model.runs) > 1)]


def _pooled_panel(model: ReportedModel) -> Panel:
    pooled = model.metrics["pooled"]
    plot = MatrixPlot(model.name, pooled["confusion_matrix"], pooled["classes"], _POOLED)
    return _matrix_panel(model, "", "", plot, {})


def _fold_figure(model: ReportedModel) -> Figure:
    short = _short(model.metrics["pooled"]["classes"])
    panels = tuple(_fold_panel(model, fold, list(short.values())) for fold in model.metrics["folds"])
    caption = f"Confusion matrices of the single folds of {model.name}, with their accuracies"
    note = ", ".join(f"{beginning} {label}" for label, beginning in short.items())
    return Figure(f"folds-{model.slug}", caption, panels, (f"{note}.",))


def _fold_panel(model: ReportedModel, fold: Mapping[str, Any], labels: Sequence[str]) -> Panel:
    several_seeds = len({run.seed for run in model.runs}) > 1
    where = f"fold {fold['fold']}" + (f", seed {fold['seed']}" if several_seeds else "")
    plot = MatrixPlot(f"{where}: {percent(fold['accuracy'])} %", fold["confusion_matrix"], labels, _FOLD)
    data = {key: fold[key] for key in ("fold", "seed", "accuracy")}
    return _matrix_panel(model, f"-seed-{fold['seed']}-fold-{fold['fold']}", f", {where}", plot, data)


def _matrix_panel(model: ReportedModel, suffix: str, where: str, plot: MatrixPlot, data: Mapping[str, Any]) -> Panel:
    classes = model.metrics["pooled"]["classes"]
    return Panel(
        f"confusion-{model.slug}{suffix}",
        f"Confusion matrix of {model.name}{where}: {_format_matrix(classes, plot.matrix)}",
        plot.draw,
        {"model": model.name, "classes": classes, **data, "confusion_matrix": plot.matrix},
    )


def _format_matrix(classes: Sequence[str], matrix: Sequence[Sequence[int]]) -> str:
    counts = np.array(matrix)
    wrong = [(counts[i, j], classes[i], classes[j]) for i, j in zip(*np.nonzero(counts), strict=True) if i != j]
    # Python's sort keeps the order of equals, so that the text is the same each time.
    most = ", ".join(
        f"{n} of {label} predicted as {other}" for n, label, other in sorted(wrong, key=lambda w: -w[0])[:3]
    )
    return f"{counts.trace():,} of {counts.sum():,} right" + (f"; most often wrong: {most}" if most else "")


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
        name: (model.labels == i, model.probabilities[:, i]) for i, name in enumerate(model.source.manifest["classes"])
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
    areas = {name: f"{name} {area:.4f}" for name, (_, _, area) in curves.items()}
    lines = [
        Line(xs, ys, {**nth_style(number), "label": areas[name]})
        for number, (name, (xs, ys, _)) in enumerate(curves.items())
    ]
    shown = {
        name: dict(zip(keys, (xs.tolist(), ys.tolist(), float(area)), strict=True))
        for name, (xs, ys, area) in curves.items()
    }
    side = _corner([(xs, ys) for xs, ys, _ in curves.values()], ideal_x=0 if rises else 1)
    # A little beyond the ideal point, so that the edge does not hide lines along it.
    top = (1 - side, 1 + 0.02 * side)
    limits = ((-0.02 * side, side) if rises else top, top)
    lines += [thin([0, 1], [0, 1])] if rises else []
    legend = {"loc": "lower right" if rises else "lower left"}
    return Panel(
        f"{kind}-{model.slug}",
        f"{model.name}: {measure}: {', '.join(areas.values())}",
        LinePlot(model.name, (x, y), lines, limits=limits, legend=legend).draw,
        {"model": model.name, "classes": shown},
    )


def _corner(curves: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]], ideal_x: float) -> float:
    """Side of the corner around the ideal point that shows the bend of every curve."""
    nearest = [float(np.maximum(np.abs(x - ideal_x), 1 - y).min()) for x, y in curves]
    return next(side for side in _CORNERS if max(nearest, default=1.0) <= side / 2 or side == 1)


def calibration_figures(data: ReportData) -> list[Figure]:
    """Reliability diagrams and risk-coverage curves."""
    of = data.pooled
    diagrams = f"Reliability diagrams of {of}: how often the most probable class is right, by its probability"
    curves = f"Risk-coverage curves of {of}: the share that is wrong where the least sure are left out"
    note = "Grey: the best that any order of the same predictions could do."
    return [
        _figure("reliability", diagrams, data.models, _reliability_panel, _BINS),
        _figure("risk-coverage", curves, data.models, _risk_panel, note),
    ]


def _reliability_panel(model: ReportedModel) -> Panel:
    curves = {stage: reliability(*top_label(model.labels, p)) for stage, p in model.stages.items()}
    errors = ", ".join(f"{stage} {percent(curve.error)} %" for stage, curve in curves.items())
    keys = ("confidence", "frequency", "images")
    shown = {
        stage: {"ece": curve.error, **{key: getattr(curve, key).tolist() for key in keys}}
        for stage, curve in curves.items()
    }
    return Panel(
        f"reliability-{model.slug}",
        f"{model.name}: expected calibration error {errors}",
        _reliability_plot(model.name, curves).draw,
        {"model": model.name, "estimator": ESTIMATOR, "stages": shown},
    )


def _reliability_plot(title: str, curves: Mapping[str, Reliability]) -> LinePlot:
    lines = [_stage_line(stage, curve, alone=len(curves) == 1) for stage, curve in curves.items()]
    least = min(float(values.min()) for curve in curves.values() for values in (curve.confidence, curve.frequency))
    lowest = np.floor(10 * least - 1e-9) / 10
    limits = (lowest, 1 + 0.02 * (1 - lowest))
    labels = ("probability of the most probable class", "share of right predictions")
    return LinePlot(
        title, labels, [*lines, thin([0, 1], [0, 1])], limits=(limits, limits), legend={"loc": "upper left"}
    )


def _stage_line(stage: str, curve: Reliability, *, alone: bool) -> Line:
    right = np.rint(curve.frequency * curve.images)
    bounds = np.array([wilson(float(k), int(n)) for k, n in zip(right, curve.images, strict=True)]).T
    style = {
        **_STAGE_STYLES[stage],
        **{"markersize": 3.5, "linewidth": 1, "elinewidth": 0.6, "alpha": 0.9},
        "label": f"{'' if alone else f'{stage}: '}ECE {percent(curve.error)} %",
        "yerr": np.abs(bounds - curve.frequency),
    }
    return Line(curve.confidence, curve.frequency, style)


def _risk_panel(model: ReportedModel) -> Panel:
    coverage, risk = risk_coverage(model.labels, model.probabilities)
    covered, aurc = np.arange(1, len(risk) + 1), float(risk.mean())
    # The least that is wrong among so many: all that is right comes first.
    best = np.maximum(0, covered - round(len(risk) * (1 - risk[-1]))) / covered
    shown = np.unique(np.linspace(0, len(risk) - 1, _POINTS).astype(int))
    curves = {"coverage": coverage[shown], "risk": risk[shown], "least_risk": best[shown]}
    x, y, least = (100 * values for values in curves.values())
    lines = [thin(x, least), Line(x, y, {"color": BLUE, "label": f"AURC {percent(aurc, 3)} %"})]
    labels, limits = ("coverage, %", "wrong among the covered, %"), ((0, 102), (0, None))
    return Panel(
        f"risk-coverage-{model.slug}",
        f"{model.name}: area under the risk-coverage curve {percent(aurc, 3)} %",
        LinePlot(model.name, labels, lines, limits=limits, legend={"loc": "upper left"}).draw,
        {"model": model.name, "aurc": aurc, **{name: values.tolist() for name, values in curves.items()}},
    )


def robustness_panel(title: str, slug: str, sheet: Mapping[str, Any]) -> Panel:
    """Accuracy by strength of each corruption; arguments as of ``robustness_table``."""
    curves = {row["name"]: [sheet["clean"], *row["levels"]] for row in sheet["corruptions"]}
    data = {
        name: {"levels": [row.get("level", 0) for row in rows], "accuracy": [row["accuracy"] for row in rows]}
        for name, rows in curves.items()
    }
    lines = [
        Line(curve["levels"], [100 * value for value in curve["accuracy"]], {**nth_style(number), "label": name})
        for number, (name, curve) in enumerate(data.items())
    ]
    means = {row["name"]: row["mean"]["accuracy"] for row in sheet["corruptions"]}
    lowest = min(means, key=means.__getitem__)
    return Panel(
        f"robustness-{slug}",
        f"{title}: mean accuracy {tenths(sheet['mean']['accuracy'])} % over all corruptions, lowest under {lowest} "
        f"with {tenths(means[lowest])} %",
        LinePlot(title, ("strength", "accuracy, %"), lines, (460, 340), (None, (0, 101)), _BESIDE).draw,
        {"model": title, "corruptions": data},
    )
