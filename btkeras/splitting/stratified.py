"""Stratified splits of records: image by image, by whole groups, and by the folds that FigShare's authors published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from btkeras.datasets.dataset import Record
from btkeras.errors import DataError
from btkeras.logging import logger
from btkeras.splitting.published import warn_divided

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

_SWEEPS = 20
_TOLERANCE = 0.2  # a subset's images of a class may differ by this from what was wanted before it is logged


def by_path(records: Collection[Record]) -> list[Record]:
    """The records, sorted by path."""
    return sorted(records, key=lambda record: record.path)


def split_images(
    records: Sequence[Record], sizes: Mapping[str, Sequence[int]], rng: np.random.Generator
) -> list[list[Record]]:
    """Splits each class at random, image by image; ``sizes`` has each subset's by class."""
    subsets: list[list[Record]] = [[] for _ in next(iter(sizes.values()))]
    for label, members in _by_class(records).items():
        order = rng.permutation(len(members))
        for subset, chosen in zip(subsets, np.split(order, np.cumsum(sizes[label])[:-1]), strict=True):
            subset += [members[i] for i in chosen]
    return subsets


def image_folds(records: Sequence[Record], count: int, seed: int) -> list[list[Record]]:
    """Splits image by image into folds: neither a class nor the whole differs by more than one between folds."""
    rng, position = np.random.default_rng(seed), 0
    folds: list[list[Record]] = [[] for _ in range(count)]
    for label, members in _by_class(records).items():
        if len(members) < count:
            raise DataError(
                "Each class must have at least as many images as there are folds",
                received=f"{len(members)} of {label} for {count} folds",
                remedy="Add images, or lower cv.folds",
            )
        # A class goes on at the fold after the last one's end.
        for i in rng.permutation(len(members)):
            folds[position % count].append(members[i])
            position += 1
    return folds


def _by_class(records: Sequence[Record]) -> dict[str, list[Record]]:
    labels = sorted({record.label for record in records})
    return {label: by_path([record for record in records if record.label == label]) for label in labels}


def group_folds(records: Sequence[Record], groups: Mapping[str, str], count: int, seed: int) -> list[list[Record]]:
    """Splits whole groups into folds of equal sizes, class by class, as closely as groups allow."""
    sizes = _even_sizes(records, count)
    # Of two folds, each has to give a training and a validation subset while the other is tested.
    folds = split_records(records, groups, sizes, np.random.default_rng(seed), least=2 if count == 2 else 1)
    check_subsets(folds, sizes, [f"fold {fold}" for fold in range(count)])
    return folds


def official_folds(records: Sequence[Record], groups: Mapping[str, str], seed: int) -> list[list[Record]]:
    """The folds of FigShare's authors (``cvind.mat``, doi 10.6084/m9.figshare.1512427), in their order.

    Patients whom they divide are logged. Images without a fold, such as a tumour-free class of another collection, are
    split by whole groups; one whose group has a fold goes there. Raises ``DataError`` if an ``official_fold`` is no
    number from 1 on, or a fold lacks a class.
    """
    fold_of = {record.path: _official_fold(record) for record in records if record.extra.get("official_fold")}
    count = max(fold_of.values())
    fold_of_group = {groups[path]: fold for path, fold in fold_of.items() if path in groups}
    warn_divided(records)
    folds: list[list[Record]] = [[] for _ in range(count)]
    rest: list[Record] = []
    for record in records:
        fold = fold_of.get(record.path) or fold_of_group.get(groups.get(record.path, ""))
        (folds[fold - 1] if fold else rest).append(record)
    if rest:
        added = split_records(rest, groups, _even_sizes(rest, count), np.random.default_rng(seed))
        folds = [fold + more for fold, more in zip(folds, added, strict=True)]
    check_subsets(folds, _even_sizes(records, count), [f"official fold {fold + 1}" for fold in range(count)])
    return folds


def _official_fold(record: Record) -> int:
    text = record.extra["official_fold"]
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise DataError("An official_fold must be a number from 1 on", received=f"{text!r} of {record.path}")
    return int(text)


def _even_sizes(records: Sequence[Record], count: int) -> dict[str, list[float]]:
    return {label: [number / count] * count for label, number in Counter(record.label for record in records).items()}


