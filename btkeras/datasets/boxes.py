"""The tumours' boxes in images that the network gets cropped to the head (``data.harmonize``)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from btkeras.datasets.dataset import Record
from btkeras.errors import DataError
from btkeras.machine import threads
from btkeras.preprocessing.harmonize import HeadBox, head_box
from btkeras.preprocessing.preprocessor import decode_file, to_channels

NO_TUMOR = "no_tumor"


class Box(NamedTuple):
    """Edges as fractions of the image, counted from its upper left corner."""

    top: float
    left: float
    bottom: float
    right: float


@dataclass(frozen=True)
class LesionBoxes:
    """What is known of the tumours in a list of images.

    Attributes:
        boxes: float32 ``[n, 4]``: top, left, bottom, right as fractions; all 0 where no box is given.
        no_tumor: bool ``[n]``: whether an image is known to show no tumour.
    """

    boxes: NDArray[np.float32]
    no_tumor: NDArray[np.bool_]


def box_of(record: Record) -> Box | None:
    """The box of a record, from its column ``box`` ("x_center y_center width height", fractions); None without one.

    Raises:
        DataError: If the column holds something else.
    """
    return parse_box(record.extra.get("box", ""), record.path)


def parse_box(text: str, name: str = "an image") -> Box | None:
    """Reads a column ``box``; errors as ``box_of``, which name the image."""
    if not text:
        return None
    try:
        x, y, width, height = map(float, text.split())
    except ValueError as error:
        raise DataError(
            "A box must be four fractions, x_center y_center width height",
            received=f"{text!r} for {name}",
            remedy="Correct the dataset's manifest.csv",
        ) from error
    return Box(y - height / 2, x - width / 2, y + height / 2, x + width / 2)


def box_in_crop(box: Box, head: HeadBox | Box, height: int = 1, width: int = 1) -> Box:
    """A box of an image as fractions of its head; below 0 or above 1 where it reaches beyond.

    Args:
        box: Fractions of the image.
        head: In pixels of an image of this height and width, or in fractions.
        height: Of the image.
        width: Of the image.
    """
    return Box(
        (box.top * height - head.top) / (head.bottom - head.top),
        (box.left * width - head.left) / (head.right - head.left),
        (box.bottom * height - head.top) / (head.bottom - head.top),
        (box.right * width - head.left) / (head.right - head.left),
    )


def visible(box: Box) -> Box | None:
    """The part of a box that lies in the image; None if there is none."""
    part = Box(*(min(max(edge, 0.0), 1.0) for edge in box))
    return part if part.bottom > part.top and part.right > part.left else None


def lesion_boxes(records: Sequence[Record], boxes: Sequence[Box | None], classes: Collection[str]) -> LesionBoxes:
    """Collects the boxes of the given classes; images of other classes count as without a box."""
    nothing = Box(0, 0, 0, 0)
    kept = [box if box and record.label in classes else nothing for record, box in zip(records, boxes, strict=True)]
    no_tumor = [record.label == NO_TUMOR for record in records]
    return LesionBoxes(np.array(kept, np.float32).reshape(-1, 4), np.array(no_tumor))


def boxes_in_heads(root: Path, records: Sequence[Record]) -> list[Box | None]:
    """The records' boxes as fractions of the heads; reads the images that have one.

    Raises:
        ImageError: If one of them cannot be read.
        DataError: If a box is none.
    """
    with ThreadPoolExecutor(threads()) as pool:
        return list(pool.map(lambda record: _box_in_head(root / record.path, box_of(record)), records))


def _box_in_head(path: Path, box: Box | None) -> Box | None:
    if box is None:
        return None
    grey = to_channels(decode_file(path), 1)[..., 0]
    return box_in_crop(box, head_box(grey), *grey.shape)
