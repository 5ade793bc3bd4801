"""Where decoded images are kept: an array in memory, or one file that is read image by image.

The file is not mapped into memory: a process that reads it all would seem to hold it all, and a disk that fails would
kill it without a word.
"""

from __future__ import annotations

import math
import os
import weakref
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from btkeras.errors import DataError

Pixels = NDArray[np.uint8]
Shape = tuple[int, int, int, int]


class CacheBackend(Protocol):
    """Images of one shape, put in and read by their number."""

    shape: Shape

    def put(self, number: int, image: Pixels) -> None:
        """Keeps an image, uint8 ``shape[1:]``."""

    def __getitem__(self, numbers: NDArray[np.integer]) -> Pixels: ...


class MemoryBackend:
    """Args:
    shape: Images, side, side and channels.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._images = np.empty(shape, np.uint8)

    def put(self, number: int, image: Pixels) -> None:
        """Keeps an image."""
        self._images[number] = image

    def __getitem__(self, numbers: NDArray[np.integer]) -> Pixels:
        return self._images[numbers]


class NoBackend:
    """Forgets what it is given."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def put(self, number: int, image: Pixels) -> None:
        """Does nothing."""

    def __getitem__(self, numbers: NDArray[np.integer]) -> Pixels:
        raise NotImplementedError


class DiskBackend:
    """A ``.npy`` file. It can be read as long as this object lives, even if the file loses its name.

    Args:
        file: What is read or, with a shape, written.
        shape: Of a new file; None opens one that is there.

    Raises:
        DataError: If the file that is there is no whole ``.npy`` file of images.
    """

    def __init__(self, file: Path, shape: Shape | None = None) -> None:
        self._file = file
        if shape:
            with file.open("xb") as new:
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(new, header)
                # As large as it becomes, so that images that are never put read as black.
                new.truncate(new.tell() + math.prod(shape))
        self.shape, self._start = _header(file)
        self._size = math.prod(self.shape[1:])
        self._descriptor = os.open(file, os.O_RDWR if shape else os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)

    def put(self, number: int, image: Pixels) -> None:
        """Writes an image."""
        os.pwrite(self._descriptor, image.tobytes(), self._start + number * self._size)

    def __getitem__(self, numbers: NDArray[np.integer]) -> Pixels:
        images = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        for place, number in enumerate(numbers.tolist()):
            images[place] = self._read(number)
        return images

    def _read(self, number: int) -> Pixels:
        data = os.pread(self._descriptor, self._size, self._start + number * self._size)
        if len(data) < self._size:
            raise _damaged(self._file)
        return np.frombuffer(data, np.uint8).reshape(self.shape[1:])


def _header(file: Path) -> tuple[Shape, int]:
    """A file's shape, and where its images begin."""
    with file.open("rb") as opened:
        try:
            np.lib.format.read_magic(opened)
            shape, _, kind = np.lib.format.read_array_header_1_0(opened)
        except ValueError as error:
            raise _damaged(file) from error
        start = opened.tell()
    if kind != np.uint8 or len(shape) != 4 or file.stat().st_size < start + math.prod(shape):
        raise _damaged(file)
    return shape, start


def _damaged(file: Path) -> DataError:
    return DataError("A file of decoded images must be whole", received=f"{file}, which is not", remedy="Remove it")


def is_grey(image: Pixels) -> bool:
    """Whether all channels of an image are equal."""
    return all(np.array_equal(image[..., 0], image[..., channel]) for channel in range(1, image.shape[-1]))


def copy_first(source: CacheBackend, target: CacheBackend, count: int, together: int = 256) -> None:
    """Puts the first ``count`` images of one shelf on another, whose channels they fill alike."""
    channels = target.shape[-1]
    for start in range(0, count, together):
        numbers = np.arange(start, min(start + together, count))
        for number, image in zip(numbers, source[numbers], strict=True):
            target.put(int(number), np.repeat(image, channels // image.shape[-1], axis=-1))
