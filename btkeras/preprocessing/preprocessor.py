"""Images to the network's input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from btkeras.errors import ImageError
from btkeras.machine import threads
from btkeras.preprocessing.decode import ImageArray, decode
from btkeras.preprocessing.harmonize import harmonize
from btkeras.preprocessing.image_file import check_image, read_image_bytes
from btkeras.preprocessing.resize import resize

# Files that wait to be taken while others are decoded.
_CHUNK = 256


def preprocess(image: ImageArray, size: int, channels: int, harmonized: bool = False) -> ImageArray:
    """Makes a decoded image the network's input.

    Args:
        image: uint8 ``[height, width, 1 or 3]``.
        size: Side of the result, pixels.
        channels: 1 or 3.
        harmonized: Whether it is cropped to the head and its intensity normalized (``preprocessing.harmonize``); color
            then becomes grey, and grey is repeated for 3 channels.

    Returns:
        uint8 ``[size, size, channels]``.
    """
    if harmonized or channels == 1:
        image = to_channels(image, 1)
    # Each channel is resized alike, so a grey image gets its three only afterwards.
    return to_channels(resize(harmonize(image) if harmonized else image, size), channels)


def to_channels(image: ImageArray, channels: int) -> ImageArray:
    """Makes a uint8 image ``[height, width, 1 or 3]`` grey (ITU-R 601 luma, by Pillow) or three-channelled."""
    if image.shape[-1] == channels:
        return image
    return image.repeat(3, axis=-1) if channels == 3 else np.asarray(Image.fromarray(image).convert("L"))[..., None]


def decode_file(path: str | Path) -> ImageArray:
    """Reads a file's image at its own size, upright: uint8 ``[height, width, 1 or 3]``.

    Raises:
        ImageError: If it cannot be read, is no PNG or JPEG that may be decoded, or is damaged.
    """
    return decode(read_image_bytes(path), str(path))


def decode_checked(data: bytes, name: str = "the image") -> ImageArray:
    """Does the same with a file's content."""
    check_image(data, name)
    return decode(data, name)


class Preprocessor:
    """Reads images as the network's input, to the same bytes as the exported model's graph.

    Args:
        size: Side of the network's input, pixels.
        channels: 1 or 3.
        harmonize: Whether images are cropped to the head and their intensity normalized.
    """

    def __init__(self, size: int, channels: int, harmonize: bool = False) -> None:
        self.size = size
        self.channels = channels
        self.harmonize = harmonize

    def array(self, image: ImageArray) -> ImageArray:
        """Preprocesses a decoded image, uint8 ``[height, width, 1 or 3]``, to uint8 ``[size, size, channels]``."""
        return preprocess(image, self.size, self.channels, self.harmonize)

    def bytes(self, data: bytes, name: str = "the image") -> ImageArray:
        """Does the same with an encoded image; errors as ``decode_file``."""
        return self.array(decode_checked(data, name))

    def file(self, path: str | Path) -> ImageArray:
        """Does the same with a file; errors as ``decode_file``."""
        return self.array(decode_file(path))

    def try_file(self, path: str | Path) -> ImageArray | ImageError:
        """As ``file``, but returns the error."""
        try:
            return self.file(path)
        except ImageError as error:
            return error

    def files(self, paths: Sequence[str | Path]) -> Iterator[ImageArray | ImageError]:
        """Reads files in parallel and yields images or errors in their order, with bounded memory."""
        with ThreadPoolExecutor(threads()) as pool:
            for start in range(0, len(paths), _CHUNK):
                yield from pool.map(self.try_file, paths[start : start + _CHUNK])
