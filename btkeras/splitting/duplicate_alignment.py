"""Confirms duplicates: how alike two images are once they are aligned.

Alignment is by Lucas and Kanade ("An iterative image registration technique", IJCAI 1981): a shift and a scale along
each axis, and a gain and an offset of the grey levels, at three resolutions. The correlation is that of a band of
spatial frequencies, without brightness and large shapes, which all heads share, and without what JPEG or another size
takes away. ``THRESHOLD`` lies in a gap: planted duplicates have 0.967 and more, and of FigShare's slices, which are
7 mm apart, no two have more than 0.961 (``docs/trust.md``).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from btkeras.splitting.duplicate_hashes import SIDE, WINDOWS, oriented

UInt8 = NDArray[np.uint8]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

THRESHOLD = 0.965


class _Stage(NamedTuple):
    factor: int  # by which the thumbnails are made smaller
    steps: int  # of the alignment
    band: tuple[float, float]  # standard deviations of the band's two Gaussians, in pixels
    least: float  # correlation below which a pair is dropped


# The lowest correlations of any planted duplicate were 0.81, 0.88 and 0.967. Of the candidates that show different
# slices the first stage drops two thirds, and the second most of the others.
_STAGES = (
    _Stage(4, 2, (0.5, 2.0), 0.75),
    _Stage(2, 3, (0.5, 3.0), 0.82),
    _Stage(1, 2, (0.7, 4.0), THRESHOLD),
)
_BATCH = 256  # thumbnails filtered at once
_SCALES = (0.8, 1.25)  # within these an alignment stays
_SHIFT = 0.2
_STRIDE = 0.03  # largest change in one step
_TINY = 1e-6


class Aligner:
    """Aligns pairs of thumbnails ``[m, SIDE, SIDE]`` and correlates them."""

    def __init__(self, thumbnails: UInt8) -> None:
        self._thumbnails = thumbnails
        # Every pair needs the first stage, so it is computed once for each image: 4 kB of half floats.
        starts = range(0, len(thumbnails), _BATCH)
        filtered = [_filtered(thumbnails[start : start + _BATCH], _STAGES[0]) for start in starts]
        self._smooth, self._bands = (np.concatenate(part).astype(np.float16) for part in zip(*filtered, strict=True))

    def correlations(self, pairs: Ints) -> Floats:
        """Correlations ``[n]`` of ``candidates`` ``[n, 4]``; 0 for a pair that a coarse stage drops."""
        result = np.zeros(len(pairs), np.float32)
        left = np.arange(len(pairs))
        windows = np.array(WINDOWS, np.float32)[pairs[:, 1]]
        # Top, height, left and width of what is compared of the first image, as fractions of it.
        places = np.stack([windows[:, 1], windows[:, 2], windows[:, 0], windows[:, 2]], axis=1)
        for stage in _STAGES:
            smooth, band = self._stage(pairs[left, 0], stage)
            smooth_other, band_other = (_oriented(x, pairs[left, 3]) for x in self._stage(pairs[left, 2], stage))
            for _ in range(stage.steps):
                places = places + _step(smooth, smooth_other, places)
                places[:, ::2] = np.clip(places[:, ::2], -_SHIFT, _SHIFT)
                places[:, 1::2] = np.clip(places[:, 1::2], *_SCALES)
            found = _correlation(band, band_other, places, margin=stage.band[1])
            passed = found >= stage.least
            left, places, found = left[passed], places[passed], found[passed]
            if not len(left):
                return result
        result[left] = found
        return result

    def _stage(self, images: Ints, stage: _Stage) -> tuple[Floats, Floats]:
        if stage is _STAGES[0]:
            return self._smooth[images].astype(np.float32), self._bands[images].astype(np.float32)
        return _filtered(self._thumbnails[images], stage)


def _filtered(images: UInt8, stage: _Stage) -> tuple[Floats, Floats]:
    """What is aligned, and what is then correlated."""
    size = SIDE // stage.factor
    small = images.reshape(-1, size, stage.factor, size, stage.factor).mean(axis=(2, 4), dtype=np.float32)
    smooth, fine, coarse = (ndimage.gaussian_filter(small, (0, s, s), truncate=3) for s in (1, *stage.band))
    return smooth, fine - coarse


def _oriented(images: Floats, orientations: Ints) -> Floats:
    result = np.empty_like(images)
    for orientation in np.unique(orientations):
        chosen = orientations == orientation
        result[chosen] = oriented(images[chosen], int(orientation))
    return result


def _step(moving: Floats, fixed: Floats, places: Floats) -> Floats:
    """One step of Gauss and Newton: the change of ``places`` that makes ``moving`` most like ``fixed``."""
    side = moving.shape[-1]
    sampled, inside = _sampled(moving, places)
    along = ((np.arange(side) + 0.5) / side).astype(np.float32)
    columns = np.zeros((len(moving), 6, side, side), np.float32)
    # Derivatives by top, height, left and width; then what the gain and the offset multiply.
    columns[:, 0, 1:-1] = (sampled[:, 2:] - sampled[:, :-2]) * (side / 2) / places[:, 1, None, None]
    columns[:, 1] = columns[:, 0] * along[:, None]
    columns[:, 2, :, 1:-1] = (sampled[:, :, 2:] - sampled[:, :, :-2]) * (side / 2) / places[:, 3, None, None]
    columns[:, 3] = columns[:, 2] * along
    columns[:, 4] = sampled
    columns[:, 5] = 1
    columns *= inside[:, None]
    flat = columns.reshape(len(moving), 6, -1)
    squares = flat @ np.swapaxes(flat, 1, 2)
    scales = np.sqrt(np.einsum("nii->ni", squares)) + _TINY
    # A little is added to the diagonal, so that a blank area gives no huge step.
    squares = squares / scales[:, :, None] / scales[:, None] + 1e-3 * np.eye(6, dtype=np.float32)
    wanted = (flat @ fixed.reshape(len(fixed), -1, 1))[..., 0] / scales
    solved = np.linalg.solve(squares, wanted[..., None])[..., 0] / scales
    gain = np.maximum(solved[:, 4:5], 0.2)
    return np.clip(solved[:, :4] / gain, -_STRIDE, _STRIDE).astype(np.float32)


def _correlation(moving: Floats, fixed: Floats, places: Floats, margin: float) -> Floats:
    """The correlation over what both show, less a margin in which the band depends on what lies outside."""
    sampled, inside = _sampled(moving, places, margin)
    counts = inside.sum(axis=(1, 2), keepdims=True) + _TINY
    a, b = ((x - (x * inside).sum(axis=(1, 2), keepdims=True) / counts) * inside for x in (sampled, fixed))
    products, a_squares, b_squares = (np.einsum("nij,nij->n", *pair) for pair in ((a, b), (a, a), (b, b)))
    result: Floats = products / np.sqrt(a_squares * b_squares + _TINY)
    return result


def _sampled(images: Floats, places: Floats, margin: float = 0) -> tuple[Floats, Bools]:
    """What lies at ``places``, stretched to the images' size, and which pixels of that lie in the image."""
    rows, inside_rows = _rows(images, places[:, 0], places[:, 1], margin)
    transposed = np.ascontiguousarray(np.swapaxes(rows, 1, 2))
    columns, inside_columns = _rows(transposed, places[:, 2], places[:, 3], margin)
    inside = inside_rows[:, :, None] & inside_columns[:, None, :]
    return np.ascontiguousarray(np.swapaxes(columns, 1, 2)), inside


def _rows(images: Floats, start: Floats, length: Floats, margin: float) -> tuple[Floats, Bools]:
    side = images.shape[1]
    at = (start[:, None] + (np.arange(side) + 0.5) / side * length[:, None]) * side - 0.5
    own = np.arange(side)
    inside = (at >= margin - 0.5) & (at <= side - 0.5 - margin) & (own >= margin) & (own < side - margin)
    at = np.clip(at, 0, side - 1)
    low = np.minimum(at.astype(np.int64), side - 2)
    which = np.arange(len(images))[:, None]
    result = images[which, low + 1]
    below = images[which, low]
    result = below + (result - below) * (at - low)[:, :, None].astype(np.float32)
    return result, inside
