"""Table 1: the images of each class and part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from btkeras.reporting import published
from btkeras.reporting.document import Cell, Column, Table
from btkeras.reporting.evidence import ReportData
from btkeras.reporting.numbers import UNKNOWN, count_cell, range_cell
from btkeras.reporting.sources import Source

_SUBSETS = {"train": "training", "validation": "validation", "test": "test"}


def dataset_tables(evidence: ReportData) -> list[Table]:
    """One table per dataset and its splits."""
    different: dict[tuple[Any, ...], Source] = {}
    for source in evidence.sources:
        different.setdefault((source.dataset_digest, source.split_digests), source)
    return [_table(source, number, len(different)) for number, source in enumerate(different.values())]


def _table(source: Source, number: int, tables: int) -> Table:
    where = f" in {source.path}" if tables > 1 else ""
    counts = [split["counts"] for split in source.splits]
    rows = [
        _row(label, [{subset: fold[subset].get(label, 0) for subset in _SUBSETS} for fold in counts], published.IMAGES)
        for label in source.summary["classes"]
    ]
    sums = [{subset: sum(fold[subset].values()) for subset in _SUBSETS} for fold in counts]
    total = {key: sum(row[key] for row in published.IMAGES.values()) for key in ("all", *_SUBSETS)}
    rows.append(_row("all", sums, {"all": total}))
    return Table(
        name="table-1" + (f"-{number + 1}" if tables > 1 else ""),
        caption=f"Table 1. Images per class and part{where}",
        columns=(
            Column("class", numeric=False),
            *(Column(kind, group) for group in (*_SUBSETS.values(), "all parts") for kind in ("here", "paper")),
        ),
        rows=tuple(rows),
        notes=_notes(source),
    )


def _row(label: str, folds: Sequence[Mapping[str, int]], known: Mapping[str, Mapping[str, int]]) -> tuple[Cell, ...]:
    paper = known.get(label, {})
    cells = [Cell(label, label)]
    for subset in _SUBSETS:
        cells += [range_cell([fold[subset] for fold in folds]), _published(paper.get(subset))]
    return (*cells, range_cell([sum(fold.values()) for fold in folds]), _published(paper.get("all")))


def _published(count: int | None) -> Cell:
    return UNKNOWN if count is None else count_cell(count)


def _notes(source: Source) -> tuple[str, ...]:
    protocol = source.summary["protocol"]
    kinds = {
        "rotating": "every image is tested once, in the fold it was dealt to",
        "fixed": "the test part is the same in all folds, and the validation part rotates",
    }
    if source.is_single:
        return (f"One split, by {protocol['group_by']}, seed {protocol['split_seed']}.",)
    return (
        f"{protocol['folds']} folds, split by {protocol['group_by']}, seed {protocol['split_seed']}: "
        f"{kinds[protocol['test']]}. A range where the folds differ.",
    )
