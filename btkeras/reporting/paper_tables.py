"""The paper's tables with the published figures beside, the overview of the models, and their size and speed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from btkeras.metrics import METRICS
from btkeras.reporting import published
from btkeras.reporting.document import Block, Column, Format, Table, Text, check, count, decimals, percent
from btkeras.reporting.published import CLASS_METRICS
from btkeras.reporting.report_data import ReportData, ReportedModel
from btkeras.reporting.sources import Source
from btkeras.splitting.splits import SUBSETS

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


def metric_columns(names: Iterable[str], formatter: Format = percent, *, paper: bool = True) -> tuple[Column, ...]:
    """Columns of values from a row's ``here``, each with that from ``paper`` beside it if wanted."""
    titles = {name: TITLES.get(name, name) for name in names}
    if not paper:
        return Column.several({title: f"here.{name}" for name, title in titles.items()}, formatter)
    sides = ("here", "paper")
    return tuple(Column(side, formatter, f"{side}.{name}", title) for name, title in titles.items() for side in sides)


def overview_table(data: ReportData) -> Table:
    """Every model of the report, the best first."""
    interval = f"{format_level(data.sources[0])} interval"
    columns = (
        Column("model", key="name"),
        *Column.several({"accuracy": "spreads.accuracy", interval: "accuracy_interval", "F1": "spreads.f1"}, percent),
        Column("log loss", decimals(4), "metrics.pooled.negative_log_likelihood"),
        *Column.several({"wrong": "wrong.size", "images": "metrics.pooled.images"}, count),
        Column("trainings", count, lambda model: len(model.runs)),
        *(Column("training", key="unfinished"),) * any(model.unfinished for model in data.models),
    )
    return Table.from_rows(
        "overview",
        "All models, the best first" if len(data.models) > 1 else "All test images",
        columns,
        data.ranked,
        "Accuracy and F1 in percent, mean ± standard deviation over the trainings. The interval is of the accuracy on "
        "all test images, from a bootstrap that draws whole groups (slices of one patient, duplicates of one image) "
        "where the dataset names them. Log loss is the mean negative natural logarithm of the true class's "
        "probability.",
    )


def compares_with_paper(data: ReportData) -> bool:
    """Whether the paper's figures are shown: not beside other classes than its own."""
    return all(published.compares_with(source.manifest["classes"]) for source in data.sources)


def paper_tables(data: ReportData) -> list[Block]:
    """The tables of the paper, and size and speed; for other classes only those of images, size and speed."""
    if not compares_with_paper(data):
        found = f"The paper's figures are left out: its classes are {', '.join(published.IMAGES)}."
        return [Text((found,)), *_dataset_tables(data, paper=False), _size_table(data, paper=False)]
    tables = {
        "2": _model_table(
            data,
            "Table 2. Ablation: inception downsampling (A), multi-scale stem (B), squeeze-and-excitation (C)",
            published.ABLATION,
            "The paper's table has the accuracy; its other figures are the averages of its table 3.",
            modules="ABC",
        ),
        "3": class_table(data) if any(model.model in published.PER_CLASS for model in data.models) else None,
        "4": _fold_table(data),
        "5": _model_table(data, "Table 5. Comparison with other networks", published.NETWORKS),
        "6": _model_table(data, "Table 6. Comparison with other methods", published.METHODS),
    }
    absent = ", ".join(number for number, table in tables.items() if table is None)
    note = f" Its tables {absent} are of networks, or of folds, that this report does not have." if absent else ""
    return [
        Text((f"Laid out as in {published.PAPER}. Columns “paper” hold its figures, misprints included.{note}",)),
        *_dataset_tables(data),
        *filter(None, tables.values()),
        _size_table(data),
    ]


def _dataset_tables(data: ReportData, *, paper: bool = True) -> list[Table]:
    """Table 1: one per dataset and its splits."""
    different: dict[tuple[Any, ...], Source] = {}
    for source in data.sources:
        different.setdefault((source.dataset_digest, source.split_digests), source)
    several = len(different) > 1
    numbered = enumerate(different.values(), start=1)
    return [subset_table(source, several and number, paper=paper) for number, source in numbered]


