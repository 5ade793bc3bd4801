"""Tables of comparisons, calibration, prediction sets, robustness and provenance."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from btkeras.logging import duration
from btkeras.metrics.calibration import ESTIMATOR, calibrated_error, calibration_scores, risk_coverage_area
from btkeras.metrics.conformal import set_metrics
from btkeras.reporting.document import (
    DASH,
    Column,
    Row,
    Table,
    columns_of,
    count,
    decimals,
    fact_table,
    make_table,
    p_value,
    percent,
    points,
    tenths,
)
from btkeras.reporting.report_data import STAGES, ReportData, ReportedModel
from btkeras.reporting.sources import Source
from btkeras.reporting.tables import format_level

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


def comparison_table(data: ReportData) -> Table:
    """Differences in accuracy between all pairs of models."""
    columns = (
        *columns_of(("model", "less model")),
        *columns_of(("difference, points", f"{format_level(data.sources[0])} interval"), points),
        *columns_of(("p", "adjusted"), p_value, "bootstrap"),
        *columns_of(("only first right", "only second right"), count, "McNemar"),
        *columns_of(("p", "adjusted"), p_value, "McNemar"),
    )
    return make_table(
        "pairs",
        "Differences in accuracy between all pairs of models",
        columns,
        map(_comparison_row, data.comparisons),
        "Points are percentage points of accuracy. The bootstrap draws whole groups, the same for all models, and "
        "decides. McNemar's exact test takes every image as independent, and is for comparison with other reports; it "
        "needs one prediction an image. p values are adjusted over all pairs by Holm's method.",
    )


def _comparison_row(pair: Mapping[str, Any]) -> Row:
    keys = ("bootstrap_p", "bootstrap_p_adjusted", "mcnemar_p", "mcnemar_p_adjusted")
    bootstrap, adjusted, mcnemar, mcnemar_adjusted = (pair[key] for key in keys)
    only = pair["discordant"] or (None, None)
    interval = list(pair["interval"])
    return (*pair["models"], pair["difference"], interval, bootstrap, adjusted, *only, mcnemar, mcnemar_adjusted)


def calibration_table(data: ReportData) -> Table:
    """Calibration errors of every model before and after the temperature."""
    columns = (
        Column("model"),
        Column("temperature", _temperatures),
        *columns_of((*STAGES, "if perfect"), percent, "ECE"),
        *(column for title in ("Brier score", "log loss") for column in columns_of(STAGES, decimals(4), title)),
        Column("AURC", decimals(3, 0.01)),
    )
    caption = f"Calibration of {data.pooled}, before and after the temperature"
    return make_table("calibration-errors", caption, columns, map(_calibration_row, data.models), _ERROR_NOTE)


def _calibration_row(model: ReportedModel) -> Row:
    scores = {stage: calibration_scores(model.labels, p) for stage, p in model.stages.items()}
    ece, brier, loss = ([scores.get(stage, {}).get(name) for stage in STAGES] for name in ("ece", "brier", "nll"))
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
        Column("wanted", lambda share: f"{100 * share:g}"),
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
    by_class = zip(model.source.manifest["classes"], metrics["covered_by_class"], strict=True)
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


def provenance_tables(data: ReportData) -> list[Table]:
    """A table of each source, one of the software, one of the trainings."""
    several = len(data.sources) > 1
    sources = [
        fact_table(
            f"source-{number}",
            f"Source: {source.path}" if several else "Source",
            _source_facts(source),
        )
        for number, source in enumerate(data.sources, start=1)
    ]
    return [*sources, _software_table(data), _training_table(data)]


def _source_facts(source: Source) -> dict[str, Any]:
    bootstrap, seeds = source.summary["bootstrap"], dict.fromkeys(run.seed for run in source.runs)
    folds = f"{len(source.splits)} folds, {source.test} test subset" if source.test else "one"
    config, command = source.config, source.manifest.get("command")
    return {
        "folder": str(source.path),
        "started": source.manifest.get("started"),
        "command": command and shlex.join(["btkeras", *map(str, command)]),
        "dataset": source.manifest.get("dataset"),
        "images": ", ".join(f"{label} {images:,}" for label, images in source.manifest["images"].items()),
        "patients": source.manifest.get("patients") or "not named by the dataset",
        "digest of the dataset's list of files": source.dataset_digest,
        "split": f"by {source.group_by}, {folds}, seed {config.data.split_seed}",
        "seeds of the trainings": ", ".join(map(str, seeds)),
        "input": f"{config.data.image_size} x {config.data.image_size} x {config.data.channels}",
        "training": _training(source),
        "intervals": f"bootstrap of {bootstrap['samples']:,} resamples of {bootstrap['groups']:,} groups of "
        f"{bootstrap['images']:,} images, by {source.regrouped_by or source.group_by}, seed {bootstrap['seed']}",
    }


def _training(source: Source) -> str | None:
    """How networks were trained; None where there are only classical models, to which none of it applies."""
    if all("classifier" in run.manifest for run in source.runs):
        return None
    train, optimizer = source.config.train, source.config.optimizer
    return (
        f"{train.epochs} epochs, batch {train.batch_size}, {optimizer.name}, learning rate "
        f"{optimizer.learning_rate:g}, {source.config.schedule.name} schedule; the checkpoint by {train.monitor}"
    )


def _software_table(data: ReportData) -> Table:
    manifests = [run.manifest for source in data.sources for run in source.runs]
    versions = [manifest.get("versions", {}) for manifest in manifests]
    keys = ("python", "git_revision", "platform", "device", "precision", "precision_reason", "classifier")
    facts = {key.replace("_", " "): _distinct(manifests, key) for key in keys}
    facts |= {name: _distinct(versions, name) for found in versions for name in found}
    return fact_table("software", "Software and machine", facts, "Of all trainings; several values where they differ.")


def _distinct(manifests: Iterable[Mapping[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(str(manifest[key]) for manifest in manifests if manifest.get(key) is not None))


def _training_table(data: ReportData) -> Table:
    runs = [(model.name, run) for model in data.models for run in model.runs]
    known = [float(run.manifest["training_seconds"]) for _, run in runs if run.manifest.get("training_seconds")]
    columns = (
        Column("model"),
        *columns_of(("seed", "fold", "epochs", "best epoch"), count),
        Column("duration", duration),
        *columns_of(("started", "folder")),
    )
    keys = ("epochs", "best_epoch", "training_seconds", "started")
    rows = [
        (name, run.seed, run.fold, *(run.manifest.get(key) for key in keys), str(run.run.path)) for name, run in runs
    ]
    total = [f"Together {duration(sum(known))} of training."] if len(known) == len(runs) > 1 else []
    return make_table("trainings", "The trainings", columns, rows, *total)
