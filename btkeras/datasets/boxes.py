"""Boxes around tumours: of the column ``box``, of ``boxes.csv``, of masks, and in images cropped to the head."""

from __future__ import annotations

import csv
import io
import posixpath
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from btkeras.errors import DataError
from btkeras.machine import map_in_threads
from btkeras.preprocessing.decode import decode_file
from btkeras.preprocessing.harmonize import HeadBox, head_box
from btkeras.preprocessing.preprocessor import to_channels

BOXES = "boxes.csv"
BOX_COLUMNS = ("file", "x_center", "y_center", "width", "height")


class Box(NamedTuple):
    """Edges as fractions of the image, counted from its upper left corner."""

    top: float
    left: float
    bottom: float
    right: float


def parse_box(text: str, name: str = "an image") -> Box | None:
    """Reads a field of the column ``box``: "x_center y_center width height", fractions; None of an empty one.

    Raises DataError, which says that it is of ``name``, if it holds something else.
    """
    if not text:
        return None
    values = _floats(text.split())
    if len(values) != 4:
        rule, remedy = (
            "A box must be four fractions, x_center y_center width height",
            "Correct the dataset's manifest.csv",
        )
        raise DataError(rule, received=f"{text!r} for {name}", remedy=remedy)
    x, y, width, height = values
    return Box(y - height / 2, x - width / 2, y + height / 2, x + width / 2)


def format_box(box: Box) -> str:
    """Writes a field of the column ``box``."""
    values = ((box.left + box.right) / 2, (box.top + box.bottom) / 2, box.right - box.left, box.bottom - box.top)
    return " ".join(f"{value:.6g}" for value in values)


def mask_box(mask: NDArray[np.bool_]) -> Box | None:
    """The smallest box around a mask ``[h, w]``, a full one's (0, 0, 1, 1); None around an empty one."""
    if not mask.any():
        return None
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    height, width = mask.shape
    edges = rows[0] / height, columns[0] / width, (rows[-1] + 1) / height, (columns[-1] + 1) / width
    return Box(*map(float, edges))


def box_in_crop(box: Box, crop: HeadBox | Box, height: int = 1, width: int = 1) -> Box:
    """A box as fractions of a crop; below 0 or above 1 where it reaches beyond.

    The crop is given in pixels of an image of this height and width, or in fractions.
    """
    tall, wide = crop.bottom - crop.top, crop.right - crop.left
    return Box(
        (box.top * height - crop.top) / tall,
        (box.left * width - crop.left) / wide,
        (box.bottom * height - crop.top) / tall,
        (box.right * width - crop.left) / wide,
    )


def clip_box(box: Box) -> Box | None:
    """A box without what lies outside of the image; None if nothing is left."""
    clipped = Box(*(min(max(edge, 0.0), 1.0) for edge in box))
    return clipped if clipped.bottom > clipped.top and clipped.right > clipped.left else None


def boxes_in_heads(paths: Sequence[Path], boxes: Sequence[Box | None]) -> list[Box | None]:
    """Boxes of images as fractions of their heads; only images with a box are read."""
    return list(map_in_threads(_box_in_head, zip(paths, boxes, strict=True)))


def _box_in_head(image: tuple[Path, Box | None]) -> Box | None:
    path, box = image
    if box is None:
        return None
    grey = to_channels(decode_file(path), 1)[..., 0]
    return box_in_crop(box, head_box(grey), *grey.shape)


def read_boxes(data: bytes, folder: str, name: str, images: Collection[str], *, strict: bool = True) -> dict[str, str]:
    """Reads the content of a ``boxes.csv`` in ``folder``, to which its paths are relative; messages call it ``name``.

    Returns:
        By path of one of ``images`` that has a box, its field of the column ``box``.

    Raises:
        DataError: If columns or a line are not valid. Other columns, and lines of other images, are errors if
            ``strict``, otherwise they are ignored.
    """
    rows = csv.DictReader(io.StringIO(data.decode("utf-8-sig", errors="replace")))
    columns = list(rows.fieldnames or ())
    if columns[:5] != list(BOX_COLUMNS):
        if not strict:
            return {}
        received = f"{name} with {','.join(columns) or 'an empty file'}"
        raise DataError(f"{BOXES} must have the columns {','.join(BOX_COLUMNS)}", received=received)
    boxes = {}
    for number, row in enumerate(rows, start=2):
        path = posixpath.normpath(posixpath.join(folder, row["file"]))
        values = _floats(row[column] for column in BOX_COLUMNS[1:])
        valid = values and all(0 <= value <= 1 for value in values)
        if not valid or (strict and path not in images):
            raise DataError(
                f"A line of {BOXES} must name an image beside it and a box in fractions from 0 to 1",
                received=f"{name}, line {number}: {','.join(str(value) for value in row.values())}",
                remedy="Correct or remove the line",
            )
        if path in images:
            boxes[path] = " ".join(f"{value:.6g}" for value in values)
    return boxes


def _floats(texts: Iterable[str | None]) -> list[float]:
    """Numbers; nothing if one of the texts is none."""
    try:
        return [float(text) for text in texts]  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return []