def subset_table(source: Source, number: int = 0, *, paper: bool = True) -> Table:
    """Table 1: images per class and subset, of all folds of a source; numbered from 1 if it is one of several."""
    rows = {label: [label] for label in source.manifest["classes"]} | {"all": source.manifest["classes"]}
    return Table.from_rows(
        f"table-1-{number}" if number else "table-1",
        f"{'Table 1. ' if paper else ''}Images per class and subset{f' in {source.path}' if number else ''}",
        (Column("class"), *metric_columns((*SUBSETS, "all subsets"), count, paper=paper)),
        [{"class": name, **_subset_counts(source, labels)} for name, labels in rows.items()],
        *([_split_note(source)] if paper else []),
    )


def _subset_counts(source: Source, labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    counts: dict[str, dict[str, Any]] = {"here": {}, "paper": {}}
    for name, subsets in {**{subset: (subset,) for subset in SUBSETS}, "all subsets": SUBSETS}.items():
        pairs = [(subset, label) for subset in subsets for label in labels]
        here = {sum(split["counts"][subset].get(label, 0) for subset, label in pairs) for split in source.splits}
        # A range where the folds differ.
        counts["here"][name] = [min(here), max(here)] if len(here) > 1 else here.pop()
        known = set(labels) <= set(published.IMAGES)
        counts["paper"][name] = sum(published.IMAGES[label][subset] for subset, label in pairs) if known else None
    return counts


def _split_note(source: Source) -> str:
    split = f"by {source.split_kind}, seed {source.config.data.split_seed}"
    if not source.test:
        return f"One split, {split}."
    return f"{len(source.splits)} folds, split {split}: {_ROTATION[source.test]}. A range where the folds differ."


def _model_table(
    data: ReportData, caption: str, paper: Mapping[str, Mapping[str, Any]], *notes: str, modules: str = ""
) -> Table | None:
    """A table of all models that the paper has in it; None where none of what it compares was run."""
    missing = [model for model in paper if not data.of_model(model)]
    if not set(paper) - {published.IMPROVED, *missing}:
        return None
    rows = [
        {"model": model.name if model else key, "here": model and model.spreads, "paper": there}
        | {letter: letter in published.MODULES[key] for letter in modules}
        for key, there in paper.items()
        for model in tuple(data.of_model(key)) or (None,)
    ]
    absent = ["A dash where this report has no such model."] if missing else []
    columns = (Column("model"), *Column.several(modules, check), *metric_columns(METRICS))
    name = caption.split(".")[0].lower().replace(" ", "-")
    return Table.from_rows(name, caption, columns, rows, _SPREAD, *notes, *absent)


def class_table(data: ReportData) -> Table:
    """Table 3: metrics per class of the models of the ablation, with the paper's."""
    models = [model for name in published.ABLATION for model in data.of_model(name)]
    several = len(models) > 1
    return Table.from_rows(
        "table-3",
        f"Table 3. Metrics per class{'' if several else f' of {models[0].name}'}",
        (
            *Column.several(("model", "class") if several else ("class",)),
            *metric_columns(CLASS_METRICS),
            Column("images", count),
        ),
        [row for model in models for row in _class_rows(model)],
        _class_note(data),
        "The paper's are means of its folds.",
        *_misprints(dict.fromkeys(model.model for model in models)),
    )


def headline_table(data: ReportData) -> Table:
    """Metrics per class of the best model, without the paper's."""
    columns = (Column("class"), *metric_columns(CLASS_METRICS, paper=False), Column("images", count))
    caption = f"Metrics per class of {data.best.name}"
    return Table.from_rows("classes", caption, columns, _class_rows(data.best), _class_note(data))


def _class_note(data: ReportData) -> str:
    return (
        f"Percent, of {data.pooled}, one class against the rest, with {format_level(data.sources[0])} intervals: "
        "bootstrap over groups, or Wilson's over them where all resamples agree."
    )


def _misprints(models: Iterable[str]) -> Iterator[str]:
    """A sentence for each published cell of the table that contradicts others."""
    for model in models:
        for label, asked in published.MISPRINTS.get(model, {}).items():
            printed = percent(published.PER_CLASS[model][label]["precision"])
            cell = f"{model}'s precision, {label}, is {printed}"
            yield f"A misprint of the paper: {cell} where its other cells ask for {percent(asked)}."


def _class_rows(model: ReportedModel) -> Iterator[Mapping[str, Any]]:
    pooled, intervals = model.metrics["pooled"], model.metrics["intervals"]
    paper = published.PER_CLASS.get(model.model, {})
    rows = {**pooled["per_class"], "macro average": {**pooled["macro"], "images": pooled["images"]}}
    for label, row in rows.items():
        own = intervals["per_class"].get(label, intervals)
        here = {
            name: row[name] if row[name] is None else {"value": row[name], "interval": own[name]}
            for name in CLASS_METRICS
        }
        there = paper.get(label if label in pooled["per_class"] else published.AVERAGE)
        yield {"model": model.name, "class": label, "here": here, "paper": there, "images": row["images"]}


def _fold_table(data: ReportData) -> Table | None:
    """Table 4: the improved model's trainings; None without a cross-validation of it."""
    rows = [row for model in data.of_model(published.IMPROVED) if len(model.runs) > 1 for row in _fold_rows(model)]
    if not rows:
        return None
    columns = (*Column.several(("model", "training")), *metric_columns(METRICS))
    note = "Percent. The paper's folds share one test subset; they are not the folds here."
    return Table.from_rows("table-4", f"Table 4. The folds of {published.IMPROVED}", columns, rows, note)


def _fold_rows(model: ReportedModel) -> Iterator[Mapping[str, Any]]:
    *folds, average = published.FOLDS
    for fold in model.metrics["folds"]:
        here, name = {**fold["macro"], "accuracy": fold["accuracy"]}, f"seed {fold['seed']}, fold {fold['fold']}"
        paper = folds[fold["fold"]] if fold["fold"] < len(folds) else None
        yield {"model": model.name, "training": name, "here": here, "paper": paper}
    yield {"model": model.name, "training": "average", "here": model.spreads, "paper": average}


def _size_table(data: ReportData, *, paper: bool = True) -> Table:
    parameters = "parameters, millions"
    columns = (
        Column("model"),
        Column("here", decimals(2, 1e6), "metrics.parameters", parameters),
        *(Column("paper", decimals(1, 1e6), "parameters", parameters),) * paper,
        Column("trainable, millions", decimals(2, 1e6), "metrics.trainable_parameters"),
        Column("MACs, billions", decimals(2, 1e9), "metrics.macs"),
        *Column.several(("training", "testing"), decimals(1), "images per second"),
        Column("device"),
        *metric_columns(("accuracy",), paper=paper),
    )
    return Table.from_rows(
        "size-and-speed",
        "Size and speed",
        columns,
        map(_size_row, data.models),
        "MACs are multiplications with an addition, for one image of the size that was trained with (see Provenance). "
        "Speeds are means over the folds; they compare only between models that had the same device to themselves. A "
        "dash where nothing was recorded.",
    )


def _size_row(model: ReportedModel) -> Mapping[str, Any]:
    keys = {"training": "training_images_per_second", "testing": "evaluation_images_per_second", "device": "device"}
    known = {
        name: [run.manifest[key] for run in model.runs if run.manifest.get(key) is not None]
        for name, key in keys.items()
    }
    comparable = published.compares_with(model.source.manifest["classes"])
    return {
        "model": model.name,
        "metrics": model.metrics,
        "parameters": published.PARAMETERS.get(model.model),
        "here": model.spreads,
        "paper": {**published.NETWORKS, **published.ABLATION}.get(model.model) if comparable else None,
        "device": sorted(set(map(str, known.pop("device")))) or None,
        **{name: fmean(speeds) if speeds else None for name, speeds in known.items()},
    }
