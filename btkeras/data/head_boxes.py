"""The tumours' boxes in pictures that the network gets cropped to the head (``data.harmonise``)."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from btkeras.data.boxes import Box, box_of, in_head
from btkeras.data.decoder import stored_picture
from btkeras.data.fit import to_channels
from btkeras.data.harmonise import head_box
from btkeras.data.records import Record
from btkeras.machine import threads


def boxes_in_heads(root: Path, records: Sequence[Record]) -> list[Box | None]:
    """The records' boxes as fractions of the heads; reads the pictures that have one.

    Raises:
        ImageError: If one of them cannot be read.
        DataError: If a box is none.
    """
    with ThreadPoolExecutor(threads()) as pool:
        return list(pool.map(lambda record: _box_in_head(root / record.path, box_of(record)), records))


def _box_in_head(path: Path, box: Box | None) -> Box | None:
    if box is None:
        return None
    grey = to_channels(stored_picture(path), 1)[..., 0]
    return in_head(box, head_box(grey), *grey.shape)
