"""Which images may be copies of each other: perceptual hashes of windows of them, looked up in tables.

The hash is pHash (Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010), as
`imagehash.phash` computes it with ``hash_size=12``: the lowest 12 x 12 coefficients of the discrete cosine transform of
a small image, as bits: above their median or not. What makes it worth writing down again is that all the hashes of a
image come from one thumbnail by two matrix products: turning an image permutes its coefficients and changes their
signs, and cutting a border off is another set of cosines. 31 hashes take 0.2 ms so, and 9 ms with the library.

A copy's hash differs in few bits (JPEG, size, brightness: mostly 0 to 10 of 144), but after 5 % of each side were cut
off in 40 to 60, as many as between some different heads. So of each image the hashes of 23 windows are kept, and
those of the 8 flips and rotations of the whole are looked up: a copy that was cut is found by the window nearest to it.

Looking up compares no image with all others: tables hold the windows sorted by a random sample of the bits (Indyk and
Motwani, "Approximate nearest neighbors", STOC 1998), and only those that agree in all bits of a sample are compared.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

SIDE = 120  # of a thumbnail, in pixels
_BITS = 12  # of a hash, along a side

UInt8 = NDArray[np.uint8]
Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


def _windows() -> tuple[tuple[float, float, float], ...]:
    """Left, top and side, as fractions of the image: the whole, nine of 95 % and thirteen of 90 %."""
    wide = [(x, y, 0.95) for x in (0, 0.025, 0.05) for y in (0, 0.025, 0.05)]
    narrow = [(x, y, 0.9) for x in (0, 0.05, 0.1) for y in (0, 0.05, 0.1)]
    between = [(x, y, 0.9) for x in (0.025, 0.075) for y in (0.025, 0.075)]
    return ((0.0, 0.0, 1.0), *wide, *narrow, *between)


WINDOWS = _windows()
# What can be done to a square image: whether it is transposed first, then flipped upside down, then left to right.
TURNS = tuple((bool(t), bool(v), bool(h)) for t in (0, 1) for v in (0, 1) for h in (0, 1))
TURN_NAMES = (
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
_MAX_DISTANCE = 24  # of planted copies: 8 and less; with 90 % of each side left, anywhere, 24 and less in 98 of 100
_TABLES = 48
_SAMPLE = (12, 24)  # fewest and most bits of a table's key
_BATCH = 256  # thumbnails hashed at once
_CHUNK = 1_000_000  # pairs of hashes compared at once
_ONES = np.array([value.bit_count() for value in range(256)], np.uint8)


def turned(image: Floats, turn: int) -> Floats:
    """Flips or rotates ``[..., side, side]`` by the turn of this number."""
    transposed, vertical, horizontal = TURNS[turn]
    image = np.swapaxes(image, -1, -2) if transposed else image
    return image[..., :: -1 if vertical else 1, :: -1 if horizontal else 1]


def hashes(thumbnails: UInt8) -> tuple[UInt8, UInt8]:
    """Hashes thumbnails.

    Args:
        thumbnails: ``[n, SIDE, SIDE]``.

    Returns:
        Of the windows, ``[n, len(WINDOWS), 18]``, and of the whole image under each turn, ``[n, 8, 18]``: 144 bits
        as bytes.
    """
    windows = np.empty((len(thumbnails), len(WINDOWS), _BYTES), np.uint8)
    turns = np.empty((len(thumbnails), len(TURNS), _BYTES), np.uint8)
    for start in range(0, len(thumbnails), _BATCH):
        part = slice(start, start + _BATCH)
        images = thumbnails[part].astype(np.float32)
        for number, window in enumerate(WINDOWS):
            windows[part, number] = _bits(_coefficients(images, window))
        for number, coefficients in enumerate(_turned_coefficients(_coefficients(images, WINDOWS[0]))):
            turns[part, number] = _bits(coefficients)
    return windows, turns


def _coefficients(images: Floats, window: tuple[float, float, float]) -> Floats:
    left, top, side = window
    result: Floats = np.matmul(_cosines(top, side) @ images, _cosines(left, side).T, dtype=np.float32)
    return result


def _cosines(start: float, length: float) -> Floats:
    """``[_BITS, SIDE]``: the cosines of a part of a line; pixels at its ends count as far as they are in it."""
    edges = np.clip(np.arange(SIDE + 1), start * SIDE, (start + length) * SIDE)
    places = (np.arange(SIDE) + 0.5 - start * SIDE) / (length * SIDE)
    waves = np.cos(np.pi * np.arange(_BITS)[:, None] * places)
    return (waves * np.diff(edges)).astype(np.float32)


def _turned_coefficients(whole: Floats) -> Iterator[Floats]:
    # A flip changes the sign of the odd cosines.
    flipped, same = np.where(np.arange(_BITS) % 2, -1, 1).astype(np.float32), np.ones(_BITS, np.float32)
    for transposed, vertical, horizontal in TURNS:
        rows, columns = flipped if vertical else same, flipped if horizontal else same
        yield (np.swapaxes(whole, 1, 2) if transposed else whole) * rows[:, None] * columns


def _bits(coefficients: Floats) -> UInt8:
    flat = coefficients.reshape(len(coefficients), -1)
    return np.packbits(flat > np.median(flat, axis=1, keepdims=True), axis=1)


def candidates(windows: UInt8, turns: UInt8) -> Ints:
    """Finds images that may be copies of each other, under any of the turns and with a border cut off.

    Args:
        windows: As ``hashes`` returns them.
        turns: As ``hashes`` returns them.

    Returns:
        ``[n, 4]``: image, window of it, another image, turn of that; each two images once, with the window and
        the turn whose hashes differ least. Those that differ least come first.
    """
    best = np.zeros((0, 5), np.int64)
    for found in _collisions(windows.reshape(-1, _BYTES), turns.reshape(-1, _BYTES)):
        best = _closest(np.concatenate([best, found]), len(windows))
    return best[np.argsort(best[:, 0], kind="stable"), 1:]


def _collisions(entries: UInt8, questions: UInt8) -> Iterator[Ints]:
    """Pairs that agree in a table, as distance, image, window, image, turn."""
    stored, asked = np.unpackbits(entries, axis=1), np.unpackbits(questions, axis=1)
    # About as many keys as there are hashes, so that few others share one.
    length = int(np.clip(np.ceil(np.log2(len(entries))) + 1, *_SAMPLE))
    rng = np.random.default_rng(0)
    for _ in range(_TABLES):
        sample = rng.choice(_BITS**2, length, replace=False)
        keys, wanted = _keys(stored, sample), _keys(asked, sample)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        bounds = (np.searchsorted(keys, wanted, side) for side in ("left", "right"))
        for places, question in _ranges(*bounds):
            entry = order[places]
            images, others = entry // len(WINDOWS), question // len(TURNS)
            distances = _ONES[entries[entry] ^ questions[question]].sum(axis=1, dtype=np.int64)
            near = (distances <= _MAX_DISTANCE) & (images != others)
            found = (distances, images, entry % len(WINDOWS), others, question % len(TURNS))
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


def _closest(found: Ints, count: int) -> Ints:
    """Of each two of ``count`` images the closest hashes."""
    pair = np.minimum(found[:, 1], found[:, 3]) * count + np.maximum(found[:, 1], found[:, 3])
    order = np.lexsort((found[:, 0], pair))
    pair = pair[order]
    first = np.ones(len(order), bool)
    first[1:] = pair[1:] != pair[:-1]
    return found[order[first]]
