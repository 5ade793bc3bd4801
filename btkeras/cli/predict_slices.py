"""The output of ``btkeras predict`` without --group-by: one line, object or row per slice."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from btkeras.inference.predictor import FilePrediction

_KEYS = (
    "path",
    "label",
    "probabilities",
    "decision",
    "set",
    "ood_percentile",
    "reasons",
    "near_duplicate",
    "slice",
    "slices",
)
# Of DICOM files: whose slice, and which, as of `inference.dicom_columns`.
Columns = Mapping[str, Mapping[str, Any]]


def print_slices(
    predictions: Iterable[FilePrediction], classes: Sequence[str], columns: Columns, output: str | None
) -> None:
    """Prints each prediction when it comes, as a table (``output`` is None), ``json`` or ``csv``."""
    if output == "json":
        _print_json(predictions, columns)
    elif output == "csv":
        _print_csv(predictions, classes, columns)
    else:
        _print_table(predictions, classes)


def slice_values(prediction: FilePrediction, columns: Columns) -> dict[str, Any]:
    """What --json and --csv say of a slice, with the columns of its DICOM file."""
    names = ("path", "error") if prediction.error else _KEYS
    values = {name: getattr(prediction, name) for name in names} | dict(columns.get(prediction.file, {}))
    return values if prediction.error or prediction.decision else values | {"decision": None}


def _print_table(predictions: Iterable[FilePrediction], classes: Sequence[str]) -> None:
    widths = {name: max(12, len(name) + 2) for name in classes}
    first = max(widths.values())
    header = "".join(f"{name:>{width}}" for name, width in widths.items()) + f"{'ood_percentile':>16}  file"
    for prediction in predictions:
        if prediction.error:
            click.echo(f"{prediction.path}: {prediction.error}", err=True)
            continue
        if header:
            click.echo(f"{'decision' if prediction.decision else 'label':<{first}}{header}")
            header = ""
        row = "".join(f"{prediction.probabilities[name]:{width}.4f}" for name, width in widths.items())
        percentile = "" if prediction.ood_percentile is None else f"{prediction.ood_percentile:.1f}"
        reasons = f" ({'; '.join(prediction.reasons)})" if prediction.reasons else ""
        click.echo(
            f"{prediction.decision or prediction.label:<{first}}{row}{percentile:>16}  {prediction.path}{reasons}"
        )


def _print_json(predictions: Iterable[FilePrediction], columns: Columns) -> None:
    separator = "["
    for prediction in predictions:
        click.echo(f"{separator}\n  {json.dumps(slice_values(prediction, columns))}", nl=False)
        separator = ","
    click.echo("\n]")


def _print_csv(predictions: Iterable[FilePrediction], classes: Sequence[str], columns: Columns) -> None:
    from btkeras.inference.dicom_columns import COLUMNS

    names = ("path", "label", *classes, "error", *_KEYS[_KEYS.index("decision") :], *COLUMNS)
    writer = csv.DictWriter(sys.stdout, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for values in (slice_values(prediction, columns) for prediction in predictions):
        joined = {name: ";".join(values.get(name) or ()) for name in ("set", "reasons")}
        writer.writerow({**values, **values.get("probabilities", {}), **joined})
