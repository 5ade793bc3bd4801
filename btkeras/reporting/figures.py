"""A report's figures: learning curves, confusion matrices, ROC, precision-recall, calibration and robustness."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.metrics import wilson
from btkeras.metrics.calibration import ESTIMATOR, Reliability, reliability, top_label
from btkeras.reporting.document import Block, Figure, Panel, Text, percent, tenths
from btkeras.reporting.plots import BLUE, DIAGONAL, RED, Line, draw_lines, draw_matrix, nth_style
from btkeras.reporting.report_data import ReportData, ReportedModel

# Axes of a kind of curves, and the area under it.
_RATES = {
    "roc": ("false_positive_rate", "true_positive_rate", "area_under_the_ROC_curve"),
    "precision-recall": ("recall", "precision", "average_precision"),
}
# Sides of the corner that is shown, the smallest that holds the curves' bend.
_CORNERS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_SCALES = "The scales differ: each plot shows the corner in which its curves bend."
_SHADING = (
    "Rows are the true classes, columns the predicted ones. Blue: right; orange: wrong; the stronger, the larger its "
    "share of the row. Errors are shown stronger than they are, to be seen at all."
)
_SUBSET_STYLES: dict[str, dict[str, Any]] = {
    "training": {"color": RED, "linestyle": "--"},
    "validation": {"color": BLUE},
}
_STAGE_STYLES: dict[str, dict[str, Any]] = {
    "before": {"color": RED, "linestyle": (0, (4, 2)), "marker": "o"},
    "after": {"color": BLUE, "marker": "s"},
}
_BINS = (
    f"{ESTIMATOR[0].upper()}{ESTIMATOR[1:]}; bars are 95 % Wilson intervals. The scales differ: each plot shows where "
    "its points lie."
)


def _figure(
    name: str, caption: str, models: Sequence[ReportedModel], panel: Callable[[ReportedModel], Panel], *notes: str
) -> Figure:
    return Figure(name, caption, tuple(map(panel, models)), notes)


def _line_panel(
    kind: str,
    model: ReportedModel,
    alt: str,
    data: Mapping[str, Any],
    labels: tuple[str, str],
    lines: Sequence[Line],
    **plot: Any,
) -> Panel:
    """A plot of lines of a model; ``plot`` holds more arguments of ``draw_lines``."""
    draw = partial(draw_lines, model.name, labels, lines, **plot)
    return Panel(f"{kind}-{model.slug}", f"{model.name}: {alt}", draw, {"model": model.name, **data})


def learning_blocks(data: ReportData) -> list[Block]:
    """Accuracy and loss over the epochs, as ``history.csv`` has them: a figure each with a panel per model."""
    learning = [model for model in data.models if any(run.history for run in model.runs)]
    without = ", ".join(model.name for model in data.models if model not in learning)
    note = "A thin line per training; the thick line is their mean, as far as all of them went."
    blocks: list[Block] = []
    for metric in ("accuracy", "loss") if learning else ():
        caption, panel = f"{metric.capitalize()} over the epochs", partial(_learning_panel, metric)
        blocks.append(_figure(f"{metric}-over-epochs", caption, learning, panel, note))
    if without:
        blocks.append(Text((f"Without learning curves, for they do not learn in epochs: {without}.",)))
    return blocks


def _learning_panel(metric: str, model: ReportedModel) -> Panel:
    histories = [run.history for run in model.runs if run.history]
    columns = {"training": metric, "validation": f"val_{metric}"}
    curves = {name: [history.get(column, []) for history in histories] for name, column in columns.items()}
    known = {name: [curve for curve in found if curve] for name, found in curves.items() if any(found)}
    ends = ", ".join(f"{name} {np.mean([curve[-1] for curve in found]):.3f}" for name, found in known.items())
    alt = f"{metric} over the epochs of {len(histories)} trainings; at the end on average {ends}"
    lines = [line for name, found in known.items() for line in _mean_lines(name, found)]
    shown = {"metric": metric, **curves}
    return _line_panel(f"learning-{metric}", model, alt, shown, ("epoch", metric), lines, size=(360, 250))


def _mean_lines(name: str, curves: Sequence[Sequence[float]]) -> list[Line]:
    style, common = _SUBSET_STYLES[name], min(map(len, curves))
    mean = np.mean([curve[:common] for curve in curves], axis=0)
    thin = {**style, "linewidth": 0.5, "alpha": 0.6}
    lines: list[Line] = [(range(1, len(curve) + 1), curve, thin) for curve in curves] if len(curves) > 1 else []
    # One epoch is no line.
    thick = {**style, "linewidth": 1.6, "marker": "o" if common == 1 else "", "label": name}
    return [*lines, (range(1, common + 1), mean, thick)]


def matrix_blocks(data: ReportData) -> list[Block]:
    """The pooled confusion matrices, then those of the folds."""
    pooled = _figure("confusion", f"Confusion matrices of {data.pooled}", data.models, _matrix_panel, _SHADING)
    return [pooled, *(_fold_figure(model) for model in data.models if len(model.runs) > 1)]


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
    draw = partial(draw_matrix, title, matrix, short or classes, size=(170, 175) if fold else (390, 330))
    return Panel(name, alt, draw, {"model": model.name, "classes": classes, **data, "confusion_matrix": matrix})


def _format_matrix(classes: Sequence[str], counts: NDArray[np.int64]) -> str:
    wrong = [(counts[i, j], classes[i], classes[j]) for i, j in zip(*np.nonzero(counts), strict=True) if i != j]
    # Python's sort keeps the order of equals, so that the text is the same each time.
    wrong = sorted(wrong, key=lambda each: -each[0])[:3]
    most = ", ".join(f"{n} of {label} predicted as {other}" for n, label, other in wrong)
    return f"{counts.trace():,} of {counts.sum():,} right" + (f"; most often wrong: {most}" if most else "")


def curve_blocks(data: ReportData) -> list[Block]:
    """ROC and precision-recall curves, each class against the rest."""
    of = f"of {data.pooled}, each class against the rest"
    captions = {
        "roc": f"ROC curves {of}, and the areas under them",
        "precision-recall": f"Precision-recall curves {of}, and average precisions",
    }
    return [
        _figure(kind, caption, data.models, partial(_rate_panel, kind), _SCALES) for kind, caption in captions.items()
    ]


def _rates(kind: str, truth: NDArray[np.bool_], p: NDArray[np.float64]) -> tuple[Any, Any, float]:
    """Points of a curve and the area under it."""
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

    if kind == "roc":
        return *roc_curve(truth, p)[:2], float(roc_auc_score(truth, p))
    precision, recall, _ = precision_recall_curve(truth, p, drop_intermediate=True)
    return recall, precision, float(average_precision_score(truth, p))


def _rate_panel(kind: str, model: ReportedModel) -> Panel:
    """A curve for each class that some of the test images have, and some have not."""
    truths = {name: model.labels == i for i, name in enumerate(model.source.manifest["classes"])}
    pairs = {name: (truth, p) for (name, truth), p in zip(truths.items(), model.probabilities.T, strict=True)}
    curves = {name: _rates(kind, *pair) for name, pair in pairs.items() if 0 < pair[0].mean() < 1}
    x, y, measure = (key.replace("_", " ") for key in _RATES[kind])
    labels = {name: f"{name} {area:.4f}" for name, (_, _, area) in curves.items()}
    lines: list[Line] = [
        (xs, ys, {**nth_style(number), "label": labels[name]})
        for number, (name, (xs, ys, _)) in enumerate(curves.items())
    ]
    shown = {
        name: dict(zip(_RATES[kind], (xs.tolist(), ys.tolist(), area), strict=True))
        for name, (xs, ys, area) in curves.items()
    }
    # A ROC curve rises. The side of the corner around the ideal point that shows the bend of every curve.
    rises = kind == "roc"
    bends = [float(np.maximum(np.abs(xs - (not rises)), 1 - ys).min()) for xs, ys, _ in curves.values()]
    side = next(side for side in _CORNERS if max(bends, default=1.0) <= side / 2 or side == 1)
    # A little beyond the ideal point, so that the edge does not hide lines along it.
    top = (1 - side, 1 + 0.02 * side)
    plot = {"limits": ((-0.02 * side, side) if rises else top, top), "loc": f"lower {'right' if rises else 'left'}"}
    lines += [DIAGONAL] if rises else []
    return _line_panel(
        kind, model, f"{measure}: {', '.join(labels.values())}", {"classes": shown}, (x, y), lines, **plot
    )


def reliability_figure(data: ReportData) -> Figure:
    """Reliability diagrams."""
    caption = f"Reliability diagrams of {data.pooled}: how often the most probable class is right, by its probability"
    return _figure("reliability", caption, data.models, _reliability_panel, _BINS)


def _reliability_panel(model: ReportedModel) -> Panel:
    curves = {stage: reliability(*top_label(model.labels, p)) for stage, p in model.stages.items()}
    errors = {stage: f"{percent(curve.error)} %" for stage, curve in curves.items()}
    keys = ("confidence", "frequency", "images")
    shown = {
        stage: {"ece": curve.error, **{key: getattr(curve, key).tolist() for key in keys}}
        for stage, curve in curves.items()
    }
    labels = {stage: f"{stage}: ECE {error}" if len(curves) > 1 else f"ECE {error}" for stage, error in errors.items()}
    lines = [
        _reliability_line(curve, {**_STAGE_STYLES[stage], "label": labels[stage]}) for stage, curve in curves.items()
    ]
    least = min(float(values.min()) for curve in curves.values() for values in (curve.confidence, curve.frequency))
    lowest = np.floor(10 * least - 1e-9) / 10
    limits = (lowest, 1 + 0.02 * (1 - lowest))
    alt = f"expected calibration error {', '.join(map(' '.join, errors.items()))}"
    data, axes = (
        {"estimator": ESTIMATOR, "stages": shown},
        ("probability of the most probable class", "share of right predictions"),
    )
    plot: dict[str, Any] = {"limits": (limits, limits), "loc": "upper left"}
    return _line_panel("reliability", model, alt, data, axes, [*lines, DIAGONAL], **plot)


def _reliability_line(curve: Reliability, style: dict[str, Any]) -> Line:
    right = np.rint(curve.frequency * curve.images)
    bounds = np.array([wilson(float(k), int(n)) for k, n in zip(right, curve.images, strict=True)]).T
    style = {"markersize": 3.5, "linewidth": 1, "elinewidth": 0.6, "alpha": 0.9, **style}
    return curve.confidence, curve.frequency, {**style, "yerr": np.abs(bounds - curve.frequency)}


def robustness_panel(title: str, slug: str, sheet: Mapping[str, Any]) -> Panel:
    """Accuracy by strength of each corruption; arguments as of ``robustness_table``."""
    rows = {row["name"]: [sheet["clean"], *row["levels"]] for row in sheet["corruptions"]}
    data = {
        name: {"levels": [row.get("level", 0) for row in found], "accuracy": [row["accuracy"] for row in found]}
        for name, found in rows.items()
    }
    lines: list[Line] = [
        (curve["levels"], np.multiply(100, curve["accuracy"]), {**nth_style(number), "label": name})
        for number, (name, curve) in enumerate(data.items())
    ]
    lowest = min(sheet["corruptions"], key=lambda row: row["mean"]["accuracy"])
    alt = (
        f"{title}: mean accuracy {tenths(sheet['mean']['accuracy'])} % over all corruptions, lowest under "
        f"{lowest['name']} with {tenths(lowest['mean']['accuracy'])} %"
    )
    plot: dict[str, Any] = {
        "size": (460, 340),
        "limits": (None, (0, 101)),
        "loc": "center left",
        "bbox_to_anchor": (1, 0.5),
    }
    draw = partial(draw_lines, title, ("strength", "accuracy, %"), lines, **plot)
    return Panel(f"robustness-{slug}", alt, draw, {"model": title, "corruptions": data})