def check_subsets(
    subsets: Sequence[Sequence[Record]], sizes: Mapping[str, Sequence[float]], names: Sequence[str]
) -> None:
    """Raises ``DataError`` if a subset lacks a class, and logs where its size is far from the one wanted."""
    for number, name in enumerate(names):
        counts = Counter(record.label for record in subsets[number])
        for label, wanted in sizes.items():
            if not counts[label]:
                raise DataError(
                    "Each class must have enough groups for every subset of a split",
                    received=f"no {label} left for {name}, where {wanted[number]:.0f} were wanted",
                    remedy="Add images of other patients, lower cv.folds, or change data.group_by",
                )
            if abs(counts[label] - wanted[number]) > max(1, _TOLERANCE * wanted[number]):
                logger.info(
                    f"{name} has {counts[label]} images of {label} where {wanted[number]:.0f} were wanted: "
                    "whole groups fit no better"
                )


def split_records(
    records: Sequence[Record],
    groups: Mapping[str, str],
    sizes: Mapping[str, Sequence[float]],
    rng: np.random.Generator,
    least: int = 1,
) -> list[list[Record]]:
    """Splits records into subsets, no group into two; a record without a group (by path) stands alone.

    ``sizes`` says how many images of a class each subset should get, and is met as closely as whole groups allow. Each
    subset gets ``least`` groups of each class, if there are as many.
    """
    classes = sorted({record.label for record in records})
    members: dict[tuple[str, bool], list[Record]] = {}
    for record in by_path(records):
        # The second part of the key keeps a group's name from being taken for a path.
        grouped = record.path in groups
        members.setdefault((groups[record.path] if grouped else record.path, grouped), []).append(record)
    units = list(members.values())
    counts = np.array([[sum(r.label == label for r in unit) for label in classes] for unit in units], np.int64)
    targets = np.array([sizes[label] for label in classes], np.float64).T
    subset_of = split_groups(counts, targets, rng, least)
    return [
        [record for unit, own in zip(units, subset_of, strict=True) if own == subset for record in unit]
        for subset in range(len(targets))
    ]


def split_groups(counts: IntArray, targets: FloatArray, rng: np.random.Generator, least: int = 1) -> IntArray:
    """Assigns groups to subsets: the largest first, each drawn in proportion to what the subsets still need.

    Then groups move to other subsets as long as the sizes become more even by it (chi-square). Each subset gets
    ``least`` groups of a class that has enough, if groups hold one class each.

    Args:
        counts: ``[groups, classes]`` images.
        targets: ``[subsets, classes]`` images wanted, above 0.
        rng: Source of the draws.
        least: Groups of each class.

    Returns:
        ``[groups]`` numbers of subsets.
    """
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    images, held, subsets = np.zeros_like(targets), np.zeros(targets.shape, np.int64), np.zeros(len(counts), np.int64)
    waiting = (counts > 0).sum(axis=0)
    for group in order:
        own = counts[group]
        lacking = np.clip(least - held, 0, None)
        # Classes whose groups are all needed by the subsets that have too few of them yet.
        urgent = (own > 0) & (waiting <= lacking.sum(axis=0))
        allowed = np.asarray((lacking[:, urgent] > 0).any(axis=1) | (not urgent.any()), np.bool_)
        subset = subsets[group] = _draw(own, images, targets, allowed, rng)
        images[subset] += own
        held[subset] += own > 0
        waiting -= own > 0
    _even_out(counts, targets, subsets, order[::-1], least)
    return subsets


def _draw(
    own: IntArray, images: FloatArray, targets: FloatArray, allowed: NDArray[np.bool_], rng: np.random.Generator
) -> int:
    present = own > 0
    need = (targets - images)[:, present]
    fits = allowed & (need >= own[present]).all(axis=1)
    if fits.any():
        chances = need.sum(axis=1) * fits
        return int(rng.choice(len(targets), p=chances / chances.sum()))
    return int(np.where(allowed, _cost(own, images, targets), np.inf).argmin())


def _cost(own: IntArray, images: FloatArray, targets: FloatArray) -> FloatArray:
    """By how much chi-square grows when a group joins each subset: ``[subsets]``."""
    grown: FloatArray = (own * (2 * (images - targets) + own) / targets).sum(axis=1)
    return grown


def _even_out(counts: IntArray, targets: FloatArray, subsets: IntArray, order: IntArray, least: int) -> None:
    """Moves groups between subsets, in place."""
    images = np.stack([counts[subsets == subset].sum(axis=0) for subset in range(len(targets))]).astype(np.float64)
    held = np.stack([(counts[subsets == subset] > 0).sum(axis=0) for subset in range(len(targets))])
    for _ in range(_SWEEPS):
        moved = False
        for group in order:
            own, subset = counts[group], subsets[group]
            if (held[subset][own > 0] <= least).any():
                continue
            images[subset] -= own
            cost = _cost(own, images, targets)
            best = int(cost.argmin())
            if cost[best] < cost[subset] - 1e-9:
                held[subset] -= own > 0
                held[best] += own > 0
                subsets[group], moved = best, True
            images[subsets[group]] += own
        if not moved:
            return
