"""Connected regions of small masks, as ``scipy.ndimage`` finds them: its import alone takes longer than an answer.

Pixels are neighbours if they share an edge; outside a mask, nothing is set.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
    "Sequential Operations in Digital Picture Processing", J. ACM 1966).
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
