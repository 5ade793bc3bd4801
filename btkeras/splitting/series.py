"""Series found without ids: slices that follow each other in number and look alike are taken for one patient's.

Thumbnails of neighbouring numbers are compared by the correlation of a band of spatial frequencies of their square
root, which evens out the coil's bright rim. They are not aligned: the head's place in the field of view is the same
within a scan and differs between patients. The threshold is local, because sagittal slices of one patient differ most:
neighbours belong together if they are more alike than nine tenths of the pairs around them whose numbers are 8 to 30
apart. A single slice joins the longer series beside it that it resembles more, because the outermost slices of a head
resemble nothing. Joining two patients is harmless to a split; dividing one leaks. ``docs/trust.md`` has measurements.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from btkeras.datasets.dataset import Record
from btkeras.datasets.readers.images import DAMAGE
from btkeras.preprocessing.decode import to_uint8
from btkeras.splitting.duplicates import Progress

FloatArray = NDArray[np.float64]
VERSION = 1  # raised with every change of what is found, so that no cache holds the old series

SIDE = 64
_SMOOTH, _WIDE = 1.5, 6.0  # the band's two Gaussians, standard deviations in pixels of the thumbnail
_LAGS = range(8, 31, 2)  # differences of number of pairs that are nearly all of two patients
_AROUND = 20  # images to either side whose pairs set the threshold
_QUANTILE = 0.9
_THRESHOLDS = (0.5, 0.9)  # the threshold is between these
_FEW = 40  # of fewer images no threshold can be estimated
_THRESHOLD_OF_FEW = 0.75  # the median threshold on FigShare
_ORDERED = 0.3  # share of neighbours above the threshold; by its definition 0.1 where numbers mean nothing
_LONG = 3  # slices of a series that a single one may join
_DIGITS = re.compile(r"(\d+)")


def find_series(
    root: Path, records: Sequence[Record], progress: Progress = lambda paths: paths
) -> tuple[list[list[str]], list[str]]:
    """Finds series among a dataset's images, within each folder of each class and source.

    ``progress`` wraps the files while they are read.

    Returns:
        The paths of each series of two or more, in order; and the folders whose numbers, if any, follow no series.
    """
    folders: dict[tuple[str, str, str], list[Record]] = defaultdict(list)
    for record in records:
        folders[record.source, record.path.rpartition("/")[0], record.label].append(record)
    ordered = {key: sorted(folders[key], key=_natural) for key in sorted(folders)}
    bands = map(_band, progress([root / record.path for members in ordered.values() for record in members]))
    series: list[list[str]] = []
    unordered = set()
    for (_, folder, _), members in ordered.items():
        numbers = link_series(np.stack(list(islice(bands, len(members)))))
        if numbers is None or not all(_DIGITS.search(Path(record.path).stem) for record in members):
            unordered.add(folder or ".")
            continue
        runs = np.split(np.arange(len(members)), np.flatnonzero(np.diff(numbers)) + 1)
        series += [[members[i].path for i in run] for run in runs if len(run) > 1]
    return series, sorted(unordered)


def link_series(bands: FloatArray) -> NDArray[np.int64] | None:
    """Numbers the series of a sequence of images: ``[n]``, growing from 0.

    ``bands`` are ``[n, pixels]``, in order, each of mean 0 and length 1, or all 0 for an image that resembles nothing.
    The result is None if neighbours are hardly more alike than images further apart, so that the order says nothing.
    """
    alike = _products(bands, 1)
    joined = alike >= (_thresholds(bands) if len(bands) >= _FEW else _THRESHOLD_OF_FEW)
    if len(bands) >= _FEW and joined.mean() <= _ORDERED:
        return None
    return np.concatenate([[0], np.cumsum(~_with_singles(alike, joined))]).astype(np.int64)


def _products(bands: FloatArray, lag: int) -> FloatArray:
    products: FloatArray = np.einsum("ij,ij->i", bands[lag:], bands[:-lag])
    return products


def _thresholds(bands: FloatArray) -> FloatArray:
    """The threshold between each image and the next: ``[n - 1]``."""
    count = len(bands)
    # Row i: how alike images i and i + lag are.
    apart = np.full((count, len(_LAGS)), np.nan)
    for column, lag in enumerate(_LAGS):
        apart[: count - lag, column] = _products(bands, lag)
    # The images of a pair lie around the middle of their numbers.
    shift = (_LAGS[0] + _LAGS[-1]) // 4 + _AROUND
    last = max(0, count - _LAGS[0] - 2 * _AROUND)
    starts = [min(max(i - shift, 0), last) for i in range(count - 1)]
    windows = [apart[start : start + 2 * _AROUND] for start in starts]
    return np.clip([np.nanquantile(window, _QUANTILE) for window in windows], *_THRESHOLDS)


def _with_singles(alike: FloatArray, joined: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Joins each single slice to the longer series beside it that it resembles more."""
    runs = np.split(np.arange(len(joined) + 1), np.flatnonzero(~joined) + 1)
    lengths = [0, *map(len, runs), 0]
    result = joined.copy()
    for number, run in enumerate(runs):
        beside = ((run[0] - 1, lengths[number]), (run[0], lengths[number + 2]))
        borders = [border for border, length in beside if length >= _LONG and alike[border] != 0]
        if len(run) == 1 and borders:
            result[max(borders, key=lambda border: float(alike[border]))] = True
    return result


def _natural(record: Record) -> list[tuple[int, str]]:
    """Sorts by the numbers in a name, so that 9 comes before 10."""
    return [(int(text), "") if text.isdigit() else (-1, text) for text in _DIGITS.split(Path(record.path).name)]


def _band(file: Path) -> FloatArray:
    """The compared band of an image: ``[pixels]``, mean 0 and length 1; all 0 if it cannot be read or is blank."""
    try:
        with Image.open(file) as image:
            # JPEG is decoded at a fraction of its size.
            image.draft("L", (2 * SIDE, 2 * SIDE))
            deep = image.mode.startswith("I")
            grey = Image.fromarray(to_uint8(np.asarray(image))) if deep else image.convert("L")
            pixels = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX), np.float64)
    except DAMAGE:
        # It gets its message where images are decoded for the network.
        return np.zeros((SIDE // 2) ** 2)
    smooth = ndimage.gaussian_filter(np.sqrt(pixels), _SMOOTH)
    # Nothing finer than two pixels is left.
    band = (smooth - ndimage.gaussian_filter(smooth, _WIDE))[::2, ::2].ravel()
    band -= band.mean()
    length = np.linalg.norm(band)
    # A blank image differs from its mean by rounding only.
    return band / length if length > 1e-6 else np.zeros_like(band)
