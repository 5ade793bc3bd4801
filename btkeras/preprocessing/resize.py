"""Resizing by exact integer arithmetic, so that every engine gives the same bytes.

An antialiased triangle filter (Pillow's and TensorFlow's "bilinear" with antialiasing) is two matrix products,
``rows @ image @ columns.T``. Here the weights are multiples of 1/4096 that sum to one, and the image is rounded to
quarters of a grey level between the products. All sums then stay below 2**24, where float32 counts whole numbers
exactly: no order of summation, vector width or engine can change a bit of the result.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

UNIT = 4096.0
QUARTERS = 4.0
# Rows of weights multiplied at once. Few, so that the product stays below what a linear-algebra library would spread
# over threads: images are prepared in parallel already.
_BLOCK = 8


def resize_weights(source: int, target: int) -> NDArray[np.float32]:
    """Weights that resample ``source`` pixels to ``target`` pixels, in units of 1/4096.

    Returns:
        float32 ``[target, source]`` of whole numbers; each row sums to 4096.
    """
    out = 2 * np.arange(target, dtype=np.int64)[:, None] + 1
    into = 2 * np.arange(source, dtype=np.int64)[None, :] + 1
    # Distance between the pixels' centres and reach of the filter, both times 2 * target.
    weights = np.maximum(2 * max(source, target) - np.abs(into * target - out * source), 0)
    units = weights * int(UNIT) // weights.sum(axis=1, keepdims=True)
    rest = int(UNIT) - units.sum(axis=1)
    units[np.arange(target), weights.argmax(axis=1)] += rest
    return units.astype(np.float32)


def resize(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The NumPy form of ``btkeras.preprocessing.graph.resize``, equal to the last bit.

    Args:
        image: uint8 ``[height, width, channels]``.
        size: Side of the result, pixels.

    Returns:
        uint8 ``[size, size, channels]``.
    """
    height, width, channels = image.shape
    low = np.empty((size, width * channels), np.float32)
    values = image.reshape(height, width * channels).astype(np.float32)
    for number, band in enumerate(_bands(height, size)):
        np.matmul(band.weights, values[band.first : band.last], out=low[number * _BLOCK : (number + 1) * _BLOCK])
    low = _rounded(low, QUARTERS / UNIT)
    if channels > 1:
        # One channel below the other, so that the columns of all are multiplied at once.
        low = np.ascontiguousarray(low.reshape(size, width, channels).transpose(2, 0, 1)).reshape(-1, width)
    small = np.empty((channels * size, size), np.float32)
    for number, band in enumerate(_bands(width, size)):
        columns = slice(number * _BLOCK, (number + 1) * _BLOCK)
        np.matmul(low[:, band.first : band.last], band.weights.T, out=small[:, columns])
    pixels = _rounded(small, 1 / (QUARTERS * UNIT)).astype(np.uint8)
    return pixels.reshape(channels, size, size).transpose(1, 2, 0)


def _rounded(values: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    values *= np.float32(scale)
    values += np.float32(0.5)
    return np.floor(values, out=values)


class _Band(NamedTuple):
    """Source pixels ``first`` to ``last - 1``, and their float32 weights ``[up to _BLOCK, last - first]``."""

    first: int
    last: int
    weights: NDArray[np.float32]


# A dataset has a few sizes; cropped to heads, some hundred.
@functools.lru_cache(1024)
def _bands(source: int, target: int) -> tuple[_Band, ...]:
    """The weights of ``resize_weights`` in blocks of rows: as nearly all of them are zero, only bands are made."""
    places = np.minimum(np.arange(-(-target // _BLOCK) * _BLOCK, dtype=np.int64), target - 1).reshape(-1, _BLOCK)
    # In units of half a source pixel divided by `target`, where everything is whole.
    out = (2 * places + 1) * source
    reach = 2 * max(source, target)
    first = np.maximum((out[:, 0] - reach - target) // (2 * target) + 1, 0)
    last = np.minimum((out[:, -1] + reach - target) // (2 * target) + 1, source)
    columns = first[:, None] + np.arange(int((last - first).max()))
    weights = np.maximum(reach - np.abs(((2 * columns + 1) * target)[:, None] - out[:, :, None]), 0)
    weights *= (columns < source)[:, None]
    units = weights * int(UNIT) // weights.sum(axis=2, keepdims=True)
    rest = int(UNIT) - units.sum(axis=2, keepdims=True)
    np.put_along_axis(
        units, largest := weights.argmax(axis=2)[..., None], rest + np.take_along_axis(units, largest, 2), 2
    )
    kept = target - _BLOCK * np.arange(len(units))
    return tuple(
        _Band(begin, end, np.ascontiguousarray(block[:rows, : end - begin], np.float32))
        for begin, end, block, rows in zip(first.tolist(), last.tolist(), units, kept.tolist(), strict=True)
    )
