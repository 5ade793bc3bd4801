"""Images to the network's input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from btkeras.errors import ImageError
from btkeras.machine import threads
from btkeras.preprocessing.decode import ImageArray, decode, decode_file, pixel_digest
from btkeras.preprocessing.harmonize import LocatedHead, harmonize
from btkeras.preprocessing.resize import resize

# Files that wait to be taken while others are decoded.
_CHUNK = 256
_Result = TypeVar("_Result")


def to_channels(image: ImageArray, channels: int) -> ImageArray:
    """Makes a uint8 image ``[height, width, 1 or 3]`` grey (ITU-R 601 luma, by Pillow) or three-channelled."""
    if image.shape[-1] == channels:
        return image
    return image.repeat(3, axis=-1) if channels == 3 else np.asarray(Image.fromarray(image).convert("L"))[..., None]


def without_equal_channels(image: ImageArray) -> ImageArray:
    """Takes one channel of a uint8 image ``[height, width, 3]`` whose channels are equal: the same grey, less work."""
    if image.shape[-1] == 1 or any(not np.array_equal(image[..., 0], image[..., other]) for other in (1, 2)):
        return image
    return np.ascontiguousarray(image[..., :1])


@dataclass(frozen=True)
class Preprocessor:
    """Makes images the network's input, to the same bytes as the exported model's graph.

    Attributes:
        size: Side of the network's input, pixels.
        channels: 1 or 3.
        harmonize: Whether images are cropped to the head and their intensity normalized (``preprocessing.harmonize``);
            color then becomes grey, and grey is repeated for 3 channels.
    """

    size: int
    channels: int
    harmonize: bool = False

    def array(self, image: ImageArray, head: LocatedHead | None = None) -> ImageArray:
        """Preprocesses a decoded image, uint8 ``[height, width, 1 or 3]``, to uint8 ``[size, size, channels]``.

        Its head is only looked for where it is needed and not given.
        """
        if self.harmonize or self.channels == 1:
            image = to_channels(image, 1)
        # Each channel is resized alike, so a grey image gets its three only afterwards.
        return to_channels(resize(harmonize(image, head) if self.harmonize else image, self.size), self.channels)

    def bytes(self, data: bytes, name: str = "the image") -> ImageArray:
        """Does the same with an encoded image; errors as ``decode``."""
        return self.array(decode(data, name))

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
        return _in_parallel(self.try_file, paths)

    def digested_files(self, paths: Sequence[str | Path]) -> Iterator[tuple[ImageArray | ImageError, str]]:
        """As ``files``, each with the ``pixel_digest`` of the image as it was decoded; "" with an error."""
        return _in_parallel(self._try_digested, paths)

    def _try_digested(self, path: str | Path) -> tuple[ImageArray | ImageError, str]:
        try:
            decoded = decode_file(path)
            return self.array(decoded), pixel_digest(decoded)
        except ImageError as error:
            return error, ""


def _in_parallel(function: Callable[[str | Path], _Result], paths: Sequence[str | Path]) -> Iterator[_Result]:
    with ThreadPoolExecutor(threads()) as pool:
        for start in range(0, len(paths), _CHUNK):
            yield from pool.map(function, paths[start : start + _CHUNK])
