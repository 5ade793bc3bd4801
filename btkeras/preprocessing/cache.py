"""Preprocessed images by index, cached in memory or on disk or decoded anew each time."""

from __future__ import annotations

import math
import os
import shutil
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import psutil
from numpy.typing import NDArray

from btkeras.errors import DataError, ImageError
from btkeras.files import digest, temporary_folder
from btkeras.preprocessing.decode import ImageArray
from btkeras.preprocessing.preprocessor import Preprocessor

# Counts in the folder's name: raised when images are preprocessed or stored by other rules.
_VERSION = "4"
_MEMORY_FRACTION = 4
_IMAGES, _HISTOGRAM, _PIXELS = "images.npy", "histogram.npy", "pixels.npy"

Shape = tuple[int, int, int, int]
Decoded: TypeAlias = "Iterable[tuple[ImageArray | ImageError, str]]"
CacheProgress = Callable[[Decoded], Decoded]


class DiskCache:
    """Images in a ``.npy`` file, a new one if a shape is given; readable even if the file loses its name.

    The file is not mapped into memory: a process that reads it all would seem to hold it all, and a failing disk would
    kill it without a message.

    Raises:
        DataError: If an existing file is no whole ``.npy`` file of images.
    """

    def __init__(self, file: Path, shape: Shape | None = None) -> None:
        self._file = file
        if shape:
            # As large as it becomes; images that are never written read as black.
            np.lib.format.open_memmap(file, "w+", np.uint8, shape)
        try:
            header = np.load(file, mmap_mode="r")
        except (ValueError, EOFError) as error:
            raise self._damaged() from error
        if header.dtype != np.uint8 or header.ndim != 4:
            raise self._damaged()
        self.shape, self._start = header.shape, header.offset
        self._descriptor = os.open(file, os.O_RDWR if shape else os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)

    def __setitem__(self, number: int, image: ImageArray) -> None:
        os.pwrite(self._descriptor, image.tobytes(), self._start + number * image.size)

    def __getitem__(self, numbers: NDArray[np.integer]) -> ImageArray:
        size = math.prod(self.shape[1:])
        images = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        for image, number in zip(images, numbers.tolist(), strict=True):
            data = os.pread(self._descriptor, size, self._start + number * size)
            if len(data) < size:
                raise self._damaged()
            image[...] = np.frombuffer(data, np.uint8).reshape(image.shape)
        return images

    def _damaged(self) -> DataError:
        return DataError(
            "A file of cached images must be whole", received=f"{self._file}, which is not", remedy="Remove it"
        )


class NoCache:
    """Stores nothing: images are read from their files each time."""

    def __init__(self, paths: Sequence[Path], preprocessor: Preprocessor) -> None:
        self.shape = _shape(paths, preprocessor, preprocessor.channels)
        self._paths, self._preprocessor = paths, preprocessor

    def __setitem__(self, number: int, image: ImageArray) -> None:
        pass

    def __getitem__(self, numbers: NDArray[np.integer]) -> ImageArray:
        images = []
        for image in self._preprocessor.files([self._paths[i] for i in numbers]):
            if isinstance(image, ImageError):
                raise image
            images.append(image)
        return np.stack(images)


CacheBackend: TypeAlias = "NDArray[np.uint8] | DiskCache | NoCache"


