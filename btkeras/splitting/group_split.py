"""Folds of whole groups, those of FigShare's authors among them, and the validation part beside a test fold."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from btkeras.config import DataConfig
from btkeras.datasets.dataset import Dataset, Record
from btkeras.errors import DataError
from btkeras.logging import logger

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

_SWEEPS = 20


def subset_size(count: int, fraction: float) -> int:
    """Part of a class's images, rounded down."""
    # The small number keeps 0.2 * 5, a hair below 1 in binary for some fractions, from losing an image.
    return math.floor(count * fraction + 1e-9)


def split_records(
    records: Sequence[Record],
    groups: Mapping[str, str],
    sizes: Mapping[str, Sequence[float]],
    rng: np.random.Generator,
    least: int = 1,
) -> list[list[Record]]:
    """Deals records into parts, no group into two.

    The sizes are met as closely as whole groups allow: exactly where enough images stand alone, and with a group
    that is larger than a part, that part is larger too.

    Args:
        records: What is dealt.
        groups: Group by path; a record without one stands alone.
        sizes: By class, how many images each part should get.
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
    subsets = split_groups(counts, targets, rng, least)
    dealt = [
        [record for hand, own in zip(hands, subsets, strict=True) if own == subset for record in hand]
        for subset in range(len(targets))
    ]
    return dealt


def split_groups(counts: IntArray, targets: FloatArray, rng: np.random.Generator, least: int = 1) -> IntArray:
    """Deals groups into parts: the largest first, each drawn with the chances of what the parts still need.

    Then groups move to other parts as long as the sizes become more even by it, by the sum of squared differences over
    the wanted sizes (chi-square). Each part gets ``least`` groups of a class that has enough, if groups hold one class.

    Args:
        counts: ``[groups, classes]`` images.
        targets: ``[parts, classes]`` images wanted, above 0.
        rng: What draws.
        least: Groups of each class that each part should get.

    Returns:
        ``[groups]`` numbers of parts.
    """
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    have, held, subsets = np.zeros_like(targets), np.zeros(targets.shape, np.int64), np.zeros(len(counts), np.int64)
    waiting = (counts > 0).sum(axis=0)
    for group in order:
        own = counts[group]
        lacking = np.clip(least - held, 0, None)
        # Classes whose groups are all needed by the parts that have too few of them yet.
        urgent = (own > 0) & (waiting <= lacking.sum(axis=0))
        allowed = np.asarray((lacking[:, urgent] > 0).any(axis=1) | (not urgent.any()), np.bool_)
        subset = subsets[group] = _draw(own, have, targets, allowed, rng)
        have[subset] += own
        held[subset] += own > 0
        waiting -= own > 0
    _even_out(counts, targets, subsets, order[::-1], least)
    return subsets


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


def _even_out(counts: IntArray, targets: FloatArray, subsets: IntArray, order: IntArray, least: int) -> None:
    """Moves groups between parts, in place."""
    have = np.stack([counts[subsets == subset].sum(axis=0) for subset in range(len(targets))]).astype(np.float64)
    held = np.stack([(counts[subsets == subset] > 0).sum(axis=0) for subset in range(len(targets))])
    for _ in range(_SWEEPS):
        moved = False
        for group in order:
            own, subset = counts[group], subsets[group]
            if (held[subset][own > 0] <= least).any():
                continue
            have[subset] -= own
            cost = _cost(own, have, targets)
            best = int(cost.argmin())
            if cost[best] < cost[subset] - 1e-9:
                held[subset] -= own > 0
                held[best] += own > 0
                subsets[group], moved = best, True
            have[subsets[group]] += own
        if not moved:
            return


_TOLERANCE = 0.2  # by which a part's images of a class may differ from what was wanted before it is said


def group_folds(records: Sequence[Record], groups: Mapping[str, str], folds: int, seed: int) -> list[list[Record]]:
    """Deals whole groups into folds of equal sizes, class by class, as closely as groups allow.

    Raises:
        DataError: If a class has fewer groups than there are folds.
    """
    sizes = {label: [count / folds] * folds for label, count in _counts(records).items()}
    # Of two folds, each has to make a training and a validation part while the other is tested.
    dealt = split_records(records, groups, sizes, np.random.default_rng(seed), least=2 if folds == 2 else 1)
    check_subsets(dealt, sizes, {fold: f"fold {fold}" for fold in range(folds)})
    return dealt


def official_folds(dataset: Dataset, groups: Mapping[str, str], seed: int) -> list[list[Record]]:
    """The folds of ``cvind``, FigShare's authors' (doi 10.6084/m9.figshare.1512427), in their order.

    Images without one, such as a tumour-free class of another collection, are dealt by whole groups; one whose group
    has a fold goes there.

    Raises:
        DataError: If a ``cvind`` is no number from 1 on, or a class is missing in a fold.
    """
    fold_of = {record.path: _fold(record) for record in dataset.records if record.extra.get("official_fold")}
    count = max(fold_of.values())
    fold_of_group = {groups[path]: fold for path, fold in fold_of.items() if path in groups}
    parted = {
        groups[path] for path, fold in fold_of.items() if fold_of_group.get(groups.get(path, "")) not in (None, fold)
    }
    if parted:
        logger.info(
            f"cvind: the folds part {len(parted)} patients or groups, {min(parted)!r} among them; kept as published"
        )
    dealt: list[list[Record]] = [[] for _ in range(count)]
    rest = []
    for record in dataset.records:
        fold = fold_of.get(record.path) or fold_of_group.get(groups.get(record.path, ""))
        if fold:
            dealt[fold - 1].append(record)
        else:
            rest.append(record)
    if rest:
        sizes = {label: [number / count] * count for label, number in _counts(rest).items()}
        for fold, records in enumerate(split_records(rest, groups, sizes, np.random.default_rng(seed))):
            dealt[fold] += records
    wanted = {label: [number / count] * count for label, number in _counts(dataset.records).items()}
    check_subsets(dealt, wanted, {fold: f"fold {fold}, cvind {fold + 1}" for fold in range(count)})
    return dealt


def split_for_fold(
    folds: Sequence[Sequence[Record]], fold: int, config: DataConfig, groups: Mapping[str, str]
) -> dict[str, Sequence[Record]]:
    """The parts of the split that tests a fold: of the rest, ``config.validation_fraction`` validates, by groups."""
    rest = list(chain.from_iterable(records for other, records in enumerate(folds) if other != fold))
    sizes = {}
    for label, count in _counts(rest).items():
        validation = subset_size(count, config.validation_fraction)
        if not 0 < validation < count:
            raise DataError(
                "Each class must have enough images for training, validation and test in every fold",
                received=f"{count} of {label} beside a fold's test part",
                remedy="Add images, or change data.validation_fraction or cv.folds",
            )
        sizes[label] = (count - validation, validation)
    train, validation_part = dealt = split_records(
        rest, groups, sizes, np.random.default_rng((config.split_seed, fold))
    )
    check_subsets(dealt, sizes, {0: f"training of fold {fold}", 1: f"validation of fold {fold}"})
    return {"train": train, "validation": validation_part, "test": folds[fold]}


def check_subsets(
    subsets: Sequence[Sequence[Record]], sizes: Mapping[str, Sequence[float]], names: Mapping[int, str]
) -> None:
    """Checks that each part has every class, and says where its size is not nearly the wanted one.

    Args:
        subsets: What was dealt.
        sizes: By class, how many images each part should have.
        names: What messages call the parts.

    Raises:
        DataError: If a part has no image of a class.
    """
    for number, records in enumerate(subsets):
        counts = _counts(records)
        for label, wanted in sizes.items():
            if not counts[label]:
                raise DataError(
                    "Each class must have enough groups for every part of a split",
                    received=f"no {label} left for {names[number]}, where {wanted[number]:.0f} were wanted",
                    remedy="Add images of other patients, lower cv.folds, or change data.group_by",
                )
            if abs(counts[label] - wanted[number]) > max(1, _TOLERANCE * wanted[number]):
                logger.info(
                    f"{names[number]} has {counts[label]} images of {label} where {wanted[number]:.0f} were wanted: "
                    "whole groups fit no better"
                )


def _counts(records: Sequence[Record]) -> Counter[str]:
    return Counter(record.label for record in records)


def _fold(record: Record) -> int:
    text = record.extra["official_fold"]
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise DataError("cvind must be a number from 1 on", received=f"{text!r} of {record.path}")
    return int(text)
