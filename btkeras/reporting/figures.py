"""A report's figures: learning curves, ROC, precision-recall, calibration and robustness."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.metrics import wilson
from btkeras.metrics.calibration import ESTIMATOR, Reliability, reliability, top_label
from btkeras.reporting.document import Block, Figure, Panel, Text, percent, tenths
from btkeras.reporting.plots import BLUE, DIAGONAL, RED, Line, draw_lines, nth_style
from btkeras.reporting.report_data import ReportData, ReportedModel
from btkeras.reporting.sources import TrainedRun

# Axes of a kind of curves, and the area under it.
_RATES = {
    "roc": ("false_positive_rate", "true_positive_rate", "area_under_the_ROC_curve"),
    "precision-recall": ("recall", "precision", "average_precision"),
}
# Sides of the corner that is shown, the smallest that holds the curves' bend.
_CORNERS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_CORNER = "Only the corner in which the curves bend is shown."
_LEARNING = {
    "accuracy": "Where training goes on rising and validation does not, the network learns its images by heart",
    "loss": "A validation loss that rises again is a network that grows too sure of itself",
}
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
    several = any(len(model.runs) > 1 for model in learning)
    thin = "A thin line per training; the thick line is their mean, as far as all of them went."
    notes = ("The dot is the epoch whose checkpoint was tested.", *([thin] if several else []))
    blocks: list[Block] = [
        _figure(
            f"{metric}-over-epochs",
            f"{metric.capitalize()} over the epochs. {seen}",
            learning,
            partial(_learning_panel, metric, _common_limits(learning, metric)),
            *(notes if metric == "accuracy" else ()),
        )
        for metric, seen in (_LEARNING if learning else {}).items()
    ]
    if without:
        blocks.append(Text((f"Without learning curves, for they do not learn in epochs: {without}.",)))
    return blocks


def _common_limits(models: Sequence[ReportedModel], metric: str) -> tuple[float, float] | None:
    """The same axis for all models, so that they compare; None if nothing is known."""
    histories = [run.history for model in models for run in model.runs]
    values = [v for history in histories for column in (metric, f"val_{metric}") for v in history.get(column, [])]
    if not values:
        return None
    low, high = (min(values), 1.0) if metric == "accuracy" else (0.0, max(values))
    margin = 0.03 * (high - low)
    return low - margin, high + margin


def _learning_panel(metric: str, limits: tuple[float, float] | None, model: ReportedModel) -> Panel:
    runs = [run for run in model.runs if run.history]
    columns = {"training": metric, "validation": f"val_{metric}"}
    curves = {name: [run.history.get(column, []) for run in runs] for name, column in columns.items()}
    known = {name: [curve for curve in found if curve] for name, found in curves.items() if any(found)}
    ends = ", ".join(f"{name} {np.mean([curve[-1] for curve in found]):.3f}" for name, found in known.items())
    alt = f"{metric} over the epochs of {len(runs)} trainings; at the end on average {ends}"
    lines = [line for name, found in known.items() for line in _mean_lines(name, found)]
    lines += _chosen_epochs(runs, curves["validation"])
    shown, plot = {"metric": metric, **curves}, {"limits": (None, limits), "whole": True}
    return _line_panel(f"learning-{metric}", model, alt, shown, ("epoch", metric), lines, **plot)


def _chosen_epochs(runs: Sequence[TrainedRun], curves: Sequence[Sequence[float]]) -> list[Line]:
    """Dots at the epochs of the checkpoints, as far as they are known."""
    epochs = [(run.manifest.get("best_epoch") or 0, curve) for run, curve in zip(runs, curves, strict=True)]
    dots = [(epoch, curve[epoch - 1]) for epoch, curve in epochs if 0 < epoch <= len(curve)]
    style = {**_SUBSET_STYLES["validation"], "linestyle": "", "marker": "o", "markersize": 5}
    return [([epoch for epoch, _ in dots], [value for _, value in dots], style)] if dots else []


def _mean_lines(name: str, curves: Sequence[Sequence[float]]) -> list[Line]:
    style, common = _SUBSET_STYLES[name], min(map(len, curves))
    mean = np.mean([curve[:common] for curve in curves], axis=0)
    thin = {**style, "linewidth": 0.5, "alpha": 0.6}
    lines: list[Line] = [(range(1, len(curve) + 1), curve, thin) for curve in curves] if len(curves) > 1 else []
    # One epoch is no line.
    thick = {**style, "linewidth": 1.6, "marker": "o" if common == 1 else "", "label": name}
    return [*lines, (range(1, common + 1), mean, thick)]


def curve_blocks(data: ReportData) -> list[Block]:
    """ROC and precision-recall curves, each class against the rest."""
    of = f"of {data.pooled}, each class against the rest"
    captions = {
        "roc": f"ROC curves {of}, with the areas under them. The nearer to the upper left corner, the better",
        "precision-recall": f"Precision-recall curves {of}, with average precisions. The nearer to the upper right "
        "corner, the better",
    }
    return [_rate_figure(kind, caption, data.models) for kind, caption in captions.items()]


def _rate_figure(kind: str, caption: str, models: Sequence[ReportedModel]) -> Figure:
    curves = [_class_curves(kind, model) for model in models]
    bends = [_bend(kind, *curve[:2]) for found in curves for curve in found.values()]
    # The same corner of all models, so that they compare.
    side = next(side for side in _CORNERS if max(bends, default=1.0) <= side / 2 or side == 1)
    panels = (_rate_panel(kind, side, model, found) for model, found in zip(models, curves, strict=True))
    return Figure(kind, caption, tuple(panels), (_CORNER,) if side < 1 else ())


def _bend(kind: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """The side of the smallest corner, around the ideal point, that a curve enters."""
    return float(np.maximum(np.abs(x - (kind != "roc")), 1 - y).min())


def _rates(kind: str, truth: NDArray[np.bool_], p: NDArray[np.float64]) -> tuple[Any, Any, float]:
    """Points of a curve and the area under it."""
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

    if kind == "roc":
        return *roc_curve(truth, p)[:2], float(roc_auc_score(truth, p))
    precision, recall, _ = precision_recall_curve(truth, p, drop_intermediate=True)
    return recall, precision, float(average_precision_score(truth, p))


def _class_curves(kind: str, model: ReportedModel) -> dict[str, tuple[Any, Any, float]]:
    """A curve for each class that some of the test images have, and some have not."""
    truths = {name: model.labels == i for i, name in enumerate(model.source.manifest["classes"])}
    pairs = {name: (truth, p) for (name, truth), p in zip(truths.items(), model.probabilities.T, strict=True)}
    return {name: _rates(kind, *pair) for name, pair in pairs.items() if 0 < pair[0].mean() < 1}


def _rate_panel(kind: str, side: float, model: ReportedModel, curves: Mapping[str, tuple[Any, Any, float]]) -> Panel:
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
    # A little beyond the ideal point, so that the edge does not hide lines along it.
    top, rises = (1 - side, 1 + 0.02 * side), kind == "roc"
    limits = ((-0.02 * side, side) if rises else top, top)
    lines += [DIAGONAL] if rises else []
    alt = f"{measure}: {', '.join(labels.values())}"
    return _line_panel(kind, model, alt, {"classes": shown}, (x, y), lines, limits=limits)


def reliability_figure(data: ReportData) -> Figure:
    """Reliability diagrams."""
    caption = (
        f"Reliability of {data.pooled}: how often the most probable class is right, by its probability. On the "
        "diagonal, probabilities are as good as they say; below it, the model is too sure"
    )
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
    return _line_panel("reliability", model, alt, data, axes, [*lines, DIAGONAL], limits=(limits, limits))


def _reliability_line(curve: Reliability, style: dict[str, Any]) -> Line:
    right = np.rint(curve.frequency * curve.images)
    bounds = np.array([wilson(float(k), int(n)) for k, n in zip(right, curve.images, strict=True)]).T
    style = {"markersize": 3.5, "linewidth": 1, "elinewidth": 0.6, "alpha": 0.9, **style}
    return curve.confidence, curve.frequency, {**style, "yerr": np.abs(bounds - curve.frequency)}


def robustness_figure(sheets: Sequence[tuple[str, str, Mapping[str, Any]]]) -> Figure:
    """Accuracy by strength of each corruption, a panel for each run; these as arguments of ``robustness_table``."""
    caption = (
        "Accuracy by strength of corruption. 0 is the uncorrupted image; the steeper a line falls, the less of that "
        "change the network stands"
    )
    worst = min(level["accuracy"] for *_, sheet in sheets for row in sheet["corruptions"] for level in row["levels"])
    # Whole tens, the same for all.
    lowest = 10 * int(min(10 * worst, 9))
    panels = (_robustness_panel(lowest, *named) for named in sheets)
    return Figure("robustness-curves", caption, tuple(panels))


def _robustness_panel(lowest: int, title: str, slug: str, sheet: Mapping[str, Any]) -> Panel:
    rows = {row["name"]: [sheet["clean"], *row["levels"]] for row in sheet["corruptions"]}
    data = {
        name: {"levels": [row.get("level", 0) for row in found], "accuracy": [row["accuracy"] for row in found]}
        for name, found in rows.items()
    }
    lines: list[Line] = [
        (curve["levels"], np.multiply(100, curve["accuracy"]), {**nth_style(number), "label": name})
        for number, (name, curve) in enumerate(data.items())
    ]
    weakest = min(sheet["corruptions"], key=lambda row: row["mean"]["accuracy"])
    alt = (
        f"{title}: mean accuracy {tenths(sheet['mean']['accuracy'])} % over all corruptions, lowest under "
        f"{weakest['name']} with {tenths(weakest['mean']['accuracy'])} %"
    )
    # As the curves lie: the best first.
    lines.sort(key=lambda line: -float(np.mean(np.asarray(line[1]))))
    plot: dict[str, Any] = {"size": (400, 380), "limits": (None, (lowest, 101)), "whole": True, "ncols": 3}
    draw = partial(draw_lines, title, ("strength", "accuracy, %"), lines, **plot)
    return Panel(f"robustness-{slug}", alt, draw, {"model": title, "corruptions": data})
