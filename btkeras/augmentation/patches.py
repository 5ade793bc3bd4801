"""Patches that slices lend each other: which slice fits where, found once before a training.

A patch fits where two heads look alike around it: the same plane, the same place, much the same scan. So a tumour can
be covered by tissue, which gives tumour-free slices of every plane and scanner that the tumours have; a tumour can be
put into another head, so that the scanner does not tell the class; and, since the edge of a patch would tell it again,
tissue can be replaced by tissue. ``btkeras.augmentation.lesion_cutmix`` applies them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Heads are compared as square roots of thumbnails of this side, the brightness of scalp and vessels counting less.
SIDE = 24
# Half axes of a box's ellipse up to which nothing is compared, up to which the surroundings lie (of a box that is
# enlarged by _MARGIN, for the smallest have no surroundings at this size), and what these weigh against the rest.
_INNER, _OUTER, _MARGIN, _WEIGHT = 1.3, 1.9, 0.06, 6.0
# Tissue keeps its own tumour off the patch by this part of its sides; a covered tumour may exceed it by that much.
_CLEAR, _COVERED = 0.18, 0.1
# Least correlation of surroundings that are tissue of the same kind, and of those that need only look alike.
_TISSUE, _ALIKE = 0.5, 0.4
# Tissue that may cover a tumour, and heads that may receive it: without tumour, and with one of another class.
_CONTEXTS, _HEADS, _COVERED_HEADS = 12, 16, 8
_CHUNK = 256

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


class PatchKind(IntEnum):
    """What a patch brings: tissue in place of tissue, tissue in place of a tumour, or a tumour."""

    BACKGROUND = 0
    REMOVAL = 1
    LESION = 2


class Patches(NamedTuple):
    """Rows of patches; those of kind ``k`` for image ``i`` are ``counts[k, i]`` rows from ``starts[k, i]`` on.

    Attributes:
        starts: int32 ``[kinds, images]``.
        counts: int32 ``[kinds, images]``.
        sources: int32 ``[rows]``, the image that lends the patch.
        mirrored: bool ``[rows]``, whether it is mirrored left to right for that.
        boxes: float32 ``[rows, 4]``: top, left, bottom, right as fractions of the image that gets the patch.
        labels: int32 ``[rows]``, the class that the image has then.
    """

    starts: Ints
    counts: Ints
    sources: Ints
    mirrored: NDArray[np.bool_]
    boxes: Floats
    labels: Ints


@dataclass(frozen=True)
class SlicesToPatch:
    """The slices that patches are found in.

    Attributes:
        thumbnails: float32 ``[n, SIDE, SIDE]`` in 0..255.
        boxes: float32 ``[n, 4]``, of tumours as fractions; all 0 where no box is known.
        labels: int ``[n]``, class indices.
        no_tumor: The class index of slices without tumour.
        exchanged: Class indices of tumours that may cover each other.
    """

    thumbnails: Floats
    boxes: Floats
    labels: NDArray[np.integer]
    no_tumor: int
    exchanged: tuple[int, ...]


class _Row(NamedTuple):
    kind: PatchKind
    base: int
    source: int
    mirrored: bool
    box: Floats
    label: int


def find_patches(slices: SlicesToPatch) -> Patches:
    """Finds the patches of each slice; a slice that none fits has none.

    Every slice is compared with every one that has a tumour's box, as it is and mirrored, by the weighted correlation
    of their thumbnails outside of the box. The time grows with the square of their number: 3 s for 3,000 slices.
    """
    lesions = np.flatnonzero(slices.boxes.any(axis=1) & (slices.labels != slices.no_tumor))
    chunks = (lesions[start : start + _CHUNK] for start in range(0, len(lesions), _CHUNK))
    rows = [row for chunk in chunks for row in _rows_of(slices, chunk)]
    return _table(sorted(rows, key=lambda row: (row.kind, row.base)), len(slices.labels))


def _ellipses(boxes: Floats, side: int, reach: float, fade: float) -> Floats:
    """Ellipses in boxes, ``reach`` half axes wide: ``[n, side, side]``, 1 inside and 0 after ``fade`` of them."""
    places = (np.arange(side, dtype=np.float32) + 0.5) / side
    top, left, bottom, right = boxes.T[..., None]
    down = (places - (top + bottom) / 2) / np.maximum((bottom - top) / 2, 1e-3)
    across = (places - (left + right) / 2) / np.maximum((right - left) / 2, 1e-3)
    distance = np.sqrt(down[:, :, None] ** 2 + across[:, None, :] ** 2)
    return np.clip((reach - distance) / fade, 0, 1)


def _rows_of(slices: SlicesToPatch, lesions: NDArray[np.integer]) -> Iterator[_Row]:
    """The rows that these lesions give."""
    free, labels, count = slices.labels == slices.no_tumor, np.tile(slices.labels, 2), len(slices.labels)
    boxes = np.concatenate([slices.boxes, _mirrored(slices.boxes)])
    known = np.tile(free | slices.boxes.any(axis=1), 2)
    # Rounded, so that another machine's sums choose the same.
    alike = np.round(_correlations(slices, lesions), 3)
    for lesion, found in zip(lesions, alike.T, strict=True):
        box, label = slices.boxes[lesion], int(slices.labels[lesion])
        clear = known & (np.tile(free, 2) | ~_touching(boxes, box))
        contexts = _best(np.where(clear, found, -1), _TISSUE, _CONTEXTS)
        heads = _best(np.where(np.tile(free, 2), found, -1), _ALIKE, _HEADS)
        other = known & (labels != label) & np.isin(labels, slices.exchanged) & _inside(boxes, box)
        other &= label in slices.exchanged
        covered = _best(np.where(other, found, -1), _ALIKE, _COVERED_HEADS)
        for place in contexts:
            yield _Row(PatchKind.REMOVAL, int(lesion), int(place % count), bool(place >= count), box, slices.no_tumor)
        for place in (*heads, *covered):
            yield _row(PatchKind.LESION, slices, place, int(lesion), box, label)
        for places in (contexts, heads):
            for place, source in zip(places, np.roll(places, -1), strict=True):
                if place % count != source % count:
                    yield _row(PatchKind.BACKGROUND, slices, place, source, box, int(slices.labels[place % count]))


def _row(kind: PatchKind, slices: SlicesToPatch, place: int, source: int, box: Floats, label: int) -> _Row:
    """A row of the slice at ``place``; both places count the mirrored slices behind the others."""
    count = len(slices.labels)
    mirrored = bool(place >= count)
    own = _mirrored(box[None])[0] if mirrored else box
    return _Row(kind, int(place % count), int(source % count), mirrored != bool(source >= count), own, label)


def _correlations(slices: SlicesToPatch, lesions: NDArray[np.integer]) -> Floats:
    """Correlations ``[2 n, lesions]`` of slices, and of mirrored ones, with those that have lesions, without these."""
    heads = np.sqrt(slices.thumbnails)
    pixels = np.concatenate([heads, heads[:, :, ::-1]]).reshape(2 * len(heads), -1)
    boxes = slices.boxes[lesions]
    around = _ellipses(boxes + _MARGIN * np.array([-1, -1, 1, 1], np.float32), SIDE, _OUTER, 0.4)
    weights = ((1 + _WEIGHT * around) * (1 - _ellipses(boxes, SIDE, _INNER, 0.2))).reshape(len(boxes), -1)
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-6)
    wanted = heads[lesions].reshape(len(boxes), -1)
    wanted = wanted - (weights * wanted).sum(axis=1, keepdims=True)
    variances = (pixels**2) @ weights.T - (pixels @ weights.T) ** 2
    own = (weights * wanted**2).sum(axis=1)
    result: Floats = pixels @ (weights * wanted).T / np.sqrt(np.maximum(variances, 1e-3) * np.maximum(own, 1e-3))
    return result


def _best(correlations: Floats, least: float, most: int) -> NDArray[np.intp]:
    order = np.argsort(-correlations, kind="stable")[:most]
    return order[correlations[order] >= least]


def _mirrored(boxes: Floats) -> Floats:
    top, left, bottom, right = boxes.T
    known = boxes.any(axis=1, keepdims=True)
    return np.where(known, np.stack([top, 1 - right, bottom, 1 - left], axis=1), 0).astype(np.float32)


def _touching(boxes: Floats, box: Floats) -> NDArray[np.bool_]:
    top, left, bottom, right = _enlarged(box, _CLEAR)
    touching: NDArray[np.bool_] = (
        (boxes[:, 0] < bottom) & (boxes[:, 2] > top) & (boxes[:, 1] < right) & (boxes[:, 3] > left)
    )
    return touching


def _inside(boxes: Floats, box: Floats) -> NDArray[np.bool_]:
    top, left, bottom, right = _enlarged(box, _COVERED)
    inside: NDArray[np.bool_] = (
        (boxes[:, 0] >= top) & (boxes[:, 2] <= bottom) & (boxes[:, 1] >= left) & (boxes[:, 3] <= right)
    )
    return inside


def _enlarged(box: Floats, part: float) -> Floats:
    height, width = box[2] - box[0], box[3] - box[1]
    return box + part * np.array([-height, -width, height, width], np.float32)


def _table(rows: list[_Row], images: int) -> Patches:
    starts, counts = np.zeros((2, len(PatchKind), images), np.int32)
    for number, row in enumerate(rows):
        if not counts[row.kind, row.base]:
            starts[row.kind, row.base] = number
        counts[row.kind, row.base] += 1
    return Patches(
        starts,
        counts,
        np.array([row.source for row in rows], np.int32),
        np.array([row.mirrored for row in rows], bool),
        np.array([row.box for row in rows], np.float32).reshape(-1, 4),
        np.array([row.label for row in rows], np.int32),
    )
