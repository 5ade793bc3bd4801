"""Decoded pictures to the network's input: the NumPy form of ``btkeras.data.preprocess``, equal to the last bit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from btkeras.data.harmonise import harmonise
from btkeras.data.resize import resize

Picture = NDArray[np.uint8]


def fit(image: Picture, size: int, channels: int, harmonised: bool = False) -> Picture:
    """Makes a decoded picture the network's input.

    Args:
        image: uint8 ``[height, width, 1 or 3]``.
        size: Side of the result, pixels.
        channels: 1 or 3.
        harmonised: Whether it is cropped to the head and put on one scale first (``btkeras.data.harmonise``); colour
            then becomes grey, and grey is repeated for 3 channels.

    Returns:
        uint8 ``[size, size, channels]``.
    """
    if harmonised or channels == 1:
        image = to_channels(image, 1)
    # Each channel is resized alike, so a grey picture gets its three only afterwards.
    return to_channels(resize(harmonise(image) if harmonised else image, size), channels)


def to_channels(image: Picture, channels: int) -> Picture:
    """Makes a uint8 picture ``[height, width, 1 or 3]`` grey (ITU-R 601 luma, by Pillow) or three-channelled."""
    if image.shape[-1] == channels:
        return image
    return image.repeat(3, axis=-1) if channels == 3 else np.asarray(Image.fromarray(image).convert("L"))[..., None]
