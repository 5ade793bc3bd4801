"""The MRI check: rejects what is plainly no brain MRI slice before a model sees it, with a reason.

A few explainable features are compared with generous limits; none of 4,564 real slices is rejected (FigShare's T1 with
contrast in three views; Br35H's T1, T2 and FLAIR). What looks like a slice is left to the OOD score
(``btkeras.decisions.ood``). Only NumPy and Pillow are used: importing SciPy takes longer than a prediction.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from btkeras.preprocessing.preprocessor import without_equal_channels

Mask = NDArray[np.bool_]
Floats = NDArray[np.floating]

# Longest side of the copy that is measured: a head's outline and its larger structures remain, text becomes lines.
SIDE = 128
# Fewer rows or columns cannot be measured.
SMALLEST = 8
# Standard deviation, grey levels, up to which a row or column at the edge is plain (JPEG and faint noise included).
PLAIN = 6.0
# Channels that differ by more, grey levels, are a color; JPEG tints grey by up to about 20.
COLOR = 40
# On the scale of `normalized`: dark, and what is brighter than the background.
DARK, OBJECT = 0.2, 0.12
# Sides of the patches in the corners, as a fraction of the shorter side.
CORNER = 0.08
# Exponents of the two coordinates in the terms of a polynomial of second degree.
_TERMS = (np.array([0, 0, 1, 0, 1, 2]), np.array([0, 1, 0, 2, 1, 0]))
# Pixels that have a neighbour above, below, on the left and on the right, and those neighbours.
_ROWS, _COLUMNS = (np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])
_NEIGHBOURS = (_ROWS, _ROWS[::-1], _COLUMNS, _COLUMNS[::-1])


class SliceFeatures:
    """What the rules of the MRI check look at.

    Args:
        image: uint8 ``[height, width]`` or ``[height, width, 1 or 3]``.

    Attributes:
        grey_levels: Number of different grey levels in the whole image.
        color: Fraction of pixels that are clearly coloured.
        grey: The small copy in grey levels, float32.
        brightest: Its 99.5th percentile, grey levels.
        contrast: Distance of that from the 0.5th percentile.
    """

    def __init__(self, image: NDArray[np.uint8]) -> None:
        pixels = without_equal_channels(np.atleast_3d(image))
        whole = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))
        scale = min(1.0, SIDE / max(whole.size))
        size = max(SMALLEST, round(whole.width * scale)), max(SMALLEST, round(whole.height * scale))
        # A whole factor takes a quarter of the time; reduced by one first, other sizes would get another copy.
        gap = 1.0 if whole.width == whole.height and not whole.width % SIDE else None
        small = whole.resize(size, Image.Resampling.BOX, reducing_gap=gap)
        self.grey_levels = int(np.count_nonzero((whole if whole.mode == "L" else whole.convert("L")).histogram()))
        self.color = _color(np.asarray(small)) if small.mode == "RGB" else 0.0
        self.grey = np.asarray(small.convert("L"), np.float32)
        darkest, self.brightest = _percentiles(self.grey, 0.5, 99.5)
        self.contrast = self.brightest - darkest

    @cached_property
    def content(self) -> Floats:
        """``grey`` without plain rows and columns at its edges: frames, margins, background around a head."""
        return _without_frame(self.grey)

    @cached_property
    def normalized(self) -> Floats:
        """``content`` with its 1st..99th percentile as 0..1, clipped."""
        low, high = _percentiles(self.content, 1, 99)
        return np.clip((self.content - low) / max(high - low, 1.0), 0, 1)

    @cached_property
    def autocorrelation(self) -> float:
        """Correlation of neighbouring pixels, mean of both directions: 0 for white noise, 1 for what is smooth."""
        values = self.content - self.content.mean()
        variance = max(float(values.var()), 1e-6)
        products = (values[1:] * values[:-1]).mean(), (values[:, 1:] * values[:, :-1]).mean()
        return float(np.mean(products)) / variance

    @cached_property
    def gradient(self) -> float:
        """Fraction of the variance that a polynomial of second degree in the coordinates explains (R squared)."""
        # By the normal equations, whose sums over a grid are products of sums over its two axes.
        powers = [np.vander(np.linspace(-1, 1, side), 5, increasing=True) for side in self.content.shape]
        (y, x), (y_sums, x_sums) = powers, [each.sum(axis=0) for each in powers]
        values = self.content - self.content.mean()
        projected = (y[:, :3].T @ values @ x[:, :3])[_TERMS]
        rows, columns = (np.add.outer(exponents, exponents) for exponents in _TERMS)
        explained = projected @ np.linalg.solve(y_sums[rows] * x_sums[columns], projected)
        return float(explained / max(float(np.square(values).sum()), 1e-6))

    @cached_property
    def stripes(self) -> float:
        """Energy of the differences along one axis over that along the other, the larger by the smaller."""
        energies = [float(np.square(np.diff(self.content, axis=axis)).mean()) for axis in (0, 1)]
        return max(energies) / max(min(energies), 1e-3)

    @cached_property
    def corner(self) -> float:
        """Median of ``normalized`` in the second darkest corner: around a head at least two are background."""
        side = max(2, round(CORNER * min(self.normalized.shape)))
        rows = self.normalized[:side], self.normalized[-side:]
        patches = np.stack([patch for row in rows for patch in (row[:, :side], row[:, -side:])])
        return float(np.sort(np.median(patches, axis=(1, 2)))[1])

    @cached_property
    def dark_edge(self) -> float:
        """Fraction of dark pixels in the outermost two rows and columns."""
        edges = self.normalized[:2], self.normalized[-2:], self.normalized[:, :2], self.normalized[:, -2:]
        return float((np.concatenate([edge.ravel() for edge in edges]) < DARK).mean())

    @cached_property
    def largest_fraction(self) -> float:
        """Fraction of the objects' area that the largest one has, holes filled; 0 without objects."""
        areas = self._objects[1]
        return float(areas.max() / areas.sum()) if areas.size else 0.0

    @cached_property
    def ellipse(self) -> float:
        """Overlap (IoU) of the largest object with the ellipse of its own moments; 0 without objects.

        An ellipse gives 1, a rectangle 0.93, letters and branches less.
        """
        if self._moments is None:
            return 0.0
        (largest, _), (y, x, covariance) = self._objects, self._moments
        inverse = np.linalg.inv(covariance + 1e-6 * np.eye(2))
        y, x = np.ix_(y, x)
        # An ellipse's points lie within two standard deviations of a filled one.
        inside = inverse[0, 0] * y * y + 2 * inverse[0, 1] * y * x + inverse[1, 1] * x * x <= 4
        return float((inside & largest).sum() / (inside | largest).sum())

    @cached_property
    def elongation(self) -> float:
        """How many times the largest object is longer than wide, by its moments; 0 without objects."""
        small, large = (1, 0) if self._moments is None else np.linalg.eigvalsh(self._moments[-1])
        return float(np.sqrt(large / max(small, 1e-3)))

    @cached_property
    def _objects(self) -> tuple[Mask, NDArray[np.int64]]:
        """The largest object, and the areas of all of them."""
        # Padded, since closing must not erode what lies at the edge.
        closed = eroded(eroded(dilated(dilated(np.pad(self.normalized > OBJECT, 4)))))[4:-4, 4:-4]
        objects = labelled(dilated(eroded(filled(closed))))
        areas = np.bincount(objects.ravel())[1:]
        return objects == 1 + (int(areas.argmax()) if areas.size else 0), areas

    @cached_property
    def _moments(self) -> tuple[Floats, Floats, Floats] | None:
        """Of the largest object: rows and columns from its center, covariance; None where there is none to measure."""
        largest, areas = self._objects
        if areas.max(initial=0) < 3:
            return None
        pixels = largest.astype(np.float64)
        rows, columns = pixels.sum(axis=1), pixels.sum(axis=0)
        y, x = (np.arange(len(each)) - np.average(np.arange(len(each)), weights=each) for each in (rows, columns))
        between = y @ pixels @ x
        return y, x, np.array([[rows @ (y * y), between], [between, columns @ (x * x)]]) / (rows.sum() - 1)


