"""``boxes.csv``: a tumour box for pictures that lie in class folders."""

from __future__ import annotations

import csv
import io
import posixpath
from collections.abc import Collection, Iterable, Mapping

from btkeras.errors import DataError

BOXES = "boxes.csv"
BOX_COLUMNS = ("file", "x_center", "y_center", "width", "height")


def read_boxes(
    data: bytes, folder: str, name: str, pictures: Collection[str], *, strict: bool = True
) -> dict[str, str]:
    """Reads a ``boxes.csv``.

    Args:
        data: Its content, UTF-8.
        folder: Where it lies, as ``pictures`` are named; "" for where these start.
        name: What messages call it.
        pictures: The paths that there are.
        strict: Whether other columns, and lines of other pictures, are errors instead of being passed over.

    Returns:
        "x_center y_center width height", fractions, for the pictures that have a box.

    Raises:
        DataError: If columns or a line are not as they must be.
    """
    rows = csv.DictReader(io.StringIO(data.decode("utf-8-sig", errors="replace")))
    if list(rows.fieldnames or ())[:5] != list(BOX_COLUMNS):
        if not strict:
            return {}
        raise DataError(
            f"{BOXES} must have the columns {','.join(BOX_COLUMNS)}",
            received=f"{name} with {','.join(rows.fieldnames or ()) or 'an empty file'}",
        )
    boxes = {}
    for number, row in enumerate(rows, start=2):
        path = posixpath.normpath(posixpath.join(folder, row["file"]))
        text = _box(row, f"{name}, line {number}", path in pictures or not strict)
        if path in pictures:
            boxes[path] = text
    return boxes


def _box(row: Mapping[str, str], line: str, known: bool) -> str:
    try:
        values = [float(row[name]) for name in BOX_COLUMNS[1:]]
    except (TypeError, ValueError):
        values = []
    if not known or not values or not all(0 <= value <= 1 for value in values):
        raise DataError(
            f"A line of {BOXES} must name a picture beside it and a box in fractions from 0 to 1",
            received=f"{line}: {','.join(str(value) for value in row.values())}",
            remedy="Correct or remove the line",
        )
    return box_text(values)


def box_text(values: Iterable[float]) -> str:
    """Writes a box as the manifest keeps it: "x_center y_center width height", fractions of the image."""
    return " ".join(f"{value:.6g}" for value in values)
