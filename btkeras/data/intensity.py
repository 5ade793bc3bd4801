"""Raw scanner intensities (more than 8 bits) to 8-bit grey."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def to_uint8(pixels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Maps the lowest value of a slice to 0 and the highest to 255, linearly.

    Integer arithmetic, rounding half up, so that the TensorFlow graph for 16-bit PNG
    (``btkeras.data.preprocess``) gives the same bytes. A constant slice becomes black.

    Args:
        pixels: Integers of any width, whose range spans at most 2**31.

    Returns:
        uint8 of the same shape.
    """
    values = pixels.astype(np.int64)
    values -= values.min()
    span = max(int(values.max()), 1)
    return ((values * 510 + span) // (2 * span)).astype(np.uint8)