def _color(image: NDArray[np.uint8]) -> float:
    # Of whole channels, since `np.ptp` along an axis of three takes ten times as long.
    red, green, blue = np.moveaxis(image, 2, 0)
    most, least = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    return float((most - least > COLOR).mean())


def _percentiles(grey: Floats, *wanted: float) -> list[float]:
    """Percentiles of whole grey levels, as NumPy's, from their histogram."""
    below = np.bincount(grey.ravel().astype(np.uint8), minlength=256).cumsum()
    ranks = np.array(wanted) / 100 * (grey.size - 1)
    lower, upper = (np.searchsorted(below, rank, side="right") for rank in (np.floor(ranks), np.ceil(ranks)))
    return list((lower + (upper - lower) * (ranks % 1)).tolist())


def _without_frame(grey: Floats) -> Floats:
    """Cuts rows and columns at the edges as long as they are plain."""
    bright, shape = np.zeros((2, 2), bool), (0, 0)
    while grey.shape != shape:
        shape = grey.shape
        for axis in range(2):
            rows, ends = _without_plain_rows(grey)
            bright[axis] |= ends
            grey = rows.T
    # In the small copy a bright frame's last line is mixed with what it surrounds.
    for first, last in bright.astype(int):
        inner = grey[first : len(grey) - last]
        grey = (inner if len(inner) >= SMALLEST else grey).T
    return grey


