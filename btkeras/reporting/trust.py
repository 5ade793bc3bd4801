"""Whether a model can be trusted: calibration, prediction sets, risk against coverage, robustness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from btkeras.evaluation.robustness import read_sheet
from btkeras.metrics import wilson
from btkeras.metrics.calibration import (
    ESTIMATOR,
    Reliability,
    calibrated_error,
    calibration_scores,
    reliability,
    risk_coverage,
    risk_coverage_area,
    top_label,
)
from btkeras.metrics.conformal import set_metrics
from btkeras.reporting.document import (
    DASH,
    Block,
    Column,
    Figure,
    Panel,
    Row,
    Table,
    columns_of,
    decimals,
    make_table,
    percent,
    tenths,
)
from btkeras.reporting.plots import BLUE, RED, Line, LinePlot, nth_style, thin
from btkeras.reporting.report_data import ReportData, ReportedModel

_STAGES = ("before", "after")
# More points of a curve nobody sees.
_POINTS = 200
_ERROR_NOTE = (
    f'ECE in percent ({ESTIMATOR}). It is biased upwards: "if perfect" is what a perfectly calibrated model with these '
    "confidences would get on average. The Brier score is 0 to 2, the log loss in nats, AURC the mean percentage of "
    "wrong predictions over all coverages; of all of them, lower is better."
)
_SET_NOTE = (
    "Percent, but for the classes a set. A set holds the classes that cannot be ruled out (split conformal prediction, "
    "score 1 - p). The wanted coverage is promised for images like the validation subset's, over all of them and not "
    "within each class, where it may be less. In an empty set, no class is as probable as the true one nearly always "
    "was. A prediction is uncertain then, as with several classes."
)
_BINS = (
    f"{ESTIMATOR[0].upper()}{ESTIMATOR[1:]}; bars are 95 % Wilson intervals. The scales differ: each plot shows where "
    "its points lie."
)


def calibration_blocks(data: ReportData) -> list[Block]:
    """Tables of calibration errors and of prediction sets, reliability diagrams and risk-coverage curves."""
    sets = set_table(data)
    of = data.pooled
    return [
        calibration_table(data),
        *([sets] if sets.rows else []),
        Figure(
            "reliability",
            f"Reliability diagrams of {of}: how often the most probable class is right, by its probability",
            tuple(map(_reliability_panel, data.models)),
            (_BINS,),
        ),
        Figure(
            "risk-coverage",
            f"Risk-coverage curves of {of}: the share that is wrong where the least sure are left out",
            tuple(map(_risk_panel, data.models)),
            ("Grey: the best that any order of the same predictions could do.",),
        ),
    ]


def calibration_table(data: ReportData) -> Table:
    """Calibration errors of every model before and after the temperature."""
    stages = ("before", "after")
    columns = (
        Column("model"),
        Column("temperature", _temperatures),
        *columns_of((*stages, "if perfect"), percent, "ECE"),
        *(column for title in ("Brier score", "log loss") for column in columns_of(stages, decimals(4), title)),
        Column("AURC", decimals(3, 0.01)),
    )
    caption = f"Calibration of {data.pooled}, before and after the temperature"
    return make_table("calibration-errors", caption, columns, map(_calibration_row, data.models), _ERROR_NOTE)


def _calibration_row(model: ReportedModel) -> Row:
    scores = {stage: calibration_scores(model.labels, p) for stage, p in model.stages.items()}
    ece, brier, loss = (
        [scores.get(stage, {}).get(name) for stage in ("before", "after")] for name in ("ece", "brier", "nll")
    )
    final = list(model.stages.values())[-1]
    perfect, area = calibrated_error(final)[0], risk_coverage_area(model.labels, final)
    return model.name, model.temperatures if model.is_calibrated else None, *ece, perfect, *brier, *loss, area


def _temperatures(values: Sequence[float]) -> str:
    ends = sorted({f"{end:.3f}" for end in (min(values), max(values))}, key=float)
    return DASH.join(ends)


def set_table(data: ReportData) -> Table:
    """How often prediction sets hold the true class; without rows where nothing is calibrated."""
    columns = (
        Column("model"),
        Column("wanted", decimals(0, 0.01)),
        *columns_of(("coverage", "coverage, least covered class"), percent),
        Column("classes a set", decimals(2)),
        *columns_of(("empty", "of one class", "of those right"), percent),
    )
    rows = [
        _set_row(model, wanted, set_metrics(model.labels, sets))
        for model in data.models
        for wanted, sets in model.prediction_sets().items()
    ]
    caption = f"How often prediction sets hold the true class, of {data.pooled}"
    return make_table("prediction-sets", caption, columns, rows, _SET_NOTE)


def _set_row(model: ReportedModel, wanted: float, metrics: Mapping[str, Any]) -> Row:
    by_class = zip(model.source.summary["classes"], metrics["covered_by_class"], strict=True)
    least, label = min((share, label) for label, share in by_class if share is not None)
    sizes = (metrics[key] for key in ("mean_size", "empty", "single", "single_right"))
    return model.name, wanted, metrics["covered"], {"class": label, "value": least}, *sizes


def robustness_table(title: str, slug: str, sheet: Mapping[str, Any]) -> Table:
    """Accuracy under corruption.

    Args:
        title: Whose.
        slug: The same, of letters, digits and hyphens.
        sheet: As ``robustness.read_sheet`` gives it.
    """
    levels = [str(level["level"]) for level in sheet["corruptions"][0]["levels"]]
    blank = [None] * len(levels)
    rows = [
        *((row["name"], [level["accuracy"] for level in row["levels"]], row["mean"]) for row in sheet["corruptions"]),
        ("all of them", blank, sheet["mean"]),
        ("uncorrupted", blank, sheet["clean"]),
    ]
    means = ("accuracy", "balanced_accuracy", "confidence", "ece")
    return make_table(
        f"robustness-table-{slug}",
        f"{title}: accuracy in percent on {sheet['images']:,} of {sheet['of']:,} images, by strength",
        (
            Column("corruption"),
            *columns_of((*levels, "mean"), tenths, "accuracy"),
            *columns_of(("balanced accuracy", "confidence", "ECE"), tenths, "means over the strengths"),
        ),
        [(name, *accuracies, *(mean[key] for key in means)) for name, accuracies, mean in rows],
        f"{'. '.join(map(_unit, sheet['corruptions']))}.",
        _uncertainty(sheet),
    )


def _unit(row: Mapping[str, Any]) -> str:
    strengths = ", ".join(f"{level['strength']:g}" for level in row["levels"])
    return f"{row['name']}: {row['title']}; {row['unit']} {strengths}"


def _uncertainty(sheet: Mapping[str, Any]) -> str:
    errors = sheet["sampling_error"]
    if sheet["images"] == sheet["of"]:
        return "All images of the test subset; the same image gets the same corruption each time."
    return (
        f"Drawn at random from each class (seed {sheet['seed']}): an accuracy may be off by {tenths(errors['clean'])} "
        f"points where it is as of the uncorrupted images, and by {tenths(errors['largest'])} near 50 % (95 % "
        "confidence)."
    )


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
    color, dash, marker = {"before": (RED, (0, (4, 2)), "o"), "after": (BLUE, "-", "s")}[stage]
    style = {"marker": marker, "markersize": 3.5, "linewidth": 1, "elinewidth": 0.6, "alpha": 0.9}
    label = f"{'' if alone else f'{stage}: '}ECE {percent(curve.error)} %"
    bars = np.abs(bounds - curve.frequency)
    own = {"color": color, "linestyle": dash, "label": label, "yerr": bars}
    return Line(curve.confidence, curve.frequency, {**style, **own})


def _risk_panel(model: ReportedModel) -> Panel:
    coverage, risk = risk_coverage(model.labels, model.probabilities)
    covered = np.arange(1, len(risk) + 1)
    # The least that is wrong among so many: all that is right comes first.
    best = np.maximum(0, covered - round(len(risk) * (1 - risk[-1]))) / covered
    shown = np.unique(np.linspace(0, len(risk) - 1, _POINTS).astype(int))
    curves = {"coverage": coverage[shown], "risk": risk[shown], "least_risk": best[shown]}
    aurc = float(risk.mean())
    x = 100 * curves["coverage"]
    lines = [
        thin(x, 100 * curves["least_risk"]),
        Line(x, 100 * curves["risk"], {"color": BLUE, "label": f"AURC {percent(aurc, 3)} %"}),
    ]
    labels, limits = ("coverage, %", "wrong among the covered, %"), ((0, 102), (0, None))
    return Panel(
        f"risk-coverage-{model.slug}",
        f"{model.name}: area under the risk-coverage curve {percent(aurc, 3)} %",
        LinePlot(model.name, labels, lines, limits=limits, legend={"loc": "upper left"}).draw,
        {"model": model.name, "aurc": aurc, **{name: values.tolist() for name, values in curves.items()}},
    )


def robustness_panel(title: str, slug: str, sheet: Mapping[str, Any]) -> Panel:
    """Accuracy by strength of each corruption; arguments as of ``robustness_table``."""
    curves = {
        row["name"]: {
            "levels": [0, *(level["level"] for level in row["levels"])],
            "accuracy": [sheet["clean"]["accuracy"], *(level["accuracy"] for level in row["levels"])],
        }
        for row in sheet["corruptions"]
    }
    lines = [
        Line(curve["levels"], [100 * value for value in curve["accuracy"]], {**nth_style(number), "label": name})
        for number, (name, curve) in enumerate(curves.items())
    ]
    lowest = min(sheet["corruptions"], key=lambda row: row["mean"]["accuracy"])
    legend = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
    return Panel(
        f"robustness-{slug}",
        f"{title}: mean accuracy {tenths(sheet['mean']['accuracy'])} % over all corruptions, lowest under "
        f"{lowest['name']} with {tenths(lowest['mean']['accuracy'])} %",
        LinePlot(title, ("strength", "accuracy, %"), lines, (460, 340), (None, (0, 101)), legend).draw,
        {"model": title, "corruptions": curves},
    )


def robustness_blocks(data: ReportData) -> list[Block]:
    """A table and a panel for each run that was measured; nothing where none was."""
    found = [(model, run, read_sheet(run.run)) for model in data.models for run in model.runs]
    sheets = [
        (
            model.name + (f", seed {run.seed}, fold {run.fold}" if len(model.runs) > 1 else ""),
            model.slug + (f"-{run.seed}-{run.fold}" if len(model.runs) > 1 else ""),
            sheet,
        )
        for model, run, sheet in found
        if sheet
    ]
    caption = "Accuracy by strength of corruption: 0 is the uncorrupted image"
    panels = tuple(robustness_panel(*sheet) for sheet in sheets)
    return [*(robustness_table(*sheet) for sheet in sheets), Figure("robustness", caption, panels)] if sheets else []
