"""The splits of a cross-validation: stratified, made once, equal for every network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

from btkeras.config import CVConfig, DataConfig
from btkeras.data.groups import find_groups
from btkeras.data.records import Dataset, Record
from btkeras.data.splits import Split, make_split, part_size, split_of
from btkeras.errors import DataError


def make_folds(dataset: Dataset, config: DataConfig, cv: CVConfig) -> list[Split]:
    """Makes the split of each fold.

    With ``cv.test`` ``rotating`` the classes are dealt into folds whose sizes differ by one picture at most; each is
    the test part once, and of the rest ``config.validation_fraction`` validates. With ``fixed`` the test part is that
    of a single split (``config.test_fraction``) in every fold; the rest is dealt, and each fold validates once.

    Raises:
        DataError: If a class has fewer pictures than the folds need.
    """
    return _rotating(dataset, config, cv.folds) if cv.test == "rotating" else _fixed(dataset, config, cv.folds)


def _rotating(dataset: Dataset, config: DataConfig, folds: int) -> list[Split]:
    groups = find_groups(dataset)
    parts = deal(dataset.records, folds, np.random.default_rng(config.split_seed))
    splits = []
    for fold, test in enumerate(parts):
        rest = list(chain.from_iterable(part for other, part in enumerate(parts) if other != fold))
        rng = np.random.default_rng((config.split_seed, fold))
        train, validation = _take_validation(rest, config, rng)
        splits.append(split_of({"train": train, "validation": validation, "test": test}, config.split_seed, groups))
    return splits


def _fixed(dataset: Dataset, config: DataConfig, folds: int) -> list[Split]:
    single = make_split(dataset, config)
    rest = (*single.train, *single.validation)
    parts = deal(rest, folds, np.random.default_rng(config.split_seed))
    splits = []
    for fold, validation in enumerate(parts):
        train = list(chain.from_iterable(part for other, part in enumerate(parts) if other != fold))
        chosen = {"train": train, "validation": validation, "test": single.test}
        splits.append(split_of(chosen, config.split_seed, single.groups))
    return splits


def deal(records: Sequence[Record], hands: int, rng: np.random.Generator) -> list[list[Record]]:
    """Deals each class at random, like cards: neither a class nor the whole differs by more than one between hands.

    Raises:
        DataError: If a class has fewer pictures than there are hands.
    """
    dealt: list[list[Record]] = [[] for _ in range(hands)]
    turn = 0
    for label in sorted({record.label for record in records}):
        members = _members(records, label)
        if len(members) < hands:
            raise DataError(
                "Each class must have at least as many pictures as there are folds",
                received=f"{len(members)} of {label} for {hands} folds",
                remedy="Add pictures, or lower cv.folds",
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
        count = part_size(len(members), config.validation_fraction)
        if not 0 < count < len(members):
            raise DataError(
                "Each class must have enough pictures for training, validation and test in every fold",
                received=f"{len(members)} of {label} beside a fold's test part",
                remedy="Add pictures, or change data.validation_fraction or cv.folds",
            )
        order = rng.permutation(len(members))
        validation += [members[i] for i in order[:count]]
        train += [members[i] for i in order[count:]]
    return train, validation


def _members(records: Sequence[Record], label: str) -> list[Record]:
    return sorted((record for record in records if record.label == label), key=lambda record: record.path)
