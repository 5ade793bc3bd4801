"""Antialiased bilinear resizing in exact integer arithmetic, so that every engine gives the same bytes.

Resizing is two matrix products, ``rows @ image @ columns.T``. The weights are multiples of 1/4096, and the image is
rounded to quarters of a grey level between the products: all sums stay below 2**24, where float32 is exact.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

UNIT = 4096.0
QUARTERS = 4.0
# Rows of weights multiplied at once: too few for a linear-algebra library to use threads, which images use already.
_BLOCK = 8


def resize(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resizes an image to the bytes of ``btkeras.preprocessing.graph.resize``.

    Args:
        image: uint8 ``[height, width, channels]``.
        size: Side of the result, pixels.

    Returns:
        uint8 ``[size, size, channels]``.
    """
    height, width, channels = image.shape
    low = np.empty((size, width * channels), np.float32)
    values = image.reshape(height, width * channels).astype(np.float32)
    for out, pixels, weights in _bands(height, size):
        np.matmul(weights, values[pixels], out=low[out])
    low = _rounded(low, QUARTERS / UNIT)
    if channels > 1:
        # One channel below the other, so that the columns of all are multiplied at once.
        low = np.ascontiguousarray(low.reshape(size, width, channels).transpose(2, 0, 1)).reshape(-1, width)
    small = np.empty((channels * size, size), np.float32)
    for out, pixels, weights in _bands(width, size):
        np.matmul(low[:, pixels], weights.T, out=small[:, out])
    resized = _rounded(small, 1 / (QUARTERS * UNIT)).astype(np.uint8)
    return resized.reshape(channels, size, size).transpose(1, 2, 0)


def _rounded(values: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    values *= np.float32(scale)
    values += np.float32(0.5)
    return np.floor(values, out=values)


# A dataset has a few sizes; cropped to heads, some hundred.
@functools.lru_cache(1024)
def _bands(source: int, target: int) -> tuple[tuple[slice, slice, NDArray[np.float32]], ...]:
    """The matrix of weights in blocks of rows, without most of its zeros: rows, columns and weights of each."""
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
    # What rounding down left goes to the largest weight.
    rest = int(UNIT) - units.sum(axis=2, keepdims=True)
    largest = weights.argmax(axis=2)[..., None]
    np.put_along_axis(units, largest, rest + np.take_along_axis(units, largest, 2), 2)
    starts = range(0, target, _BLOCK)
    return tuple(
        (slice(start, start + _BLOCK), slice(low, high), block[: target - start, : high - low].astype(np.float32))
        for start, low, high, block in zip(starts, first.tolist(), last.tolist(), units, strict=True)
    )
