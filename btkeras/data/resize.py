"""Resizing by exact integer arithmetic, so that every engine gives the same bytes.

An antialiased triangle filter (Pillow's and TensorFlow's "bilinear" with antialiasing) is two matrix products,
``rows @ image @ columns.T``. Here the weights are multiples of 1/4096 that sum to one, and the picture is rounded to
quarters of a grey level between the products. All sums then stay below 2**24, where float32 counts whole numbers
exactly: no order of summation, vector width or engine can change a bit of the result.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

UNIT = 4096.0
QUARTERS = 4.0


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
    """The NumPy form of ``btkeras.data.preprocess.resize``, equal to the last bit.

    Args:
        image: uint8 ``[height, width, channels]``.
        size: Side of the result, pixels.

    Returns:
        uint8 ``[size, size, channels]``.
    """
    rows = resize_weights(image.shape[0], size)
    columns = resize_weights(image.shape[1], size)
    low = np.tensordot(rows, image.astype(np.float32), axes=(1, 0))
    low = np.floor(low * (QUARTERS / UNIT) + 0.5)
    small = np.tensordot(low, columns, axes=(1, 1)).swapaxes(1, 2)
    return np.floor(small / (QUARTERS * UNIT) + 0.5).astype(np.uint8)
