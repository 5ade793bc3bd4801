"""What the input guard measures on a picture: NumPy on a small copy, each figure when it is asked for."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from btkeras.data.regions import dilated, eroded, filled, labelled

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


class Look:
    """The measures of one picture.

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
        """Number of different grey levels in the whole picture."""
        return int(np.count_nonzero(self._grey_whole.histogram()))

    @cached_property
    def colour(self) -> float:
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
