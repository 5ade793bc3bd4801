"""Decoded pictures, read by index: in memory, in a file on disk, or decoded anew each time."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import psutil
from numpy.typing import NDArray

from btkeras.data.decoder import Decoder, Picture
from btkeras.errors import DataError, ImageError
from btkeras.files import atomic_file, digest

# Counts in the file's name: pictures decoded by other rules must not be taken for these.
_VERSION = "2"
_MEMORY_SHARE = 4


class Pictures(Protocol):
    """What a store reads from: an array, or something that decodes on demand."""

    def __getitem__(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]: ...


@dataclass(frozen=True)
class Store:
    """Pictures of one list of files at one size.

    Attributes:
        pictures: Indexed by the position in the list of files.
        shape: Side and channels of a picture.
        usable: Positions of the files that could be read.
        broken: Position and reason of the others.
        histogram: Pixel counts of the usable pictures, int64 ``[channels, 256]``.
        kept: Where the pictures are, in words.
    """

    pictures: Pictures
    shape: tuple[int, int]
    usable: NDArray[np.int64]
    broken: dict[int, ImageError]
    histogram: NDArray[np.int64]
    kept: str

    def take(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Returns the given usable pictures, uint8 ``[len(indices), size, size, channels]``."""
        return np.ascontiguousarray(self.pictures[self.usable[indices]])

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
    def __init__(self, paths: Sequence[Path], decoder: Decoder) -> None:
        self._paths, self._decoder = paths, decoder

    def __getitem__(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        pictures = []
        for picture in self._decoder.files([self._paths[i] for i in indices]):
            if isinstance(picture, ImageError):
                raise picture
            pictures.append(picture)
        return np.stack(pictures)


def build_store(
    paths: Sequence[Path],
    decoder: Decoder,
    *,
    cache: str,
    folder: Path,
    progress: Callable[[Iterable[Picture | ImageError]], Iterable[Picture | ImageError]] = lambda pictures: pictures,
) -> Store:
    """Decodes every file once, which finds the broken ones, and keeps the pictures as ``cache`` says.

    Args:
        paths: The files.
        decoder: Says size, channels and whether pictures are harmonised.
        cache: One of ``config.CACHES``; ``auto`` takes memory if a quarter of what is free suffices, else disk.
        folder: Where files on disk are kept; one that is there from an earlier run is used again.
        progress: Wraps the iteration, to show it.
    """
    shape = (len(paths), decoder.size, decoder.size, decoder.channels)
    needed = int(np.prod(shape))
    if cache == "auto":
        cache = "memory" if needed <= psutil.virtual_memory().available / _MEMORY_SHARE else "disk"
    if cache == "memory":
        return _fill(np.empty(shape, np.uint8), paths, decoder, progress, f"{needed / 1e6:.0f} MB in memory")
    if cache == "disk":
        return _disk_store(shape, paths, decoder, folder, progress)
    store = _fill(None, paths, decoder, progress, "nowhere, decoded in every epoch")
    return replace(store, pictures=_OnDemand(paths, decoder))


def _fill(
    array: NDArray[np.uint8] | None,
    paths: Sequence[Path],
    decoder: Decoder,
    progress: Callable[[Iterable[Picture | ImageError]], Iterable[Picture | ImageError]],
    kept: str,
) -> Store:
    broken: dict[int, ImageError] = {}
    histogram = np.zeros((decoder.channels, 256), np.int64)
    for i, picture in enumerate(progress(decoder.files(paths))):
        if isinstance(picture, ImageError):
            broken[i] = picture
            continue
        histogram += _histogram(picture)
        if array is not None:
            array[i] = picture
    usable = np.array([i for i in range(len(paths)) if i not in broken], np.int64)
    pictures = array if array is not None else np.empty(0, np.uint8)
    return Store(pictures, (decoder.size, decoder.channels), usable, broken, histogram, kept)


def _histogram(picture: Picture) -> NDArray[np.int64]:
    return np.stack([np.bincount(channel.ravel(), minlength=256) for channel in np.moveaxis(picture, -1, 0)])


class _NotKeptError(Exception):
    """Makes ``atomic_file`` drop what was written."""


def _disk_store(
    shape: tuple[int, ...],
    paths: Sequence[Path],
    decoder: Decoder,
    folder: Path,
    progress: Callable[[Iterable[Picture | ImageError]], Iterable[Picture | ImageError]],
) -> Store:
    target = folder / f"{_key(paths, decoder)}.npy"
    needed = int(np.prod(shape))
    kept = f"{needed / 1e6:.0f} MB in {target}"
    if target.is_file():
        return _stored(target, kept)
    _check_room(needed, folder)
    with contextlib.suppress(_NotKeptError), atomic_file(target) as temporary:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        store = _fill(array, paths, decoder, progress, kept)
        array.flush()
        if store.broken:
            # The next run must name the broken files again. The mapping outlives the file's name.
            store = replace(store, kept=f"{needed / 1e6:.0f} MB on disk, for this run only")
            raise _NotKeptError
    return store


def _check_room(needed: int, folder: Path) -> None:
    """Writing through a mapping onto a full disk would kill the process."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            "The decoded pictures must fit onto the disk",
            received=f"{needed / 1e6:.0f} MB, and {free / 1e6:.0f} MB free in {folder}",
            remedy="Let BTKERAS_CACHE name a folder with more room, or set data.cache=none",
        )


def _stored(target: Path, kept: str) -> Store:
    array = np.load(target, mmap_mode="r")
    histogram = np.zeros((array.shape[-1], 256), np.int64)
    for picture in array:
        histogram += _histogram(picture)
    return Store(array, array.shape[2:], np.arange(len(array)), {}, histogram, f"{kept} (from an earlier run)")


def _key(paths: Sequence[Path], decoder: Decoder) -> str:
    parts = [_VERSION, str(decoder.size), str(decoder.channels), *(["harmonised"] if decoder.harmonise else [])]
    for path in paths:
        # A file that is missing gets its message when it is read.
        stat = path.stat() if path.exists() else None
        parts.append(f"{path.resolve()}\n{stat.st_size}\n{stat.st_mtime_ns}" if stat else str(path))
    return digest(parts)[:24]
