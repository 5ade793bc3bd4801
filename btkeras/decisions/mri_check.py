"""The input guard: says of an image, before any network sees it, why it is no brain MRI slice.

A classifier gives one of its classes to whatever it is shown. The guard refuses what is plainly something else, by a
few measures that can be explained (``guard_measures``), and lets the rest pass: what is no slice and looks like one is
left to the out-of-distribution score (``btkeras.decisions.ood``).

Quantiles on 4,564 real slices (FigShare's T1 with contrast in three views; Br35H's T1, T2 and FLAIR from the web), of
which none is refused, beside the limits. These are generous, for other collections look different:

| measure | refused | lowest | 0.1 % | 0.5 % | median | 99.5 % | 99.9 % | highest |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| brightest | < 20 | 85 | 94 | 108 | 185 | 255 | 255 | 255 |
| contrast | < 12 | 85 | 94 | 108 | 185 | 255 | 255 | 255 |
| levels | < 24 | 129 | 139 | 172 | 251 | 256 | 256 | 256 |
| colour | > 0.15 | 0 | 0 | 0 | 0 | 0.003 | 0.039 | 0.039 |
| likeness | < 0.35 | 0.46 | 0.48 | 0.53 | 0.86 | 0.96 | 0.97 | 0.97 |
| ramp | > 0.9 | 0.03 | 0.03 | 0.05 | 0.22 | 0.64 | 0.72 | 0.75 |
| stripes | > 4 | 1.0 | 1.0 | 1.0 | 1.3 | 2.1 | 2.3 | 2.6 |
| corner | > 0.2, and dark_edge < 0.5 | 0 | 0 | 0 | 0.006 | 0.07 | 0.12 | 0.14 |
| dark_edge | < 0.28 | 0.46 | 0.48 | 0.48 | 0.84 | 0.97 | 0.99 | 1.00 |
| main | < 0.7 | 0.88 | 0.93 | 0.98 | 1 | 1 | 1 | 1 |
| ellipse | < 0.65 | 0.70 | 0.78 | 0.83 | 0.95 | 0.99 | 0.99 | 0.99 |
| longer | > 2.5 | 1.0 | 1.0 | 1.0 | 1.2 | 1.6 | 1.7 | 2.1 |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Mask = NDArray[np.bool_]


def dilated(mask: Mask) -> Mask:
    """A mask ``[height, width]`` with the neighbours of its pixels."""
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown


def eroded(mask: Mask) -> Mask:
    """Those pixels of a mask all of whose four neighbours are in it."""
    padded = np.pad(mask, 1)
    return mask & padded[2:, 1:-1] & padded[:-2, 1:-1] & padded[1:-1, 2:] & padded[1:-1, :-2]


def filled(mask: Mask) -> Mask:
    """A mask with its holes: what no path leads to from outside."""
    # Around the padding, the outside is one region, and the first.
    return (labelled(~np.pad(mask, 1)) != 1)[1:-1, 1:-1]


def labelled(mask: Mask) -> NDArray[np.int64]:
    """Numbers the regions of a mask from 1, in the order of their first pixels; 0 is outside.

    Pixels of a row that adjoin are a run; runs of neighbouring rows that overlap are joined (Rosenfeld and Pfaltz,
    "Sequential Operations in Digital Image Processing", J. ACM 1966).
    """
    # With a column of nothing at the end, no run goes on into the next row.
    width = mask.shape[1] + 1
    steps = np.diff(np.pad(mask, ((0, 0), (0, 1))).ravel().astype(np.int8), prepend=0)
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    # Of the runs below each one, those that overlap it.
    first = np.searchsorted(ends, starts + width, side="right").tolist()
    behind = np.searchsorted(starts, ends + width, side="left").tolist()
    parents = list(range(len(starts)))
    for run, (low, high) in enumerate(zip(first, behind, strict=True)):
        for other in range(low, high):
            ours, theirs = _root(parents, run), _root(parents, other)
            # The earlier one leads, so that the order is that of first pixels.
            parents[max(ours, theirs)] = min(ours, theirs)
    roots = [_root(parents, run) for run in range(len(parents))]
    numbers = 1 + np.unique(np.array(roots, np.int64), return_inverse=True)[1]
    labels = np.zeros(mask.shape, np.int64)
    labels[mask] = np.repeat(numbers, ends - starts)
    return labels


def _root(parents: list[int], run: int) -> int:
    while parents[run] != run:
        parents[run] = run = parents[parents[run]]
    return run


Floats = NDArray[np.floating]

# Longest side of the small copy: a head's outline and its larger structures remain, and text becomes lines.
SIDE = 128
# Fewer rows or columns cannot be measured.
SMALLEST = 8
# Standard deviation, grey levels, up to which a row or column at the edge is plain (JPEG and faint noise included).
PLAIN = 6.0
# Channels that differ by more, grey levels, are a colour; JPEG tints grey by up to about 20.
COLOUR = 40
# On the scale of `normal`: dark, and what is brighter than the background.
DARK, OBJECT = 0.2, 0.12
# Sides of the patches in the corners, as a share of the shorter side.
CORNER = 0.08


class SliceFeatures:
    """The measures of one image.

    Args:
        image: uint8 ``[height, width]`` or ``[height, width, 1 or 3]``.
    """

    def __init__(self, image: NDArray[np.uint8]) -> None:
        pixels = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
        whole = Image.fromarray(np.ascontiguousarray(pixels))
        scale = min(1.0, SIDE / max(whole.size))
        size = max(SMALLEST, round(whole.width * scale)), max(SMALLEST, round(whole.height * scale))
        self._grey_whole = whole.convert("L")
        small = whole.resize(size, Image.Resampling.BOX)
        self._rgb = np.asarray(small, np.int16) if small.mode == "RGB" else None
        self.grey: Floats = np.asarray(small.convert("L"), np.float32)

    @cached_property
    def levels(self) -> int:
        """Number of different grey levels in the whole image."""
        return int(np.count_nonzero(self._grey_whole.histogram()))

    @cached_property
    def color(self) -> float:
        """Share of pixels that are clearly coloured."""
        if self._rgb is None:
            return 0.0
        red, green, blue = np.moveaxis(self._rgb, -1, 0)
        spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
        return float((spread > COLOUR).mean())

    @cached_property
    def brightest(self) -> float:
        """99.5th percentile, grey levels."""
        return float(np.percentile(self.grey, 99.5))

    @cached_property
    def contrast(self) -> float:
        """Distance of the 99.5th from the 0.5th percentile, grey levels."""
        return self.brightest - float(np.percentile(self.grey, 0.5))

    @cached_property
    def inside(self) -> Floats:
        """The grey copy without plain rows and columns at its edges: frames, margins, background around a head."""
        return _without_frame(self.grey)

    @cached_property
    def normal(self) -> Floats:
        """``inside`` with its 1st..99th percentile as 0..1, clipped."""
        low, high = np.percentile(self.inside, [1, 99])
        return np.clip((self.inside - low) / max(high - low, 1.0), 0, 1)

    @cached_property
    def likeness(self) -> float:
        """Correlation of neighbouring pixels, mean of both directions: 0 for white noise, 1 for what is smooth."""
        values = self.inside - self.inside.mean()
        variance = max(float(values.var()), 1e-6)
        products = (values[1:] * values[:-1]).mean(), (values[:, 1:] * values[:, :-1]).mean()
        return float(np.mean(products)) / variance

    @cached_property
    def ramp(self) -> float:
        """Share of the variance that a polynomial of second degree in the coordinates explains (R squared)."""
        height, width = self.inside.shape
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1).reshape(-1, 6)
        values = self.inside.ravel() - self.inside.mean()
        # By the normal equations: six well-behaved terms need no decomposition of all pixels.
        explained = terms.T @ values
        explained = explained @ np.linalg.solve(terms.T @ terms, explained)
        return float(explained / max(values @ values, 1e-6))

    @cached_property
    def stripes(self) -> float:
        """Energy of the differences along one axis over that along the other, the larger by the smaller."""
        energies = [float(np.square(np.diff(self.inside, axis=axis)).mean()) for axis in (0, 1)]
        return max(energies) / max(min(energies), 1e-3)

    @cached_property
    def corner(self) -> float:
        """Median of ``normal`` in the second darkest corner: around a head at least two are background."""
        side = max(2, round(CORNER * min(self.normal.shape)))
        rows = self.normal[:side], self.normal[-side:]
        corners = [np.median(part) for row in rows for part in (row[:, :side], row[:, -side:])]
        return float(np.sort(corners)[1])

    @cached_property
    def dark_edge(self) -> float:
        """Share of dark pixels in the outermost two rows and columns."""
        edges = self.normal[:2], self.normal[-2:], self.normal[:, :2], self.normal[:, -2:]
        return float((np.concatenate([edge.ravel() for edge in edges]) < DARK).mean())

    @cached_property
    def main(self) -> float:
        """Share of everything brighter than the background that the largest object has, holes filled; 0 if none."""
        areas = self._areas
        return float(areas.max() / areas.sum()) if areas.size else 0.0

    @cached_property
    def ellipse(self) -> float:
        """Overlap (IoU) of the largest object with the ellipse of its own moments; 0 if there is none.

        An ellipse gives 1, a rectangle 0.93, a head 0.7 to 0.99, letters and branches less.
        """
        rows, columns = np.nonzero(self._largest)
        if len(rows) < 3:
            return 0.0
        spread = np.cov(np.stack([rows, columns])) + 1e-6 * np.eye(2)
        y, x = np.indices(self._largest.shape)
        offsets = np.stack([y - rows.mean(), x - columns.mean()], axis=-1)
        # An ellipse's points lie within two standard deviations of a filled one.
        inside = np.einsum("...i,ij,...j", offsets, np.linalg.inv(spread), offsets) <= 4
        return float((inside & self._largest).sum() / (inside | self._largest).sum())

    @cached_property
    def longer(self) -> float:
        """How many times the largest object is longer than wide, by its moments; 0 if there is none."""
        rows, columns = np.nonzero(self._largest)
        if len(rows) < 3:
            return 0.0
        small, large = np.linalg.eigvalsh(np.cov(np.stack([rows, columns])))
        return float(np.sqrt(large / max(small, 1e-3)))

    @cached_property
    def _objects(self) -> NDArray[np.integer]:
        # Padded, since closing must not erode what lies at the edge.
        closed = eroded(eroded(dilated(dilated(np.pad(self.normal > OBJECT, 4)))))[4:-4, 4:-4]
        return labelled(dilated(eroded(filled(closed))))

    @cached_property
    def _areas(self) -> NDArray[np.integer]:
        return np.bincount(self._objects.ravel())[1:]

    @cached_property
    def _largest(self) -> NDArray[np.bool_]:
        number = 1 + int(self._areas.argmax()) if self._areas.size else -1
        return self._objects == number


def _without_frame(grey: Floats) -> Floats:
    frame = {0: False, 1: False, 2: False, 3: False}
    while min(grey.shape) > SMALLEST:
        edges = (grey[0], grey[-1], grey[:, 0], grey[:, -1])
        plainest = int(np.argmin([edge.std() for edge in edges]))
        if edges[plainest].std() >= PLAIN:
            break
        frame[plainest] |= edges[plainest].mean() > 3 * PLAIN
        grey = _cut(grey, plainest)
    # In the small copy a bright frame's last line is mixed with what it surrounds.
    for side, bright in frame.items():
        if bright and min(grey.shape) > SMALLEST:
            grey = _cut(grey, side)
    return grey


def _cut(grey: Floats, side: int) -> Floats:
    """Without its first row, last row, first column or last column."""
    return (grey[1:], grey[:-1], grey[:, 1:], grey[:, :-1])[side]


@dataclass(frozen=True)
class Rule:
    """Attributes:
    reason: Why an image is refused, in plain words.
    refuses: Whether it is, by the image's measures.
    """

    reason: str
    refuses: Callable[[SliceFeatures], bool]


# In this order, since the later measures mean little on what the earlier rules refuse.
RULES = (
    Rule("it is nearly black", lambda look: look.brightest < 20),
    Rule("it is blank: one grey level or colour", lambda look: look.contrast < 12),
    Rule("it has only a few grey levels, as drawings and codes have", lambda look: look.levels < 24),
    Rule("it is in colour", lambda look: look.color > 0.15),
    Rule("it is noise: neighbouring pixels are not alike", lambda look: look.likeness < 0.35),
    Rule("it is a smooth gradient without structure", lambda look: look.ramp > 0.9),
    Rule("it consists of stripes or of lines in one direction", lambda look: look.stripes > 4),
    Rule("its background is bright: inverted, or a document", lambda look: look.corner > 0.7 and look.dark_edge < 0.4),
    Rule("no dark background surrounds a head", lambda look: look.corner > 0.2 and look.dark_edge < 0.5),
    Rule("no dark background surrounds a head", lambda look: look.dark_edge < 0.28),
    Rule("it shows several things instead of one head", lambda look: look.main < 0.7),
    Rule("nothing in it has the outline of a head", lambda look: look.ellipse < 0.65 or look.longer > 2.5),
)


def rejection_reason(image: NDArray[np.uint8]) -> str | None:
    """Says why an image is no brain MRI slice.

    Args:
        image: uint8 ``[height, width]`` or ``[height, width, 1 or 3]``, of any size, as it was decoded: before any
            resizing, harmonizing or change to grey.

    Returns:
        The reason in plain words, or None if it may be a slice.
    """
    look = SliceFeatures(image)
    return next((rule.reason for rule in RULES if rule.refuses(look)), None)