@dataclass(frozen=True)
class ImageCache:
    """Images of one list of files at one size.

    Attributes:
        images: Indexed by the position in the list of files.
        shape: Side and channels of an image.
        usable: Positions of the files that could be read.
        broken: Position and reason of the others.
        histogram: Pixel counts of the usable images, int64 ``[channels, 256]``.
        location: Where the images are, for people.
        pixels: Digests of all images as they were decoded (``decode.pixel_digest``), "" of the broken ones.
    """

    images: CacheBackend
    shape: tuple[int, int]
    usable: NDArray[np.int64]
    broken: dict[int, ImageError]
    histogram: NDArray[np.int64]
    location: str = ""
    pixels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.usable)

    @property
    def stored_channels(self) -> int:
        """Channels of ``take_stored``'s images: 1 where all channels of all images are equal."""
        return self.images.shape[-1]

    @property
    def grey(self) -> bool:
        """Whether one channel is stored, which all several channels are equal to."""
        return self.stored_channels < self.shape[1]

    def take_stored(self, indices: NDArray[np.integer]) -> ImageArray:
        """Returns usable images as they are stored, uint8 ``[len(indices), size, size, stored_channels]``."""
        return np.ascontiguousarray(self.images[self.usable[indices]])

    def take(self, indices: NDArray[np.integer]) -> ImageArray:
        """Returns the given usable images, uint8 ``[len(indices), size, size, channels]``."""
        return np.repeat(self.take_stored(indices), self.shape[1] // self.stored_channels, axis=-1)

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and variance of the pixels per channel, in units of 0..255; exact up to the last division."""
        values = np.arange(256)
        count = self.histogram.sum(axis=1)
        mean = self.histogram @ values / count
        variance = self.histogram @ values**2 / count - mean**2
        return mean.tolist(), np.maximum(variance, 1e-6).tolist()


def build_cache(
    paths: Sequence[Path],
    preprocessor: Preprocessor,
    *,
    cache: str,
    folder: Path,
    progress: CacheProgress = lambda images: images,
) -> ImageCache:
    """Reads every file once, which finds the broken ones, and caches the images.

    In memory and on disk, images whose channels are all equal take one channel.

    Args:
        paths: The files.
        preprocessor: Makes them the network's input.
        cache: As for ``resolved_cache``.
        folder: Holds the files of the disk cache; one of an earlier run is used again.
        progress: Wraps the iteration, to show it.

    Raises:
        DataError: If the disk has no room, or a file of an earlier run is damaged.
    """
    cache = resolved_cache(cache, len(paths), preprocessor)
    if cache == "disk":
        return _disk_cache(paths, preprocessor, folder, progress)
    if cache == "none":
        built = _fill(lambda _: NoCache(paths, preprocessor), paths, preprocessor, progress)
        return replace(built, location="not cached, decoded in every epoch")
    built = _fill(lambda shape: np.empty(shape, np.uint8), paths, preprocessor, progress)
    return replace(built, location=f"{_megabytes(built.images.shape)} in memory")


def resolved_cache(cache: str, count: int, preprocessor: Preprocessor) -> str:
    """Where that many images are cached; ``auto`` is memory if a quarter of what is free suffices, else disk."""
    if cache != "auto":
        return cache
    needed = count * preprocessor.size**2 * preprocessor.channels
    return "memory" if needed <= psutil.virtual_memory().available / _MEMORY_FRACTION else "disk"


def _shape(paths: Sequence[Path], preprocessor: Preprocessor, channels: int) -> Shape:
    return len(paths), preprocessor.size, preprocessor.size, channels


def _megabytes(shape: Sequence[int]) -> str:
    return f"{math.prod(shape) / 1e6:.0f} MB"


def _fill(
    make: Callable[[Shape], CacheBackend], paths: Sequence[Path], preprocessor: Preprocessor, progress: CacheProgress
) -> ImageCache:
    """Fills a backend of one channel, which is made anew with all of them at the first image in color."""
    channels = preprocessor.channels
    broken: dict[int, ImageError] = {}
    histogram = np.zeros((channels, 256), np.int64)
    images = make(_shape(paths, preprocessor, 1))
    pixels: list[str] = []
    for i, (image, digest_of_pixels) in enumerate(progress(preprocessor.digested_files(paths))):
        pixels.append(digest_of_pixels)
        if isinstance(image, ImageError):
            broken[i] = image
            continue
        grey = bool((image[..., 1:] == image[..., :1]).all())
        if not grey and images.shape[-1] == 1:
            narrow, images = images, make(_shape(paths, preprocessor, channels))
            for earlier in range(i):
                images[earlier] = np.repeat(narrow[np.array([earlier])][0], channels, axis=-1)
        # One channel's counts are those of all of them.
        histogram += [np.bincount(image[..., j].ravel(), minlength=256) for j in range(1 if grey else channels)]
        images[i] = image[..., : images.shape[-1]]
    usable = np.array([i for i in range(len(paths)) if i not in broken], np.int64)
    return ImageCache(images, (preprocessor.size, channels), usable, broken, histogram, pixels=tuple(pixels))


def _disk_cache(paths: Sequence[Path], preprocessor: Preprocessor, folder: Path, progress: CacheProgress) -> ImageCache:
    target = folder / _key(paths, preprocessor)
    if target.is_dir():
        return _reopened(target, preprocessor)
    with temporary_folder(target) as new:

        def make(shape: Shape) -> CacheBackend:
            # One that turned out too narrow makes room first; it can still be read.
            (new / _IMAGES).unlink(missing_ok=True)
            if math.prod(shape) > (free := shutil.disk_usage(folder).free):
                raise DataError(
                    "The decoded images must fit onto the disk",
                    received=f"{_megabytes(shape)}, and {free / 1e6:.0f} MB free in {folder}",
                    remedy="Let BTKERAS_CACHE name a folder with more room, or set data.cache=none",
                )
            return DiskCache(new / _IMAGES, shape)

        built = _fill(make, paths, preprocessor, progress)
        size = _megabytes(built.images.shape)
        if built.broken:
            # Not for the next run, which must name the broken files again.
            return replace(built, location=f"{size} on disk, for this run only")
        np.save(new / _HISTOGRAM, built.histogram)
        np.save(new / _PIXELS, np.array(built.pixels))
        try:
            new.rename(target)
        except OSError:
            # Another process was faster.
            if not target.is_dir():
                raise
            return _reopened(target, preprocessor)
    return replace(built, location=f"{size} in {target}")


def _reopened(target: Path, preprocessor: Preprocessor) -> ImageCache:
    images = DiskCache(target / _IMAGES)
    location = f"{_megabytes(images.shape)} in {target} (from an earlier run)"
    shape, usable = (preprocessor.size, preprocessor.channels), np.arange(images.shape[0])
    histogram, pixels = np.load(target / _HISTOGRAM), tuple(np.load(target / _PIXELS).tolist())
    return ImageCache(images, shape, usable, {}, histogram, location, pixels)


def _key(paths: Sequence[Path], preprocessor: Preprocessor) -> str:
    parts = [_VERSION, str(preprocessor.size), str(preprocessor.channels)]
    parts += ["harmonized"] if preprocessor.harmonize else []
    for path in paths:
        try:
            state = path.stat()
        except OSError:
            # A file that is missing gets its message when it is read.
            parts.append(str(path))
        else:
            parts.append(f"{path.resolve()}\n{state.st_size}\n{state.st_mtime_ns}")
    return digest(parts)[:24]
