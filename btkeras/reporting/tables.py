"""A report's tables: the paper's, with the published figures beside, and those of models, trainings and software."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.metrics import METRICS, wilson
from btkeras.reporting import published
from btkeras.reporting.document import (
    Block,
    Column,
    Row,
    Table,
    Text,
    check,
    columns_of,
    count,
    decimals,
    make_table,
    percent,
)
from btkeras.reporting.published import CLASS_METRICS, SUBSETS
from btkeras.reporting.report_data import ReportData, ReportedModel
from btkeras.reporting.sources import Source

TITLES = {"f1": "F1", "train": "training"}
_SPREAD = (
    "Percent; mean ± standard deviation over the trainings (folds and seeds). Precision, recall, specificity and F1 "
    "are macro averages: the mean over the classes."
)
_ROTATION = {
    "rotating": "every image is tested once, in the fold that has it in its test subset",
    "fixed": "the test subset is the same in all folds, and the validation subset rotates",
}


def format_level(source: Source) -> str:
    """The confidence of a source's intervals: ``95 %``."""
    return f"{100 * source.summary['bootstrap']['level']:g} %"


def metric_columns(names: Iterable[str], *, paper: bool = True) -> tuple[Column, ...]:
    """Columns of metrics in percent, each with the paper's beside it if wanted."""
    if not paper:
        return columns_of((TITLES.get(name, name) for name in names), percent)
    return tuple(column for name in names for column in columns_of(("here", "paper"), percent, TITLES.get(name, name)))


def _pairs(here: Mapping[str, Any], paper: Mapping[str, Any], names: Iterable[str]) -> Iterator[Any]:
    for name in names:
        yield from (here[name], paper.get(name))


def overview_table(data: ReportData) -> Table:
    """Every model of the report, the best first."""
    columns = (
        Column("model"),
        *columns_of(("accuracy", f"{format_level(data.sources[0])} interval", "F1"), percent),
        Column("log loss", decimals(4)),
        *columns_of(("wrong", "images", "trainings"), count),
    )
    return make_table(
        "overview",
        "All models, the best first" if len(data.models) > 1 else "All test images",
        columns,
        map(_overview_row, data.ranked),
        "Accuracy and F1 in percent, mean ± standard deviation over the trainings. The interval is of the accuracy on "
        "all test images, from a bootstrap that draws whole groups (slices of one patient, duplicates of one image) "
        "where the dataset names them. Log loss is the mean negative natural logarithm of the true class's "
        "probability.",
    )


def _overview_row(model: ReportedModel) -> Row:
    pooled, spreads = model.metrics["pooled"], model.spreads
    interval, loss = model.accuracy_interval, pooled["negative_log_likelihood"]
    counts = (pooled["images"] - model.correct, pooled["images"], len(model.runs))
    return model.name, spreads["accuracy"], interval, spreads["f1"], loss, *counts


def paper_tables(data: ReportData) -> list[Block]:
    """The tables of the paper, and size and speed."""
    return [
        Text((f"Laid out as in {published.PAPER}. Columns “paper” hold its figures, misprints included.",)),
        *_dataset_tables(data),
        _ablation_table(data),
        class_table(data),
        _fold_table(data),
        _model_table(data, "table-5", "Table 5. Comparison with other networks", published.NETWORKS),
        _model_table(data, "table-6", "Table 6. Comparison with other methods", published.METHODS, published.HUANG),
        _size_table(data),
    ]


def _dataset_tables(data: ReportData) -> list[Table]:
    """Table 1: one per dataset and its splits."""
    different: dict[tuple[Any, ...], Source] = {}
    for source in data.sources:
        different.setdefault((source.dataset_digest, source.split_digests), source)
    several = len(different) > 1
    return [
        subset_table(source, f"-{number}" if several else "", f" in {source.path}" if several else "")
        for number, source in enumerate(different.values(), start=1)
    ]


