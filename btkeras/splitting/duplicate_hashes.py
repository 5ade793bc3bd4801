"""Candidates for duplicates: perceptual hashes of windows of images, looked up in tables.

The hash is pHash (Zauner 2010) as `imagehash.phash` computes it with ``hash_size=12``; computed here, all the hashes of
an image come from one thumbnail by two matrix products, in 0.2 ms instead of 9 ms.

A duplicate's hash mostly differs in 0 to 10 of 144 bits, but after a crop of 5 % of each side in 40 to 60, as many as
between some different heads. So the hashes of 23 windows of each image are stored, and those of its 8 orientations are
looked up: a cropped duplicate is found by the window nearest to it. Tables hold the windows sorted by a random sample
of the bits (Indyk and Motwani, "Approximate nearest neighbors", STOC 1998); only those that agree in it are compared.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

SIDE = 120  # of a thumbnail, in pixels
_BITS = 12  # of a hash, along a side

UInt8 = NDArray[np.uint8]
Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


_OFFSETS = ((1.0, (0.0,)), (0.95, (0, 0.025, 0.05)), (0.9, (0, 0.05, 0.1)), (0.9, (0.025, 0.075)))
# Left, top and side, as fractions of the image: the whole, nine of 95 % and thirteen of 90 %.
WINDOWS = tuple((x, y, side) for side, offsets in _OFFSETS for x in offsets for y in offsets)
# Whether a square image is transposed first, then flipped upside down, then left to right.
ORIENTATIONS = tuple((bool(t), bool(v), bool(h)) for t in (0, 1) for v in (0, 1) for h in (0, 1))
ORIENTATION_NAMES = (
    "as it is",
    "flipped left to right",
    "flipped upside down",
    "rotated by 180 degrees",
    "transposed",
    "rotated by 90 degrees clockwise",
    "rotated by 90 degrees counter-clockwise",
    "transposed along the other diagonal",
)

_BYTES = _BITS**2 // 8
_MAX_DISTANCE = 24  # of planted duplicates: 8 and less; with 90 % of each side left, anywhere, 24 and less in 98 of 100
_TABLES = 48
_SAMPLE = (12, 24)  # fewest and most bits of a table's key
_BATCH = 256  # thumbnails hashed at once
_CHUNK = 1_000_000  # pairs of hashes compared at once
_STORED = 4096  # stored hashes compared at once: with eight orientations they fit a core's cache
_ONES = np.array([value.bit_count() for value in range(256)], np.uint8)


def oriented(images: NDArray[np.generic], orientation: int) -> NDArray[np.generic]:
    """Brings ``[..., side, side]`` into the orientation of this number."""
    transposed, vertical, horizontal = ORIENTATIONS[orientation]
    images = np.swapaxes(images, -1, -2) if transposed else images
    return images[..., :: -1 if vertical else 1, :: -1 if horizontal else 1]


def hashes(thumbnails: UInt8) -> tuple[UInt8, UInt8]:
    """Hashes thumbnails ``[n, SIDE, SIDE]``; 144 bits are 18 bytes.

    Returns:
        Hashes of the windows, ``[n, len(WINDOWS), 18]``, and of the whole image in each orientation, ``[n, 8, 18]``.
    """
    windows = np.empty((len(thumbnails), len(WINDOWS), _BYTES), np.uint8)
    orientations = np.empty((len(thumbnails), len(ORIENTATIONS), _BYTES), np.uint8)
    for start in range(0, len(thumbnails), _BATCH):
        batch = slice(start, start + _BATCH)
        images = thumbnails[batch].astype(np.float32)
        for number, window in enumerate(WINDOWS):
            windows[batch, number] = _bits(_coefficients(images, window))
        orientations[batch] = orientation_hashes(images)
    return windows, orientations


def orientation_hashes(thumbnails: UInt8 | Floats, side: int = _BITS) -> UInt8:
    """Hashes whole thumbnails ``[n, SIDE, SIDE]`` in each orientation, ``[n, 8, side * side / 8]``; 8 divides that."""
    whole = _coefficients(thumbnails.astype(np.float32), WINDOWS[0], side)
    # A flip changes the sign of the odd cosines.
    flipped, same = np.where(np.arange(side) % 2, -1, 1).astype(np.float32), np.ones(side, np.float32)
    turned = np.empty((len(thumbnails), len(ORIENTATIONS), side, side), np.float32)
    for number, (transposed, vertical, horizontal) in enumerate(ORIENTATIONS):
        rows, columns = flipped if vertical else same, flipped if horizontal else same
        turned[:, number] = (np.swapaxes(whole, 1, 2) if transposed else whole) * rows[:, None] * columns
    return _bits(turned)


def least_distances(orientations: UInt8, stored: UInt8) -> Floats:
    """Bits in which images, hashed as ``[n, 8, bytes]``, differ from the nearest of those stored, ``[m, bytes]``.

    Returns:
        By orientation and image, float32 ``[8, n]``; infinite if none is stored.
    """
    asked, rows = _words(orientations), _words(stored)
    result = np.full(orientations.shape[1::-1], np.inf, np.float32)
    for start in range(0, len(rows), _STORED):
        # By word, so that each is one pass over memory.
        columns = np.ascontiguousarray(rows[start : start + _STORED].T)
        for number, words in enumerate(asked):
            different = sum(
                np.bitwise_count(column ^ word[:, None]).astype(np.uint16)
                for column, word in zip(columns, words.T, strict=True)
            )
            result[:, number] = np.minimum(result[:, number], np.min(different, axis=1))
    return result


def _words(packed: UInt8) -> NDArray[np.uint64]:
    """Bytes along the last axis as words of 64 bits, filled up with zeros."""
    filled = np.zeros((*packed.shape[:-1], -(-packed.shape[-1] // 8) * 8), np.uint8)
    filled[..., : packed.shape[-1]] = packed
    return filled.view(np.uint64)


def _coefficients(images: Floats, window: tuple[float, float, float], count: int = _BITS) -> Floats:
    left, top, side = window
    result: Floats = np.matmul(_cosines(top, side, count) @ images, _cosines(left, side, count).T, dtype=np.float32)
    return result


@functools.cache
def _cosines(start: float, length: float, count: int) -> Floats:
    """``[count, SIDE]``: the cosines along a window; a pixel at its end counts as far as it is in it."""
    edges = np.clip(np.arange(SIDE + 1), start * SIDE, (start + length) * SIDE)
    places = (np.arange(SIDE) + 0.5 - start * SIDE) / (length * SIDE)
    waves = np.cos(np.pi * np.arange(count)[:, None] * places)
    return (waves * np.diff(edges)).astype(np.float32)


def _bits(coefficients: Floats) -> UInt8:
    """Of ``[..., side, side]``, each coefficient above the median is a bit; packed along the last axis."""
    flat = coefficients.reshape(*coefficients.shape[:-2], -1)
    return np.packbits(flat > np.median(flat, axis=-1, keepdims=True), axis=-1)


def candidates(windows: UInt8, orientations: UInt8) -> Ints:
    """Finds images that may be duplicates of each other, in any orientation and with a border cropped, by ``hashes``.

    Returns:
        ``[n, 4]``: image, window of it, another image, orientation of that; each two images once, with the window and
        the orientation whose hashes differ least, in the order of the difference.
    """
    best = np.zeros((0, 5), np.int64)
    for found in _collisions(windows.reshape(-1, _BYTES), orientations.reshape(-1, _BYTES)):
        best = np.concatenate([best, found])
        # Of each two images the closest hashes.
        pair = np.sort(best[:, [1, 3]], axis=1) @ (len(windows), 1)
        order = np.lexsort((best[:, 0], pair))
        best = best[order[np.unique(pair[order], return_index=True)[1]]]
    return best[np.argsort(best[:, 0], kind="stable"), 1:]


def _collisions(entries: UInt8, queries: UInt8) -> Iterator[Ints]:
    """Pairs that agree in a table, as distance, image, window, image, orientation."""
    stored, asked = np.unpackbits(entries, axis=1), np.unpackbits(queries, axis=1)
    # About as many keys as there are hashes, so that few others share one.
    length = int(np.clip(np.ceil(np.log2(len(entries))) + 1, *_SAMPLE))
    rng = np.random.default_rng(0)
    for _ in range(_TABLES):
        sample = rng.choice(_BITS**2, length, replace=False)
        keys, wanted = _keys(stored, sample), _keys(asked, sample)
        order = np.argsort(keys, kind="stable")
        bounds = (np.searchsorted(keys[order], wanted, side) for side in ("left", "right"))
        for places, query in _ranges(*bounds):
            entry = order[places]
            images, others = entry // len(WINDOWS), query // len(ORIENTATIONS)
            distances = _ONES[entries[entry] ^ queries[query]].sum(axis=1, dtype=np.int64)
            near = (distances <= _MAX_DISTANCE) & (images != others)
            found = (distances, images, entry % len(WINDOWS), others, query % len(ORIENTATIONS))
            yield np.stack([column[near] for column in found], axis=1)


def _keys(bits: UInt8, sample: Ints) -> NDArray[np.uint32]:
    chosen = np.zeros((len(bits), 32), np.uint8)
    chosen[:, : len(sample)] = bits[:, sample]
    return np.packbits(chosen, axis=1).view(">u4")[:, 0].astype(np.uint32)


def _ranges(first: Ints, last: Ints) -> Iterator[tuple[Ints, Ints]]:
    """All places from ``first[i]`` to before ``last[i]``, with ``i``, about ``_CHUNK`` at a time."""
    sizes = last - first
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        before = ends[start] - sizes[start]
        stop = max(int(np.searchsorted(ends, before + _CHUNK, "right")), start + 1)
        numbers = np.repeat(np.arange(start, stop), sizes[start:stop])
        offsets = np.arange(len(numbers)) - (ends - sizes - before)[numbers]
        yield first[numbers] + offsets, numbers
        start = stop
