"""Localization metrics of explanation maps against tumour boxes or masks.

Maps are ``[n, height, width]``, 0 or more, the higher the more important; regions are boolean, True inside the tumour.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from btkeras.metrics.classification import FloatArray

BoolArray = NDArray[np.bool_]

# Fraction of a map's maximum from which a pixel counts as marked.
THRESHOLD = 0.5


def box_region(box: Sequence[float], shape: tuple[int, int]) -> BoolArray:
    """The pixels ``[height, width]`` whose centres lie in a box, or the one around the box's centre if none does.

    Args:
        box: Top, left, bottom and right edge, as fractions of the image; what lies outside of it is ignored.
        shape: Height and width, pixels.
    """
    sides = []
    for low, high, size in zip(box[:2], box[2:], shape, strict=True):
        centers = (np.arange(size) + 0.5) / size
        inside = (centers >= low) & (centers <= high)
        if not inside.any():
            inside[np.clip(int((low + high) / 2 * size), 0, size - 1)] = True
        sides.append(inside)
    return sides[0][:, None] & sides[1]


def center(region: BoolArray) -> tuple[float, float]:
    """Row and column of the middle of a region's pixels; NaN without any."""
    rows, columns = np.nonzero(region)
    return float(np.mean(rows)), float(np.mean(columns))


def points(maps: FloatArray) -> NDArray[np.int64]:
    """Row and column of each map's maximum, the first of equal ones: ``[n, 2]``."""
    flat = maps.reshape(len(maps), -1).argmax(axis=1)
    return np.stack(np.unravel_index(flat, maps.shape[1:]), axis=1)


def pointing_game(maps: FloatArray, regions: BoolArray) -> BoolArray:
    """The pointing game (Zhang et al. 2016, arXiv:1608.00507): whether a map's maximum lies in the region, ``[n]``.

    It has no tolerance of 15 pixels as in the publication. A map that is the same everywhere is a miss.
    """
    rows, columns = points(maps).T
    varied = maps.max(axis=(1, 2)) > maps.min(axis=(1, 2))
    return regions[np.arange(len(maps)), rows, columns] & varied


def energy(maps: FloatArray, regions: BoolArray) -> NDArray[np.float64]:
    """The share of a map's sum inside the region (energy-based pointing game, Wang et al. 2020, arXiv:1910.01279).

    Returns:
        float64 ``[n]`` in 0..1; 0 for a map of zeros.
    """
    inside = np.where(regions, maps, 0.0).sum(axis=(1, 2), dtype=float)
    total = maps.sum(axis=(1, 2), dtype=float)
    return np.divide(inside, total, out=np.zeros(len(maps)), where=total > 0)


def iou(maps: FloatArray, regions: BoolArray, threshold: float = THRESHOLD) -> NDArray[np.float64]:
    """Intersection over union ``[n]`` of the region and the pixels from ``threshold`` times the map's maximum on."""
    highest = maps.max(axis=(1, 2), keepdims=True)
    return _overlap((maps >= threshold * highest) & (highest > 0), regions)


def iou_of_same_area(maps: FloatArray, regions: BoolArray) -> NDArray[np.float64]:
    """Intersection over union of the region and as many of the map's highest pixels as the region has.

    It needs no threshold, so it favours no map for the width that a threshold happens to suit.

    Returns:
        float64 ``[n]`` in 0..1; 0 for a map of zeros.
    """
    marked = np.zeros(regions.shape, bool)
    for one, region, out in zip(maps, regions, marked, strict=True):
        if one.max() > 0:
            # Stable, so that of equal pixels the same ones are taken on every machine.
            out.flat[np.argsort(-one, axis=None, kind="stable")[: region.sum()]] = True
    return _overlap(marked, regions)


def rank_correlation(first: FloatArray, second: FloatArray) -> NDArray[np.float64]:
    """Spearman's rank correlation of the pixels of two maps each.

    Returns:
        float64 ``[n]`` in -1..1; NaN where a map is the same everywhere.
    """
    with np.errstate(invalid="ignore"):
        pairs = zip(first, second, strict=True)
        return np.array([np.corrcoef([rankdata(one, axis=None) for one in pair])[0, 1] for pair in pairs])


def _overlap(marked: BoolArray, regions: BoolArray) -> NDArray[np.float64]:
    both = (marked & regions).sum(axis=(1, 2))
    either = (marked | regions).sum(axis=(1, 2))
    return np.divide(both, either, out=np.zeros(len(marked)), where=either > 0)
