"""The splits of a cross-validation: stratified, made once, equal for every network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from btkeras.config import CVConfig, DataConfig
from btkeras.datasets.dataset import Dataset, Record
from btkeras.errors import DataError
from btkeras.splitting.group_split import group_folds, official_folds, split_for_fold, subset_size
from btkeras.splitting.groups import group_records
from btkeras.splitting.splits import Split, make_split, split_of


def make_folds(dataset: Dataset, config: DataConfig, cv: CVConfig, cache: Path | None = None) -> list[Split]:
    """Makes the split of each fold.

    With ``cv.test`` ``rotating`` the classes are dealt into folds whose sizes differ by one image at most, or as
    little as whole groups allow (``config.group_by``); each is the test part once, and of the rest
    ``config.validation_fraction`` validates. With ``fixed`` the test part is that of a single split
    (``config.test_fraction``) in every fold; the rest is dealt, and each fold validates once. By ``cvind``, fold k
    tests ``cvind`` k + 1.

    Args:
        dataset: The images.
        config: Fractions, seed and ``group_by``.
        cv: Folds, and what rotates.
        cache: Folder that keeps what is found in the images, see ``data.groups.group_records``.

    Raises:
        DataError: If a class has fewer images, or groups, than the folds need, or ``cv.folds`` are not cvind's.
    """
    if cv.test == "fixed":
        return _fixed(dataset, config, cv.folds, cache)
    groups = group_records(dataset, config.group_by, cache)
    if config.group_by == "image":
        return _rotating(dataset, config, cv.folds, groups)
    if config.group_by == "official":
        folds = official_folds(dataset, groups, config.split_seed)
        _require_folds(cv.folds, len(folds))
    else:
        folds = group_folds(dataset.records, groups, cv.folds, config.split_seed)
    subsets = [split_for_fold(folds, fold, config, groups) for fold in range(cv.folds)]
    return [split_of(subset, config, groups) for subset in subsets]


def _require_folds(wanted: int, known: int) -> None:
    if wanted != known:
        raise DataError(
            "A cross-validation by official folds needs as many folds as cvind has",
            received=f"cv.folds = {wanted} for {known}",
            remedy=f"Give --folds {known}",
        )


def _rotating(dataset: Dataset, config: DataConfig, folds: int, groups: Mapping[str, str]) -> list[Split]:
    subsets = stratified_folds(dataset.records, folds, np.random.default_rng(config.split_seed))
    splits = []
    for fold, test in enumerate(subsets):
        rest = list(chain.from_iterable(subset for other, subset in enumerate(subsets) if other != fold))
        rng = np.random.default_rng((config.split_seed, fold))
        train, validation = _take_validation(rest, config, rng)
        splits.append(split_of({"train": train, "validation": validation, "test": test}, config, groups))
    return splits


def _fixed(dataset: Dataset, config: DataConfig, folds: int, cache: Path | None) -> list[Split]:
    single = make_split(dataset, config, cache)
    rest = (*single.train, *single.validation)
    if config.group_by == "image":
        subsets = stratified_folds(rest, folds, np.random.default_rng(config.split_seed))
    else:
        subsets = group_folds(rest, single.groups, folds, config.split_seed)
    splits = []
    for fold, validation in enumerate(subsets):
        train = list(chain.from_iterable(subset for other, subset in enumerate(subsets) if other != fold))
        chosen = {"train": train, "validation": validation, "test": single.test}
        splits.append(split_of(chosen, config, single.groups))
    return splits


def stratified_folds(records: Sequence[Record], hands: int, rng: np.random.Generator) -> list[list[Record]]:
    """Deals each class at random, like cards: neither a class nor the whole differs by more than one between hands.

    Raises:
        DataError: If a class has fewer images than there are hands.
    """
    dealt: list[list[Record]] = [[] for _ in range(hands)]
    turn = 0
    for label in sorted({record.label for record in records}):
        members = _members(records, label)
        if len(members) < hands:
            raise DataError(
                "Each class must have at least as many images as there are folds",
                received=f"{len(members)} of {label} for {hands} folds",
                remedy="Add images, or lower cv.folds",
            )
        for i in rng.permutation(len(members)):
            dealt[turn % hands].append(members[i])
            turn += 1
    return dealt


def _take_validation(
    records: Sequence[Record], config: DataConfig, rng: np.random.Generator
) -> tuple[list[Record], list[Record]]:
    train: list[Record] = []
    validation: list[Record] = []
    for label in sorted({record.label for record in records}):
        members = _members(records, label)
        count = subset_size(len(members), config.validation_fraction)
        if not 0 < count < len(members):
            raise DataError(
                "Each class must have enough images for training, validation and test in every fold",
                received=f"{len(members)} of {label} beside a fold's test part",
                remedy="Add images, or change data.validation_fraction or cv.folds",
            )
        order = rng.permutation(len(members))
        validation += [members[i] for i in order[:count]]
        train += [members[i] for i in order[count:]]
    return train, validation


def _members(records: Sequence[Record], label: str) -> list[Record]:
    return sorted((record for record in records if record.label == label), key=lambda record: record.path)