def subset_table(source: Source, suffix: str = "", where: str = "", *, paper: bool = True) -> Table:
    """Table 1: images per class and subset, of all folds of a source."""
    folds = [split["counts"] for split in source.splits]
    classes = source.manifest["classes"]
    rows = [_subset_row(label, folds, [label], paper=paper) for label in classes]
    groups = (*(TITLES.get(subset, subset) for subset in SUBSETS), "all subsets")
    cells = tuple(column for group in groups for column in columns_of(("here", "paper"), count, group))
    return make_table(
        f"table-1{suffix}",
        f"{'Table 1. ' if paper else ''}Images per class and subset{where}",
        (Column("class"), *(cells if paper else columns_of(groups, count))),
        [*rows, _subset_row("all", folds, classes, paper=paper)],
        *([_split_note(source)] if paper else []),
    )


def _subset_row(name: str, folds: Sequence[Any], labels: Sequence[str], *, paper: bool) -> Row:
    cells: list[Any] = [name]
    for subsets in (*((subset,) for subset in SUBSETS), SUBSETS):
        here = [sum(fold[subset].get(label, 0) for subset in subsets for label in labels) for fold in folds]
        known = all(label in published.IMAGES for label in labels)
        there = sum(published.IMAGES[label][subset] for subset in subsets for label in labels) if known else None
        cells += [_range(here), there] if paper else [_range(here)]
    return cells


def _range(values: Sequence[int]) -> int | list[int]:
    """A number, or the least and the largest where folds differ."""
    low, high = min(values), max(values)
    return low if low == high else [low, high]


def _split_note(source: Source) -> str:
    split = f"by {source.group_by}, seed {source.config.data.split_seed}"
    if not source.test:
        return f"One split, {split}."
    return f"{len(source.splits)} folds, split {split}: {_ROTATION[source.test]}. A range where the folds differ."


def _ablation_table(data: ReportData) -> Table | Text:
    """Table 2: what each of the three modules does."""
    caption = "Table 2. Ablation: inception downsampling (A), multi-scale stem (B), squeeze-and-excitation (C)"
    paper = {name: published.ablation_metrics(name) for name in published.ABLATION}
    note = "The paper's table has the accuracy; its other figures are the averages of its table 3."
    return _model_table(data, "table-2", caption, paper, note, modules=True)


def _model_table(
    data: ReportData, name: str, caption: str, paper: Mapping[str, Any], *notes: str, modules: bool = False
) -> Table | Text:
    """A table of models; a sentence where none of what it compares was run."""
    missing = [model for model in paper if not data.of_model(model)]
    if not set(paper) - {published.IMPROVED, *missing}:
        return Text((f"{caption}: left out, for none of {', '.join(missing)} is in this report.",))
    rows = [
        (model.name, *(published.ABLATION[key] if modules else ()), *_pairs(model.spreads, there, METRICS))
        for key, there in paper.items()
        for model in data.of_model(key)
    ]
    absent = [f"In the paper's table, but not in this report: {', '.join(missing)}."] if missing else []
    columns = (Column("model"), *columns_of("ABC" if modules else "", check), *metric_columns(METRICS))
    return make_table(name, caption, columns, rows, _SPREAD, *notes, *absent)


def class_table(data: ReportData, *, paper: bool = True) -> Table:
    """Table 3: metrics per class of the models of the ablation, or, where none was run, of the best model."""
    models = [model for name in published.ABLATION for model in data.of_model(name)] or [data.best]
    several = len(models) > 1
    rows = [row if several else row[1:] for model in models for row in _class_rows(model, paper=paper)]
    titles = ("model", "class") if several else ("class",)
    return make_table(
        "table-3",
        f"{'Table 3. ' if paper else ''}Metrics per class{'' if several else f' of {models[0].name}'}",
        (*columns_of(titles), *metric_columns(CLASS_METRICS, paper=paper), Column("images", count)),
        rows,
        f"Percent, of {data.pooled}, one class against the rest, with {format_level(data.sources[0])} intervals: "
        "bootstrap over groups, or Wilson's where all resamples agree.",
        *(["The paper's are means of its folds."] if paper else []),
    )