def _without_plain_rows(grey: Floats) -> tuple[Floats, tuple[bool, bool]]:
    """Cuts plain rows above and below; and whether a bright one was among them."""
    found = np.flatnonzero(grey.std(axis=1) >= PLAIN)
    if not found.size or len(grey) < SMALLEST:
        return grey, (False, False)
    top = min(int(found[0]), len(grey) - SMALLEST)
    bottom = max(int(found[-1]) + 1, top + SMALLEST)
    bright = grey.mean(axis=1) > 3 * PLAIN
    return grey[top:bottom], (bool(bright[:top].any()), bool(bright[bottom:].any()))


def dilated(mask: Mask) -> Mask:
    """A mask ``[height, width]`` with the four neighbours of its pixels."""
    grown = mask.copy()
    for place, other in _NEIGHBOURS:
        grown[place] |= mask[other]
    return grown


def eroded(mask: Mask) -> Mask:
    """Those pixels of a mask all of whose four neighbours are in it."""
    shrunk = np.zeros_like(mask)
    shrunk[1:-1, 1:-1] = mask[1:-1, 1:-1]
    for place, other in _NEIGHBOURS:
        shrunk[place] &= mask[other]
    return shrunk


def filled(mask: Mask) -> Mask:
    """A mask with its holes: what no path leads to from outside."""
    # Around the padding, the outside is one region, and the first.
    return (labelled(~np.pad(mask, 1)) != 1)[1:-1, 1:-1]


def labelled(mask: Mask) -> NDArray[np.int64]:
    """Numbers the regions of a mask from 1, in the order of their first pixels; 0 is outside.

    Runs of adjoining pixels in a row are joined where those of neighbouring rows overlap (Rosenfeld and Pfaltz,
    "Sequential Operations in Digital Image Processing", J. ACM 1966).
    """
    # With a column of nothing at the end, no run goes on into the next row.
    width = mask.shape[1] + 1
    steps = np.diff(np.pad(mask, ((0, 0), (0, 1))).ravel().astype(np.int8), prepend=0)
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    # Of the runs one row below each run, those that overlap it.
    first = np.searchsorted(ends, starts + width, side="right")
    counts = np.maximum(np.searchsorted(starts, ends + width, side="left") - first, 0)
    above = np.repeat(np.arange(len(starts)), counts)
    below = np.arange(len(above)) + np.repeat(first - counts.cumsum() + counts, counts)
    joined = _joined(len(starts), above, below)
    numbers = (joined == np.arange(len(starts))).cumsum()[joined]
    labels = np.zeros(mask.shape, np.int64)
    labels[mask] = np.repeat(numbers, ends - starts)
    return labels


def _joined(count: int, one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of ``count`` things that are joined in pairs, the first of those that each hangs together with."""
    firsts = np.arange(count)
    while (different := firsts[one] != firsts[other]).any():
        one, other = one[different], other[different]
        pairs = firsts[one], firsts[other]
        np.minimum.at(firsts, np.maximum(*pairs), np.minimum(*pairs))
        while (further := firsts[firsts] != firsts).any():
            firsts = np.where(further, firsts[firsts], firsts)
    return firsts


# Reason and condition, in this order, since later features mean little on what earlier rules reject. The comments give
# the lowest or highest value on the real slices.
RULES: tuple[tuple[str, Callable[[SliceFeatures], bool]], ...] = (
    ("it is nearly black", lambda image: image.brightest < 20),  # 85
    ("it is blank: one grey level or colour", lambda image: image.contrast < 12),  # 85
    ("it has only a few grey levels, as drawings and codes have", lambda image: image.grey_levels < 24),  # 129
    ("it is in colour", lambda image: image.color > 0.15),  # 0.039
    ("it is noise: neighbouring pixels are not alike", lambda image: image.autocorrelation < 0.35),  # 0.46
    ("it is a smooth gradient without structure", lambda image: image.gradient > 0.9),  # 0.75
    ("it consists of stripes or of lines in one direction", lambda image: image.stripes > 4),  # 2.6
    # Corners reach 0.14, dark edges fall to 0.46.
    ("its background is bright: inverted, or a document", lambda image: image.corner > 0.7 and image.dark_edge < 0.4),
    ("no dark background surrounds a head", lambda image: image.corner > 0.2 and image.dark_edge < 0.5),
    ("no dark background surrounds a head", lambda image: image.dark_edge < 0.28),
    ("it shows several things instead of one head", lambda image: image.largest_fraction < 0.7),  # 0.88
    # Ellipses fall to 0.70, elongations reach 2.1.
    ("nothing in it has the outline of a head", lambda image: image.ellipse < 0.65 or image.elongation > 2.5),
)


def rejection_reason(image: NDArray[np.uint8]) -> str | None:
    """Says why an image is no brain MRI slice.

    Args:
        image: uint8 ``[height, width]`` or ``[height, width, 1 or 3]``, of any size, as it was decoded: before any
            resizing, harmonizing or change to grey.

    Returns:
        The reason, or None if it may be a slice.
    """
    features = SliceFeatures(image)
    return next((reason for reason, rejects in RULES if rejects(features)), None)
