"""Whole groups dealt into parts of given sizes, class by class.

scikit-learn's ``StratifiedGroupKFold`` does the same for parts of equal size; here a training, a validation and a test
part differ. Its rule, to give each group to the part that is then most even, would in that case put the largest groups
into the training part always, and the test part would hold patients with few slices only. So a group's part is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from btkeras.data.records import Record

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

_SWEEPS = 20


def part_size(count: int, fraction: float) -> int:
    """Part of a class's pictures, rounded down."""
    # The small number keeps 0.2 * 5, a hair below 1 in binary for some fractions, from losing a picture.
    return math.floor(count * fraction + 1e-9)


def deal_records(
    records: Sequence[Record],
    groups: Mapping[str, str],
    sizes: Mapping[str, Sequence[float]],
    rng: np.random.Generator,
    least: int = 1,
) -> list[list[Record]]:
    """Deals records into parts, no group into two.

    The sizes are met as closely as whole groups allow: exactly where enough pictures stand alone, and with a group
    that is larger than a part, that part is larger too.

    Args:
        records: What is dealt.
        groups: Group by path; a record without one stands alone.
        sizes: By class, how many pictures each part should get.
        rng: What draws.
        least: Groups of each class that each part gets, if there are as many.

    Returns:
        The records of each part.
    """
    classes = sorted({record.label for record in records})
    members: dict[tuple[str, bool], list[Record]] = {}
    for record in sorted(records, key=lambda record: record.path):
        # The second part keeps a group's name from being taken for a path.
        named = record.path in groups
        members.setdefault((groups[record.path] if named else record.path, named), []).append(record)
    hands = list(members.values())
    counts = np.array([[sum(r.label == label for r in hand) for label in classes] for hand in hands], np.int64)
    targets = np.array([sizes[label] for label in classes], np.float64).T
    parts = deal_groups(counts, targets, rng, least)
    dealt = [
        [record for hand, own in zip(hands, parts, strict=True) if own == part for record in hand]
        for part in range(len(targets))
    ]
    return dealt


def deal_groups(counts: IntArray, targets: FloatArray, rng: np.random.Generator, least: int = 1) -> IntArray:
    """Deals groups into parts: the largest first, each drawn with the chances of what the parts still need.

    Then groups move to other parts as long as the sizes become more even by it, by the sum of squared differences over
    the wanted sizes (chi-square). Each part gets ``least`` groups of a class that has enough, if groups hold one class.

    Args:
        counts: ``[groups, classes]`` pictures.
        targets: ``[parts, classes]`` pictures wanted, above 0.
        rng: What draws.
        least: Groups of each class that each part should get.

    Returns:
        ``[groups]`` numbers of parts.
    """
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    have, held, parts = np.zeros_like(targets), np.zeros(targets.shape, np.int64), np.zeros(len(counts), np.int64)
    waiting = (counts > 0).sum(axis=0)
    for group in order:
        own = counts[group]
        lacking = np.clip(least - held, 0, None)
        # Classes whose groups are all needed by the parts that have too few of them yet.
        urgent = (own > 0) & (waiting <= lacking.sum(axis=0))
        allowed = np.asarray((lacking[:, urgent] > 0).any(axis=1) | (not urgent.any()), np.bool_)
        part = parts[group] = _draw(own, have, targets, allowed, rng)
        have[part] += own
        held[part] += own > 0
        waiting -= own > 0
    _even_out(counts, targets, parts, order[::-1], least)
    return parts


def _draw(
    own: IntArray, have: FloatArray, targets: FloatArray, allowed: NDArray[np.bool_], rng: np.random.Generator
) -> int:
    present = own > 0
    need = (targets - have)[:, present]
    fits = allowed & (need >= own[present]).all(axis=1)
    if fits.any():
        chances = need.sum(axis=1) * fits
        return int(rng.choice(len(targets), p=chances / chances.sum()))
    return int(np.where(allowed, _cost(own, have, targets), np.inf).argmin())


def _cost(own: IntArray, have: FloatArray, targets: FloatArray) -> FloatArray:
    """By how much chi-square grows when a group joins each part: ``[parts]``."""
    grown: FloatArray = (own * (2 * (have - targets) + own) / targets).sum(axis=1)
    return grown


def _even_out(counts: IntArray, targets: FloatArray, parts: IntArray, order: IntArray, least: int) -> None:
    """Moves groups between parts, in place."""
    have = np.stack([counts[parts == part].sum(axis=0) for part in range(len(targets))]).astype(np.float64)
    held = np.stack([(counts[parts == part] > 0).sum(axis=0) for part in range(len(targets))])
    for _ in range(_SWEEPS):
        moved = False
        for group in order:
            own, part = counts[group], parts[group]
            if (held[part][own > 0] <= least).any():
                continue
            have[part] -= own
            cost = _cost(own, have, targets)
            best = int(cost.argmin())
            if cost[best] < cost[part] - 1e-9:
                held[part] -= own > 0
                held[best] += own > 0
                parts[group], moved = best, True
            have[parts[group]] += own
        if not moved:
            return
