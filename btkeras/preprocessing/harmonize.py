"""Crops slices to the head and normalizes their intensity, so that those of different collections look alike.

The head's box is found from counts of rows and columns. Background, median and 99th percentile of the head are then
put at fixed grey levels (Nyul and Udupa, "On standardizing the MR image intensity scale", 1999). All arithmetic is in
whole numbers, so ``btkeras.preprocessing.graph`` gives the same bytes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BACKGROUND_PERCENT, WHITE_PERCENT = 10, 99
# A pixel is foreground above a sixth of the way from background to white: skin and brain are, noise is not.
FOREGROUND = 6
# Percent of a row or column that must be foreground: more than a frame of one pixel, a letter or specks give.
FILLED = 5
# A box of less than a twentieth of the image, or with fewer pixels on a side, is no head.
SMALLEST_FRACTION, SMALLEST_SIDE = 20, 16
# The level of the head's median. Half way to white would leave too few levels for what enhances.
MIDDLE = 100


class HeadBox(NamedTuple):
    """Rows ``top`` to ``bottom - 1`` and columns ``left`` to ``right - 1``."""

    top: int
    left: int
    bottom: int
    right: int


class LocatedHead(NamedTuple):
    """Where the head is, the level that becomes black, and the one above which a pixel is foreground."""

    box: HeadBox
    low: int
    threshold: int


def find_head(image: NDArray[np.uint8]) -> LocatedHead:
    """Finds the head in uint8 ``[height, width]``; its box is the whole image where no head could fill it."""
    low, threshold = _levels(image)
    return LocatedHead(_box(image > threshold), low, threshold)


def harmonize(image: NDArray[np.uint8], head: LocatedHead | None = None) -> NDArray[np.uint8]:
    """Crops a slice to the head and normalizes its intensity.

    Args:
        image: uint8 ``[height, width, 1]``.
        head: Its head, where that has been found already.

    Returns:
        uint8 ``[bottom - top, right - left, 1]`` of the head's box; background is 0, the head's median ``MIDDLE``.
    """
    grey = image[..., 0]
    box, low, threshold = head or find_head(grey)
    crop = grey[box.top : box.bottom, box.left : box.right]
    return np.take(_intensity_table(_histogram(crop), low, threshold), crop)[..., None]


def foreground(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which pixels of uint8 ``[height, width]`` are brighter than the background and its noise."""
    return image > _levels(image)[1]


def head_box(image: NDArray[np.uint8]) -> HeadBox:
    """As ``find_head``, its box alone."""
    return find_head(image).box


def _box(found: NDArray[np.bool_]) -> HeadBox:
    """The box around the largest run of filled rows and columns; the whole image where no head could fill it."""
    height, width = found.shape
    top, bottom = _largest_run(_counts(found, 1), width)
    left, right = _largest_run(_counts(found[top:bottom], 0), bottom - top)
    # Again, now without what lies beside the head.
    top, bottom = _largest_run(_counts(found[:, left:right], 1), right - left)
    rows, columns = bottom - top, right - left
    small = rows * columns * SMALLEST_FRACTION < height * width or min(rows, columns) < SMALLEST_SIDE
    return HeadBox(0, 0, height, width) if small else HeadBox(top, left, bottom, right)


def _counts(found: NDArray[np.bool_], axis: int) -> NDArray[np.int64]:
    # A sum of truth values takes twice as long.
    return np.add.reduce(found.view(np.uint8), axis=axis, dtype=np.uint32).astype(np.int64)


def _intensity_table(histogram: NDArray[np.int64], low: int, threshold: int) -> NDArray[np.uint8]:
    """The new level of each of the 256 levels: 0 up to ``low``; the head is what lies above ``threshold``."""
    values = np.arange(256)
    head = np.where(values > threshold, histogram, 0)
    middle = max(_percentile(head, 50), low + 1)
    high = max(_percentile(head, WHITE_PERCENT), middle + 1)
    dark = rounded_ratio(np.clip(values, low, middle) - low, MIDDLE, middle - low)
    bright = rounded_ratio(np.clip(values, middle, high) - middle, 255 - MIDDLE, high - middle)
    return (dark + bright).astype(np.uint8)


def rounded_ratio(values: NDArray[np.int64], rise: int, run: int) -> NDArray[np.int64]:
    """Returns ``values * rise / run``, rounded half up; of tensors too."""
    return (2 * values * rise + run) // (2 * run)


def _levels(image: NDArray[np.uint8]) -> tuple[int, int]:
    """The level that becomes black, and the one above which a pixel is foreground."""
    histogram = _histogram(image)
    background = _percentile(histogram, BACKGROUND_PERCENT)
    span = _percentile(histogram, WHITE_PERCENT) - background
    return background + span // (2 * FOREGROUND), background + span // FOREGROUND


def _histogram(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    # Pillow's takes a third of the time of NumPy's, and lets other threads work meanwhile.
    return np.array(Image.fromarray(image).histogram(), np.int64)


def _percentile(histogram: NDArray[np.int64], percent: int) -> int:
    """The lowest level that at least so many percent of the pixels do not exceed; 0 without pixels."""
    below = np.cumsum(histogram)
    return int(np.argmax(100 * below >= percent * below[-1]))


def _largest_run(counts: NDArray[np.integer], length: int) -> tuple[int, int]:
    """Begin and end of the run of filled lines with the most foreground, from each line's foreground pixels."""
    filled = 100 * counts > FILLED * length
    begins = filled & ~np.concatenate([[False], filled[:-1]])
    # Runs are numbered from 1; lines between them share 0, and have no weight.
    run = np.where(filled, np.cumsum(begins), 0)
    weight = np.bincount(run, weights=np.where(filled, counts, 0))
    lines = np.flatnonzero(run == int(np.argmax(weight)))
    # Without any filled line, all are of run 0.
    return int(lines[0]), int(lines[-1]) + 1
