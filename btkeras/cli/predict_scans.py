"""The output of ``btkeras predict --group-by``: one decision per patient or series, with the slices behind it."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from btkeras.inference.predictor import FilePrediction
    from btkeras.inference.scans import ScanPrediction

RULE = (
    "whether there is a tumour is decided by the tenth of the slices with most evidence of one, which one by all slices"
)
_KEYS = ("group", "label", "probabilities", "decision", "reasons")
# The values of a slice's prediction by its file, as without --group-by.
SliceValues = Callable[["FilePrediction"], dict[str, Any]]


def print_scans(
    scans: Sequence[ScanPrediction], classes: Sequence[str], output: str | None, values: SliceValues
) -> None:
    """Prints scans as a table (``output`` is None), ``json`` or ``csv``."""
    if output == "json":
        click.echo(json.dumps([_document(scan, values) for scan in scans], indent=1))
    elif output == "csv":
        _print_csv(scans, classes)
    else:
        _print_table(scans, max(12, *(len(name) + 2 for name in classes)))


def _document(scan: ScanPrediction, values: SliceValues) -> dict[str, Any]:
    supporting = set(scan.supporting)
    slices = [values(each) | {"supports": i in supporting} for i, each in enumerate(scan.slices)]
    keys = ("group", "error") if scan.error else _KEYS
    undecided = {} if scan.error or scan.decision else {"decision": None}
    return {key: getattr(scan, key) for key in keys} | undecided | {"slices": slices}


def _print_table(scans: Sequence[ScanPrediction], width: int) -> None:
    first = "decision" if any(scan.decision for scan in scans) else "label"
    click.echo(f"{first:<{width}}{'probability':>12}{'slices':>8}{'supporting':>12}  group (supporting slices, from 0)")
    for scan in scans:
        if scan.error:
            click.echo(f"{scan.group}: {scan.error}", err=True)
            continue
        probability, supporting = scan.probabilities[scan.label], scan.supporting
        shown = scan.decision or scan.label
        label = f" of {scan.label}" if shown != scan.label else ""
        reasons = f"; {'; '.join(scan.reasons)}" if scan.reasons else ""
        click.echo(
            f"{shown:<{width}}{probability:12.4f}{len(scan.slices):8,}{len(supporting):12,}  {scan.group} "
            f"({', '.join(_ranges(supporting)) or 'none'}{label}{reasons})"
        )


def _ranges(places: Sequence[int]) -> Iterator[str]:
    """Places as ranges: 3, 4, 5, 9 as ``3-5`` and ``9``."""
    known = set(places)
    starts = [place for place in places if place - 1 not in known]
    for first in starts:
        last = first
        while last + 1 in known:
            last += 1
        yield f"{first}-{last}" if last > first else str(first)


def _print_csv(scans: Sequence[ScanPrediction], classes: Sequence[str]) -> None:
    names = (
        "group",
        "label",
        *classes,
        "error",
        "decision",
        "reasons",
        "slices",
        "supporting",
        "unreadable",
        "rejected",
    )
    writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    writer.writeheader()
    for scan in scans:
        writer.writerow(_csv_row(scan))


def _csv_row(scan: ScanPrediction) -> Mapping[str, Any]:
    counts = {
        "slices": len(scan.slices),
        "supporting": len(scan.supporting),
        "unreadable": sum(bool(each.error) for each in scan.slices),
        "rejected": sum(each.decision == "rejected" for each in scan.slices),
    }
    own = {key: getattr(scan, key) for key in ("group", "label", "error", "decision")}
    return {**own, "reasons": ";".join(scan.reasons), **scan.probabilities, **counts}
