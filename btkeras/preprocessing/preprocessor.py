"""Images to the network's input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from btkeras.errors import ImageError
from btkeras.machine import threads
from btkeras.preprocessing.decode import ImageArray, decode, decode_file
from btkeras.preprocessing.harmonize import harmonize
from btkeras.preprocessing.resize import resize

# Files that wait to be taken while others are decoded.
_CHUNK = 256


def to_channels(image: ImageArray, channels: int) -> ImageArray:
    """Makes a uint8 image ``[height, width, 1 or 3]`` grey (ITU-R 601 luma, by Pillow) or three-channelled."""
    if image.shape[-1] == channels:
        return image
    return image.repeat(3, axis=-1) if channels == 3 else np.asarray(Image.fromarray(image).convert("L"))[..., None]


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

    def array(self, image: ImageArray) -> ImageArray:
        """Preprocesses a decoded image, uint8 ``[height, width, 1 or 3]``, to uint8 ``[size, size, channels]``."""
        if self.harmonize or self.channels == 1:
            image = to_channels(image, 1)
        # Each channel is resized alike, so a grey image gets its three only afterwards.
        return to_channels(resize(harmonize(image) if self.harmonize else image, self.size), self.channels)

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
        with ThreadPoolExecutor(threads()) as pool:
            for start in range(0, len(paths), _CHUNK):
                yield from pool.map(self.try_file, paths[start : start + _CHUNK])
