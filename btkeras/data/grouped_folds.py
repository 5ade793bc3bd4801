"""Folds of whole groups, those of FigShare's authors among them, and the validation part beside a test fold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from btkeras.config import DataConfig
from btkeras.console import notice
from btkeras.data.dealing import deal_records, part_size
from btkeras.data.records import Dataset, Record
from btkeras.errors import DataError

_TOLERANCE = 0.2  # by which a part's pictures of a class may differ from what was wanted before it is said


def deal_folds(records: Sequence[Record], groups: Mapping[str, str], folds: int, seed: int) -> list[list[Record]]:
    """Deals whole groups into folds of equal sizes, class by class, as closely as groups allow.

    Raises:
        DataError: If a class has fewer groups than there are folds.
    """
    sizes = {label: [count / folds] * folds for label, count in _counts(records).items()}
    # Of two folds, each has to make a training and a validation part while the other is tested.
    dealt = deal_records(records, groups, sizes, np.random.default_rng(seed), least=2 if folds == 2 else 1)
    check_parts(dealt, sizes, {fold: f"fold {fold}" for fold in range(folds)})
    return dealt


def official_folds(dataset: Dataset, groups: Mapping[str, str], seed: int) -> list[list[Record]]:
    """The folds of ``cvind``, FigShare's authors' (doi 10.6084/m9.figshare.1512427), in their order.

    Pictures without one, such as a tumour-free class of another collection, are dealt by whole groups; one whose group
    has a fold goes there.

    Raises:
        DataError: If a ``cvind`` is no number from 1 on, or a class is missing in a fold.
    """
    fold_of = {record.path: _fold(record) for record in dataset.records if record.extra.get("cvind")}
    count = max(fold_of.values())
    fold_of_group = {groups[path]: fold for path, fold in fold_of.items() if path in groups}
    parted = {
        groups[path] for path, fold in fold_of.items() if fold_of_group.get(groups.get(path, "")) not in (None, fold)
    }
    if parted:
        notice(f"cvind: the folds part {len(parted)} patients or groups, {min(parted)!r} among them; kept as published")
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
        for fold, records in enumerate(deal_records(rest, groups, sizes, np.random.default_rng(seed))):
            dealt[fold] += records
    wanted = {label: [number / count] * count for label, number in _counts(dataset.records).items()}
    check_parts(dealt, wanted, {fold: f"fold {fold}, cvind {fold + 1}" for fold in range(count)})
    return dealt


def around_fold(
    folds: Sequence[Sequence[Record]], fold: int, config: DataConfig, groups: Mapping[str, str]
) -> dict[str, Sequence[Record]]:
    """The parts of the split that tests a fold: of the rest, ``config.validation_fraction`` validates, by groups."""
    rest = list(chain.from_iterable(records for other, records in enumerate(folds) if other != fold))
    sizes = {}
    for label, count in _counts(rest).items():
        validation = part_size(count, config.validation_fraction)
        if not 0 < validation < count:
            raise DataError(
                "Each class must have enough pictures for training, validation and test in every fold",
                received=f"{count} of {label} beside a fold's test part",
                remedy="Add pictures, or change data.validation_fraction or cv.folds",
            )
        sizes[label] = (count - validation, validation)
    train, validation_part = dealt = deal_records(rest, groups, sizes, np.random.default_rng((config.split_seed, fold)))
    check_parts(dealt, sizes, {0: f"training of fold {fold}", 1: f"validation of fold {fold}"})
    return {"train": train, "validation": validation_part, "test": folds[fold]}


def check_parts(
    parts: Sequence[Sequence[Record]], sizes: Mapping[str, Sequence[float]], names: Mapping[int, str]
) -> None:
    """Checks that each part has every class, and says where its size is not nearly the wanted one.

    Args:
        parts: What was dealt.
        sizes: By class, how many pictures each part should have.
        names: What messages call the parts.

    Raises:
        DataError: If a part has no picture of a class.
    """
    for number, records in enumerate(parts):
        counts = _counts(records)
        for label, wanted in sizes.items():
            if not counts[label]:
                raise DataError(
                    "Each class must have enough groups for every part of a split",
                    received=f"no {label} left for {names[number]}, where {wanted[number]:.0f} were wanted",
                    remedy="Add pictures of other patients, lower cv.folds, or change data.by",
                )
            if abs(counts[label] - wanted[number]) > max(1, _TOLERANCE * wanted[number]):
                notice(
                    f"{names[number]} has {counts[label]} pictures of {label} where {wanted[number]:.0f} were wanted: "
                    "whole groups fit no better"
                )


def _counts(records: Sequence[Record]) -> Counter[str]:
    return Counter(record.label for record in records)


def _fold(record: Record) -> int:
    text = record.extra["cvind"]
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise DataError("cvind must be a number from 1 on", received=f"{text!r} of {record.path}")
    return int(text)