def _class_rows(model: ReportedModel, *, paper: bool) -> Iterator[tuple[Any, ...]]:
    pooled, intervals = model.metrics["pooled"], model.metrics["intervals"]
    rows = [*pooled["per_class"].items(), ("macro average", {**pooled["macro"], "images": pooled["images"]})]
    matrix, known = np.array(pooled["confusion_matrix"]), published.PER_CLASS.get(model.model, {})
    for i, (label, row) in enumerate(rows):
        trials = _trials(matrix, i) if i < len(matrix) else {}
        own = intervals["per_class"].get(label, intervals)
        here = {name: _with_interval(row[name], own[name], *trials.get(name, (0, 0))) for name in CLASS_METRICS}
        there = known.get(label if i < len(matrix) else published.AVERAGE, {})
        cells = _pairs(here, there, CLASS_METRICS) if paper else here.values()
        yield model.name, label, *cells, row["images"]


def _trials(matrix: NDArray[np.int64], i: int) -> dict[str, tuple[int, int]]:
    """Successes and trials of the metrics of a class that are proportions."""
    hits, actual, predicted, total = (int(n) for n in (matrix[i, i], matrix[i].sum(), matrix[:, i].sum(), matrix.sum()))
    specificity = (total - actual - predicted + hits, total - actual)
    return {"precision": (hits, predicted), "recall": (hits, actual), "specificity": specificity}


def _with_interval(value: float | None, bootstrap: Sequence[float] | None, hits: int, trials: int) -> Any:
    """A metric with the bootstrap's interval, or Wilson's where that has no width and there is one."""
    has_width = bootstrap is not None and bootstrap[0] < bootstrap[1]
    interval = bootstrap if has_width or not trials else wilson(hits, trials)
    return None if value is None else {"value": value, "interval": interval and list(interval)}


def _fold_table(data: ReportData) -> Table | Text:
    """Table 4: the improved model's trainings."""
    caption = f"Table 4. The folds of {published.IMPROVED}"
    models = [model for model in data.of_model(published.IMPROVED) if len(model.runs) > 1]
    if not models:
        return Text((f"{caption}: left out, for this report has no cross-validation of it.",))
    return make_table(
        "table-4",
        caption,
        (*columns_of(("model", "training")), *metric_columns(METRICS)),
        [row for model in models for row in _fold_rows(model)],
        "Percent. The paper's folds share one test subset; they are not the folds here.",
    )


def _fold_rows(model: ReportedModel) -> Iterator[Row]:
    for fold in model.metrics["folds"]:
        here = {**fold["macro"], "accuracy": fold["accuracy"]}
        paper = published.FOLDS[fold["fold"]] if fold["fold"] < len(published.FOLDS) - 1 else {}
        yield model.name, f"seed {fold['seed']}, fold {fold['fold']}", *_pairs(here, paper, METRICS)
    yield model.name, "average", *_pairs(model.spreads, published.FOLDS[-1], METRICS)


def _size_table(data: ReportData) -> Table:
    columns = (
        Column("model"),
        Column("here", decimals(2, 1e6), group="parameters, millions"),
        Column("paper", decimals(1, 1e6), group="parameters, millions"),
        Column("trainable, millions", decimals(2, 1e6)),
        Column("MACs, billions", decimals(2, 1e9)),
        *columns_of(("training", "testing"), decimals(1), "images per second"),
        Column("device"),
        *metric_columns(("accuracy",)),
    )
    return make_table(
        "size-and-speed",
        "Size and speed",
        columns,
        map(_size_row, data.models),
        "MACs are multiplications with an addition, for one image of the size that was trained with (see Provenance). "
        "Speeds are means over the folds; they compare only between models that had the same device to themselves. A "
        "dash where nothing was recorded.",
    )


def _size_row(model: ReportedModel) -> Row:
    speeds = [model.known(f"{phase}_images_per_second") for phase in ("training", "evaluation")]
    paper = {**published.ABLATION_ACCURACY, **{name: row["accuracy"] for name, row in published.NETWORKS.items()}}
    return (
        model.name,
        model.metrics.get("parameters"),
        published.PARAMETERS.get(model.model),
        model.metrics.get("trainable_parameters"),
        model.metrics.get("macs"),
        *(fmean(speed) if speed else None for speed in speeds),
        sorted(set(map(str, model.known("device")))) or None,
        model.spreads["accuracy"],
        paper.get(model.model),
    )
