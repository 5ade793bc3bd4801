"""Many files to network inputs, in threads, where a broken file is an answer and not the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from btkeras.data.decode import decode
from btkeras.data.fit import fit
from btkeras.data.image_file import check_image, read_image_bytes
from btkeras.errors import ImageError
from btkeras.machine import threads

Picture = NDArray[np.uint8]

_CHUNK = 256


def stored_picture(path: str | Path) -> Picture:
    """Reads a file's picture at its own size, upright, as ``Decoder.array`` takes it: uint8 ``[h, w, 1 or 3]``.

    Raises:
        ImageError: As ``Decoder.file``.
    """
    return decode(read_image_bytes(path), str(path))


def decoded_picture(data: bytes, name: str = "the image") -> Picture:
    """Does the same with a file's content; errors as ``Decoder.bytes``."""
    check_image(data, name)
    return decode(data, name)


class Decoder:
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
        return self.array(decoded_picture(data, name))

    def array(self, image: Picture) -> Picture:
        """Does the same with a decoded picture, uint8 ``[height, width, 1 or 3]``."""
        return fit(image, self.size, self.channels, self.harmonise)

    def file(self, path: str | Path) -> Picture:
        """Reads and decodes a file; errors as ``bytes``."""
        return self.array(stored_picture(path))

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
