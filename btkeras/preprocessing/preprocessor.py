"""Many files to network inputs, in threads, where a broken file is an answer and not the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from btkeras.errors import ImageError
from btkeras.machine import threads
from btkeras.preprocessing.decode import decode
from btkeras.preprocessing.harmonize import harmonize
from btkeras.preprocessing.image_file import check_image, read_image_bytes
from btkeras.preprocessing.resize import resize

Picture = NDArray[np.uint8]


def preprocess(image: Picture, size: int, channels: int, harmonised: bool = False) -> Picture:
    """Makes a decoded picture the network's input.

    Args:
        image: uint8 ``[height, width, 1 or 3]``.
        size: Side of the result, pixels.
        channels: 1 or 3.
        harmonised: Whether it is cropped to the head and put on one scale first (``btkeras.preprocessing.harmonize``); colour
            then becomes grey, and grey is repeated for 3 channels.

    Returns:
        uint8 ``[size, size, channels]``.
    """
    if harmonised or channels == 1:
        image = to_channels(image, 1)
    # Each channel is resized alike, so a grey picture gets its three only afterwards.
    return to_channels(resize(harmonize(image) if harmonised else image, size), channels)


def to_channels(image: Picture, channels: int) -> Picture:
    """Makes a uint8 picture ``[height, width, 1 or 3]`` grey (ITU-R 601 luma, by Pillow) or three-channelled."""
    if image.shape[-1] == channels:
        return image
    return image.repeat(3, axis=-1) if channels == 3 else np.asarray(Image.fromarray(image).convert("L"))[..., None]


_CHUNK = 256


def decode_file(path: str | Path) -> Picture:
    """Reads a file's picture at its own size, upright, as ``Decoder.array`` takes it: uint8 ``[h, w, 1 or 3]``.

    Raises:
        ImageError: As ``Decoder.file``.
    """
    return decode(read_image_bytes(path), str(path))


def decode_checked(data: bytes, name: str = "the image") -> Picture:
    """Does the same with a file's content; errors as ``Decoder.bytes``."""
    check_image(data, name)
    return decode(data, name)


class Preprocessor:
    """Reads pictures as uint8 ``[size, size, channels]``: checked, and prepared as the exported model's graph does it.

    Pillow and NumPy do all of it, so that predicting, training and serving read alike and none needs TensorFlow for it.

    Args:
        size: Side of the network's input, pixels.
        channels: 1 or 3.
        harmonise: Whether pictures are cropped to the head and put on one scale of intensity.
    """

    def __init__(self, size: int, channels: int, harmonise: bool = False) -> None:
        self.size = size
        self.channels = channels
        self.harmonise = harmonise

    def bytes(self, data: bytes, name: str = "the image") -> Picture:
        """Decodes an encoded picture.

        Raises:
            ImageError: If it is no PNG or JPEG that may be read, or its content is broken.
        """
        return self.array(decode_checked(data, name))

    def array(self, image: Picture) -> Picture:
        """Does the same with a decoded picture, uint8 ``[height, width, 1 or 3]``."""
        return preprocess(image, self.size, self.channels, self.harmonise)

    def file(self, path: str | Path) -> Picture:
        """Reads and decodes a file; errors as ``bytes``."""
        return self.array(decode_file(path))

    def try_file(self, path: str | Path) -> Picture | ImageError:
        """As ``file``, but returns the error."""
        try:
            return self.file(path)
        except ImageError as error:
            return error

    def files(self, paths: Sequence[str | Path]) -> Iterator[Picture | ImageError]:
        """Decodes files in parallel and yields pictures or errors in their order, with bounded memory."""
        with ThreadPoolExecutor(threads()) as pool:
            for start in range(0, len(paths), _CHUNK):
                yield from pool.map(self.try_file, paths[start : start + _CHUNK])
