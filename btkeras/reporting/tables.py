"""Tables of comparisons, calibration, prediction sets, robustness and provenance."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from btkeras.decisions.calibration import set_metrics
from btkeras.evaluation.metrics_text import RAISED_ECE
from btkeras.logging import duration
from btkeras.metrics.calibration import ESTIMATOR, calibrated_error, calibration_scores, risk_coverage_area
from btkeras.reporting.document import DASH, Column, Table, count, decimals, p_value, percent, points, tenths
from btkeras.reporting.paper_tables import format_level
from btkeras.reporting.report_data import STAGES, ReportData, ReportedModel
from btkeras.reporting.sources import Source

_ERROR_NOTE = (
    f'ECE in percent ({ESTIMATOR}). It is biased upwards: "if perfect" is what a perfectly calibrated model with these '
    "confidences would get on average. The Brier score is 0 to 2, the log loss in nats, AURC the mean percentage of "
    "wrong predictions over all coverages; of all of them, lower is better."
)
_SET_NOTE = (
    "Percent. A set holds the classes that cannot be ruled out (split conformal prediction, score 1 - p). The wanted "
    "share is promised for images like those that the sets are fitted on, the validation subset or what `calibrate "
    "--data` was given, over all of them and not within each class. A set of no class: none is as probable as the true "
    "one nearly always was."
)


def comparison_table(data: ReportData) -> Table:
    """Differences in accuracy between all pairs of models."""
    columns = (
        Column("model", key=lambda pair: pair["models"][0]),
        Column("less model", key=lambda pair: pair["models"][1]),
        Column("difference, points", points, "difference"),
        Column(f"{format_level(data.sources[0])} interval", points, lambda pair: list(pair["interval"])),
        *Column.several({"p": "bootstrap_p", "adjusted": "bootstrap_p_adjusted"}, p_value, "bootstrap"),
        Column("only first right", count, lambda pair: pair["discordant"] and pair["discordant"][0], "McNemar"),
        Column("only second right", count, lambda pair: pair["discordant"] and pair["discordant"][1], "McNemar"),
        *Column.several({"p": "mcnemar_p", "adjusted": "mcnemar_p_adjusted"}, p_value, "McNemar"),
    )
    return Table.from_rows(
        "pairs",
        "Differences in accuracy between all pairs of models",
        columns,
        data.comparisons,
        "Points are percentage points of accuracy. The bootstrap draws whole groups, the same for all models, and "
        "decides. McNemar's exact test takes every image as independent, and is for comparison with other reports; it "
        "needs one prediction an image. p values are adjusted over all pairs by Holm's method.",
    )


def calibration_table(data: ReportData) -> Table:
    """Calibration errors of every model before and after the temperature."""
    columns = (
        Column("model"),
        Column("temperature", _temperatures),
        *Column.several({"before": "before.ece", "after": "after.ece", "if perfect": "if perfect"}, percent, "ECE"),
        *Column.several({stage: f"{stage}.brier" for stage in STAGES}, decimals(4), "Brier score"),
        *Column.several({stage: f"{stage}.nll" for stage in STAGES}, decimals(4), "log loss"),
        Column("AURC", decimals(3, 0.01)),
    )
    caption = f"Calibration of {data.pooled}, before and after the temperature"
    rows = [*map(_calibration_row, data.models)]
    raised = [row["model"] for row in rows if row["after"] and row["after"]["ece"] > row["before"]["ece"]]
    notes = (_ERROR_NOTE, *([f"{', '.join(raised)}: {RAISED_ECE}."] if raised else []))
    return Table.from_rows("calibration-errors", caption, columns, rows, *notes)


def _calibration_row(model: ReportedModel) -> Mapping[str, Any]:
    final = list(model.stages.values())[-1]
    return {
        "model": model.name,
        "temperature": model.temperatures,
        **dict.fromkeys(STAGES),
        **{stage: calibration_scores(model.labels, p) for stage, p in model.stages.items()},
        "if perfect": calibrated_error(final)[0],
        "AURC": risk_coverage_area(model.labels, final),
    }


def _temperatures(values: Sequence[float]) -> str:
    return DASH.join(sorted({f"{end:.3f}" for end in (min(values), max(values))}, key=float))


def near_duplicate_table(data: ReportData) -> Table:
    """Accuracy with and without the test images that have a near-duplicate in training; a row a model that knows it."""
    found = [(model, model.without_near_duplicates) for model in data.models]
    columns = (
        Column("model"),
        *Column.several(("all test images", "with a near-duplicate in training", "without"), count, "predictions for"),
        *Column.several(("all test images", "those without"), percent, "accuracy"),
    )
    rows = [
        (
            model.name,
            len(model.labels),
            own["near_duplicates"],
            own["images"],
            1 - len(model.wrong) / len(model.labels),
            own["accuracy"],
        )
        for model, own in found
        if own
    ]
    caption = f"Test images that have a near-duplicate in the training subset, of {data.pooled}"
    note = (
        "Near-duplicates are the same image stored anew, at another size or brightness, flipped, rotated or cropped a "
        "little, or one that looks nearly the same. An accuracy that they raise is one on known images."
    )
    return Table.from_rows("near-duplicates", caption, columns, rows, note)


def set_table(data: ReportData) -> Table:
    """How often prediction sets hold the true class; without rows where nothing is calibrated."""
    shares = {"one class": "single", "several": "several", "no class": "empty"}
    columns = (
        Column("model"),
        Column("wanted", lambda share: f"{100 * share:g}", group="sets with the true class"),
        Column("found", percent, "covered", "sets with the true class"),
        Column("worst class", percent, "least", "sets with the true class"),
        *Column.several(shares, percent, "sets of"),
        Column("right, if one class", percent, "single_right"),
    )
    caption = f"How often prediction sets hold the true class, of {data.pooled}"
    rows = (row for model in data.models for row in _set_rows(model))
    return Table.from_rows("prediction-sets", caption, columns, rows, _SET_NOTE)


def _set_rows(model: ReportedModel) -> Iterator[Mapping[str, Any]]:
    for wanted, sets in model.prediction_sets().items():
        metrics = set_metrics(model.labels, sets)
        by_class = zip(model.source.manifest["classes"], metrics["covered_by_class"], strict=True)
        share, label = min((share, label) for label, share in by_class if share is not None)
        several = max(0.0, 1 - metrics["single"] - metrics["empty"])
        least = {"class": label, "value": share}
        yield {"model": model.name, "wanted": wanted, "least": least, "several": several, **metrics}


def robustness_table(title: str, slug: str, sheet: Mapping[str, Any]) -> Table:
    """Accuracy under corruption.

    Args:
        title: Whose.
        slug: The same, of letters, digits and hyphens.
        sheet: As ``robustness.read_sheet`` gives it.
    """
    levels = [str(level["level"]) for level in sheet["corruptions"][0]["levels"]]
    means = {"balanced accuracy": "mean.balanced_accuracy", "confidence": "mean.confidence", "ECE": "mean.ece"}
    columns = (
        Column("corruption", key="name"),
        *Column.several({level: f"levels.{level}" for level in levels}, tenths, "accuracy"),
        Column("mean", tenths, "mean.accuracy", "accuracy"),
        *Column.several(means, tenths, "means over the strengths"),
    )
    rows = [
        {**row, "levels": {str(level["level"]): level["accuracy"] for level in row["levels"]}}
        for row in sheet["corruptions"]
    ]
    totals = {"all of them": sheet["mean"], "uncorrupted": sheet["clean"]}
    rows += [{"name": name, "levels": None, "mean": mean} for name, mean in totals.items()]
    return Table.from_rows(
        f"robustness-table-{slug}",
        f"{title}: accuracy in percent on {sheet['images']:,} of {sheet['of']:,} images, by strength",
        columns,
        rows,
        f"{'. '.join(map(_unit, sheet['corruptions']))}.",
        _uncertainty(sheet),
    )


def _unit(row: Mapping[str, Any]) -> str:
    strengths = ", ".join(f"{level['strength']:g}" for level in row["levels"])
    return f"{row['name']}: {row['title']}; {row['unit']} {strengths}"


def _uncertainty(sheet: Mapping[str, Any]) -> str:
    if sheet["images"] == sheet["of"]:
        return "All images of the test subset; the same image gets the same corruption each time."
    errors = sheet["sampling_error"]
    return (
        f"Drawn at random from each class (seed {sheet['seed']}): an accuracy may be off by {tenths(errors['clean'])} "
        f"points where it is as of the uncorrupted images, and by {tenths(errors['largest'])} near 50 % (95 % "
        "confidence)."
    )


def provenance_tables(data: ReportData) -> list[Table]:
    """A table of each source, one of the software, one of the trainings."""
    several = len(data.sources) > 1
    sources = [
        Table.from_facts(f"source-{i}", f"Source: {source.path}" if several else "Source", _source_facts(source))
        for i, source in enumerate(data.sources, start=1)
    ]
    return [*sources, _software_table(data), _training_table(data)]


def _source_facts(source: Source) -> dict[str, Any]:
    bootstrap, config, manifest = source.summary["bootstrap"], source.config, source.manifest
    folds = f"{len(source.splits)} folds, {source.test} test subset" if source.test else "one"
    command, train, optimizer = manifest.get("command"), config.train, config.optimizer
    training = (
        f"{train.epochs} epochs, batch {train.batch_size}, {optimizer.name}, learning rate "
        f"{optimizer.learning_rate:g}, {config.schedule.name} schedule; the checkpoint by {train.monitor}"
    )
    # Nothing of the training applies to classical models.
    networks = any("classifier" not in run.manifest for run in source.runs)
    return {
        "folder": str(source.path),
        "started": manifest.get("started"),
        "command": command and shlex.join(["btkeras", *map(str, command)]),
        "dataset": manifest.get("dataset"),
        "images": ", ".join(f"{label} {images:,}" for label, images in manifest["images"].items()),
        "patients": manifest.get("patients") or "not named by the dataset",
        "digest of the dataset's list of files": source.dataset_digest,
        "split": f"by {source.split_kind}, {folds}, seed {config.data.split_seed}",
        "seeds of the trainings": ", ".join(map(str, dict.fromkeys(run.seed for run in source.runs))),
        "input": f"{config.data.image_size} x {config.data.image_size} x {config.data.channels}",
        "training": training if networks else None,
        "intervals": f"bootstrap of {bootstrap['samples']:,} resamples of {bootstrap['groups']:,} groups of "
        f"{bootstrap['images']:,} images, by {source.regrouped_by or source.group_by}, seed {bootstrap['seed']}",
    }


def _software_table(data: ReportData) -> Table:
    manifests = [run.manifest for source in data.sources for run in source.runs]
    versions = [manifest.get("versions", {}) for manifest in manifests]
    keys = ("python", "git_revision", "platform", "device", "precision", "precision_reason", "classifier")
    facts = {key.replace("_", " "): _distinct(manifests, key) for key in keys}
    facts |= {name: _distinct(versions, name) for found in versions for name in found}
    return Table.from_facts(
        "software", "Software and machine", facts, "Of all trainings; several values where they differ."
    )


def _distinct(manifests: Iterable[Mapping[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(str(manifest[key]) for manifest in manifests if manifest.get(key) is not None))


def _training_table(data: ReportData) -> Table:
    keys = {"epochs": "epochs", "best epoch": "best_epoch", "duration": "training_seconds", "started": "started"}
    rows: list[dict[str, Any]] = [
        {"model": model.name, "seed": run.seed, "fold": run.fold, "folder": str(run.run.path)}
        | {title: run.manifest.get(key) for title, key in keys.items()}
        for model in data.models
        for run in model.runs
    ]
    columns = (
        Column("model"),
        *Column.several(("seed", "fold", "epochs", "best epoch"), count),
        Column("duration", duration),
        *Column.several(("started", "folder")),
    )
    known = [float(row["duration"]) for row in rows if row["duration"]]
    total = [f"Together {duration(sum(known))} of training."] if len(known) == len(rows) > 1 else []
    return Table.from_rows("trainings", "The trainings", columns, rows, *total)
