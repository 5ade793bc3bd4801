"""Decoded images, read by index: in memory, in a file on disk, or decoded anew each time."""

from __future__ import annotations

import math
import shutil
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import psutil
from numpy.typing import NDArray

from btkeras.errors import DataError, ImageError
from btkeras.files import atomic_folder, digest
from btkeras.preprocessing.cache_backends import (
    CacheBackend,
    DiskBackend,
    MemoryBackend,
    NoBackend,
    Shape,
    copy_first,
    is_grey,
)
from btkeras.preprocessing.preprocessor import ImageArray, Preprocessor

# Counts in the folder's name: images decoded or kept by other rules must not be taken for these.
_VERSION = "3"
_MEMORY_SHARE = 4
_IMAGES, _HISTOGRAM = "images.npy", "histogram.npy"

Progress = Callable[[Iterable[ImageArray | ImageError]], Iterable[ImageArray | ImageError]]


class Images(Protocol):
    """What a store reads from: an array, or something that reads or decodes on demand."""

    def __getitem__(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]: ...


@dataclass(frozen=True)
class ImageCache:
    """Images of one list of files at one size.

    Attributes:
        images: Indexed by the position in the list of files.
        shape: Side and channels of an image.
        usable: Positions of the files that could be read.
        broken: Position and reason of the others.
        histogram: Pixel counts of the usable images, int64 ``[channels, 256]``.
        kept: Where the images are, in words.
        grey: Whether ``images`` has one channel, which all ``shape[1]`` channels are equal to.
    """

    images: Images
    shape: tuple[int, int]
    usable: NDArray[np.int64]
    broken: dict[int, ImageError]
    histogram: NDArray[np.int64]
    kept: str
    grey: bool = False

    @property
    def kept_channels(self) -> int:
        """Channels of ``take_kept``'s images."""
        return 1 if self.grey else self.shape[1]

    def take_kept(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Returns usable images as they are kept, uint8 ``[len(indices), size, size, kept_channels]``."""
        return np.ascontiguousarray(self.images[self.usable[indices]])

    def take(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Returns the given usable images, uint8 ``[len(indices), size, size, channels]``."""
        return np.repeat(self.take_kept(indices), self.shape[1] // self.kept_channels, axis=-1)

    def __len__(self) -> int:
        return len(self.usable)

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and variance of the pixels per channel, in units of 0..255; exact up to the last division."""
        values = np.arange(256)
        count = self.histogram.sum(axis=1)
        mean = self.histogram @ values / count
        variance = self.histogram @ values**2 / count - mean**2
        return mean.tolist(), np.maximum(variance, 1e-6).tolist()


class _OnDemand:
    def __init__(self, paths: Sequence[Path], decoder: Preprocessor) -> None:
        self._paths, self._decoder = paths, decoder

    def __getitem__(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        images = []
        for image in self._decoder.files([self._paths[i] for i in indices]):
            if isinstance(image, ImageError):
                raise image
            images.append(image)
        return np.stack(images)


def build_cache(
    paths: Sequence[Path],
    decoder: Preprocessor,
    *,
    cache: str,
    folder: Path,
    progress: Progress = lambda images: images,
) -> ImageCache:
    """Decodes every file once, which finds the broken ones, and keeps the images as ``cache`` says.

    Grey images are kept with one channel where the decoder gives three: that is a third of the memory.

    Args:
        paths: The files.
        decoder: Says size, channels and whether images are harmonized.
        cache: As ``resolved_cache``.
        folder: Where files on disk are kept; one that is there from an earlier run is used again.
        progress: Wraps the iteration, to show it.
    """
    cache = resolved_cache(cache, len(paths), decoder)
    if cache == "disk":
        return _disk_store(paths, decoder, folder, progress)
    if cache == "memory":
        store = _fill(MemoryBackend, 1, paths, decoder, progress)
        channels = decoder.channels if not store.grey else 1
        return replace(store, kept=f"{_megabytes(_shape(paths, decoder, channels))} in memory")
    store = _fill(NoBackend, decoder.channels, paths, decoder, progress)
    return replace(store, images=_OnDemand(paths, decoder), kept="nowhere, decoded in every epoch")


def resolved_cache(cache: str, count: int, decoder: Preprocessor) -> str:
    """Where so many images are kept: ``memory``, ``disk`` or ``none``.

    Args:
        cache: One of ``config.CACHES``; ``auto`` takes memory if a quarter of what is free suffices, else disk.
        count: Number of images.
        decoder: Says size and channels.
    """
    if cache != "auto":
        return cache
    needed = count * decoder.size**2 * decoder.channels
    return "memory" if needed <= psutil.virtual_memory().available / _MEMORY_SHARE else "disk"


def _shape(paths: Sequence[Path], decoder: Preprocessor, channels: int) -> Shape:
    return len(paths), decoder.size, decoder.size, channels


def _megabytes(shape: Shape) -> str:
    return f"{math.prod(shape) / 1e6:.0f} MB"


def _fill(
    make: Callable[[Shape], CacheBackend],
    channels: int,
    paths: Sequence[Path],
    decoder: Preprocessor,
    progress: Progress,
) -> ImageCache:
    """Decodes the files onto a shelf, which is made anew if it has one channel and an image has colours."""
    broken: dict[int, ImageError] = {}
    histogram = np.zeros((decoder.channels, 256), np.int64)
    shelf = make(_shape(paths, decoder, channels))
    for i, image in enumerate(progress(decoder.files(paths))):
        if isinstance(image, ImageError):
            broken[i] = image
            continue
        grey = is_grey(image)
        if not grey and shelf.shape[-1] == 1:
            narrow, shelf = shelf, make(_shape(paths, decoder, decoder.channels))
            copy_first(narrow, shelf, i)
        # One channel's counts are those of all of them.
        histogram += _histogram(image[..., :1] if grey else image)
        shelf.put(i, image[..., : shelf.shape[-1]])
    usable = np.array([i for i in range(len(paths)) if i not in broken], np.int64)
    only_grey = shelf.shape[-1] < decoder.channels
    return ImageCache(shelf, (decoder.size, decoder.channels), usable, broken, histogram, "", only_grey)


def _histogram(image: ImageArray) -> NDArray[np.int64]:
    return np.stack([np.bincount(channel.ravel(), minlength=256) for channel in np.moveaxis(image, -1, 0)])


class _NotKeptError(Exception):
    """Makes ``atomic_folder`` drop what was written."""

    def __init__(self, store: ImageCache) -> None:
        super().__init__()
        self.store = store


def _disk_store(paths: Sequence[Path], decoder: Preprocessor, folder: Path, progress: Progress) -> ImageCache:
    target = folder / _key(paths, decoder)
    if target.is_dir():
        return _stored(target, decoder)
    try:
        with atomic_folder(target) as temporary:
            return _filled(temporary, paths, decoder, progress, f"in {target}")
    except _NotKeptError as broken:
        # The next run must name the broken files again. The open file outlives its name.
        return broken.store
    except OSError:
        if not target.is_dir():
            raise
    # Another process was faster.
    return _stored(target, decoder)


def _filled(folder: Path, paths: Sequence[Path], decoder: Preprocessor, progress: Progress, where: str) -> ImageCache:
    file = folder / _IMAGES

    def make(shape: Shape) -> CacheBackend:
        # One that turned out too narrow makes room first; it can still be read.
        file.unlink(missing_ok=True)
        _check_room(shape, folder)
        return DiskBackend(file, shape)

    store = _fill(make, 1, paths, decoder, progress)
    size = _megabytes(_shape(paths, decoder, store.kept_channels))
    if store.broken:
        raise _NotKeptError(replace(store, kept=f"{size} on disk, for this run only"))
    np.save(folder / _HISTOGRAM, store.histogram)
    return replace(store, kept=f"{size} {where}")


def _check_room(shape: Shape, folder: Path) -> None:
    """A disk that is full is better found now than after hours."""
    free = shutil.disk_usage(folder).free
    if math.prod(shape) > free:
        raise DataError(
            "The decoded images must fit onto the disk",
            received=f"{_megabytes(shape)}, and {free / 1e6:.0f} MB free in {folder}",
            remedy="Let BTKERAS_CACHE name a folder with more room, or set data.cache=none",
        )


def _stored(target: Path, decoder: Preprocessor) -> ImageCache:
    images, histogram = DiskBackend(target / _IMAGES), np.load(target / _HISTOGRAM)
    kept = f"{_megabytes(images.shape)} in {target} (from an earlier run)"
    grey = images.shape[-1] < decoder.channels
    shape = (decoder.size, decoder.channels)
    return ImageCache(images, shape, np.arange(images.shape[0]), {}, histogram, kept, grey)


def _key(paths: Sequence[Path], decoder: Preprocessor) -> str:
    parts = [_VERSION, str(decoder.size), str(decoder.channels), *(["harmonized"] if decoder.harmonize else [])]
    resolved: dict[Path, Path] = {}
    for path in paths:
        try:
            link, state = path.lstat(), path.stat()
        except OSError:
            # A file that is missing gets its message when it is read.
            parts.append(str(path))
            continue
        folder = path.parent
        if folder not in resolved:
            resolved[folder] = folder.resolve()
        whole = path.resolve() if stat.S_ISLNK(link.st_mode) else resolved[folder] / path.name
        parts.append(f"{whole}\n{state.st_size}\n{state.st_mtime_ns}")
    return digest(parts)[:24]
