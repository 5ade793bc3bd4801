"""Tables 2, 3, 5 and 6: what each network got right, and an overview of all networks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from btkeras.metrics import METRICS
from btkeras.reporting import published
from btkeras.reporting.document import Cell, Column, Table, Text
from btkeras.reporting.evidence import ReportData, ReportedModel
from btkeras.reporting.numbers import UNKNOWN, count_cell, interval_cell, percent_cell, spread_cell

_CLASS_FIGURES = METRICS[1:]
_TITLES = {"f1": "F1"}
_SPREAD_NOTE = (
    "Percent; mean ± standard deviation over the trainings (folds and seeds). Precision, recall, specificity and F1 "
    "are macro averages: the mean over the classes."
)


def overview_table(evidence: ReportData) -> Table:
    """Every network of the report, the best first."""
    level = evidence.sources[0].summary["bootstrap"]["level"]
    ranked = sorted(evidence.networks, key=lambda network: -network.accuracy)
    return Table(
        name="overview",
        caption="Every network of this report, the best first",
        columns=(
            Column("network", numeric=False),
            Column("accuracy"),
            Column(f"{100 * level:g} % interval"),
            Column("F1"),
            Column("log loss"),
            Column("wrong"),
            Column("answers"),
            Column("trainings"),
        ),
        rows=tuple(_overview_row(network) for network in ranked),
        notes=(
            "Accuracy and F1 in percent, mean ± standard deviation over the trainings. The interval is of the accuracy "
            "over all test images, from a bootstrap that draws whole groups (slices of one patient, copies of one "
            "image) where the dataset names them. Log loss is the mean of the negative natural "
            "logarithm of the true class's probability.",
        ),
    )


def _overview_row(network: ReportedModel) -> tuple[Cell, ...]:
    figures = network.figures
    pooled = figures["pooled"]
    right = sum(row[i] for i, row in enumerate(pooled["confusion_matrix"]))
    return (
        Cell(network.name, network.name),
        _spread(network, "accuracy"),
        interval_cell(figures["intervals"]["accuracy"]),
        _spread(network, "f1"),
        Cell(f"{pooled['negative_log_likelihood']:.4f}", pooled["negative_log_likelihood"]),
        count_cell(pooled["images"] - right),
        count_cell(pooled["images"]),
        count_cell(len(network.runs)),
    )


def class_tables(evidence: ReportData) -> list[Table]:
    """Table 2: the improved network's figures per class, or, where it was not run, the best network's."""
    networks = evidence.of_model(published.IMPROVED) or [evidence.best]
    suffixes = [f"-{number}" for number in range(1, len(networks) + 1)] if len(networks) > 1 else [""]
    return [_class_table(evidence, network, suffix) for network, suffix in zip(networks, suffixes, strict=True)]


def _class_table(evidence: ReportData, network: ReportedModel, suffix: str) -> Table:
    pooled, intervals = network.figures["pooled"], network.figures["intervals"]
    rows = [
        _class_row(network, label, row, intervals["per_class"][label]) for label, row in pooled["per_class"].items()
    ]
    macro = {name: pooled["macro"][name] for name in _CLASS_FIGURES} | {"images": pooled["images"]}
    rows.append(_class_row(network, "macro average", macro, intervals))
    return Table(
        name=f"table-2{suffix}",
        caption=f"Table 2. Figures of {network.name} per class",
        columns=(Column("class", numeric=False), *_pairs(_CLASS_FIGURES), Column("images")),
        rows=tuple(rows),
        notes=(
            f"Percent, of {evidence.pooled}, one class against the rest, with "
            f"{100 * network.source.summary['bootstrap']['level']:g} % intervals (bootstrap, by group).",
        ),
    )


def _class_row(
    network: ReportedModel, label: str, row: Mapping[str, float], intervals: Mapping[str, Sequence[float]]
) -> tuple[Cell, ...]:
    cells = [Cell(label, label)]
    for name in _CLASS_FIGURES:
        cells += [percent_cell(row[name], intervals[name]), published_cell(network.model, label, name)]
    return (*cells, count_cell(int(row["images"])))


def ablation_table(evidence: ReportData) -> Table | Text:
    """Table 3: what each of the three modules does."""
    caption = "Table 3. Ablation: inception downsampling (A), multi-scale stem (B), squeeze-and-excitation (C)"
    columns = (*(Column(letter) for letter in "ABC"), *_pairs(METRICS))
    cells = {
        model: [Cell("✓" if has else "", has) for has in (variant.inception, variant.multi_scale, variant.attention)]
        for model, variant in published.ABLATION.items()
    }
    return _model_table(evidence, "table-3", caption, columns, cells)


def network_table(evidence: ReportData) -> Table | Text:
    """Table 5: other networks."""
    caption = "Table 5. Comparison with other networks"
    return _model_table(evidence, "table-5", caption, _pairs(METRICS), dict.fromkeys(published.NETWORKS, ()))


def method_table(evidence: ReportData) -> Table | Text:
    """Table 6: other methods."""
    caption = "Table 6. Comparison with other methods"
    return _model_table(evidence, "table-6", caption, _pairs(METRICS), dict.fromkeys(published.METHODS, ()))


def _model_table(
    evidence: ReportData, name: str, caption: str, columns: Iterable[Column], models: Mapping[str, Sequence[Cell]]
) -> Table | Text:
    """A table of the paper's; a sentence where none of what it compares was run."""
    rows = [
        (Cell(network.name, network.name), *cells, *figure_cells(network))
        for model, cells in models.items()
        for network in evidence.of_model(model)
    ]
    missing = [model for model in models if not evidence.of_model(model)]
    if not set(models) - {published.IMPROVED, *missing}:
        return Text((f"{caption}: left out, for none of {', '.join(missing)} is in this report.",))
    notes = [_SPREAD_NOTE]
    if missing:
        notes.append(f"In the paper's table, but not in this report: {', '.join(missing)}.")
    return Table(name, caption, (Column("network", numeric=False), *columns), tuple(rows), tuple(notes))


def figure_cells(network: ReportedModel) -> list[Cell]:
    """A network's five figures, each with the published one beside it."""
    cells = []
    for name in METRICS:
        cells += [_spread(network, name), published_cell(network.model, name)]
    return cells


def published_cell(*key: str) -> Cell:
    """A published figure; a dash where none is known."""
    known = published.FIGURES.get(key)
    return UNKNOWN if known is None else Cell(known.text, known.value)


def _spread(network: ReportedModel, name: str) -> Cell:
    return spread_cell(network.figures["mean"][name], (network.figures["std"] or {}).get(name))


def _pairs(names: Iterable[str]) -> tuple[Column, ...]:
    return tuple(Column(kind, _TITLES.get(name, name)) for name in names for kind in ("here", "paper"))
