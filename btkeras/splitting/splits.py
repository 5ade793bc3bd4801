"""Training, validation and test subsets, once or for each fold."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np

from btkeras.config import CVConfig, DataConfig
from btkeras.datasets.dataset import Dataset, Record
from btkeras.errors import DataError
from btkeras.splitting import published, stratified
from btkeras.splitting.groups import group_records

SUBSETS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Which record is used for what. No group is in two subsets, except with ``group_by`` ``image``."""

    train: tuple[Record, ...]
    validation: tuple[Record, ...]  # choose the checkpoint
    test: tuple[Record, ...]
    seed: int = 0  # it was made with
    groups: Mapping[str, str] = field(default_factory=dict)  # group by path, from ``group_records``
    group_by: str = "image"  # one of ``btkeras.config.GROUPINGS``
    column: str = ""  # of the manifest, with the published split that this is

    def subset(self, name: str) -> tuple[Record, ...]:
        """The records of one of ``SUBSETS``."""
        if name not in SUBSETS:
            raise DataError(f"A subset of a split must be one of {', '.join(SUBSETS)}", received=repr(name))
        records: tuple[Record, ...] = getattr(self, name)
        return records

    def subset_of(self) -> dict[str, str]:
        """The name of the subset by path."""
        return {record.path: name for name in SUBSETS for record in self.subset(name)}

    def without(self, paths: Collection[str]) -> Split:
        """The same split less some images."""
        left_out = set(paths)
        train, validation, test = (tuple(r for r in self.subset(name) if r.path not in left_out) for name in SUBSETS)
        return replace(self, train=train, validation=validation, test=test)


def split_sizes(count: int, config: DataConfig) -> tuple[int, int, int]:
    """Sizes of training, validation and test for a class of ``count`` images: 708 give 454, 113 and 141, as the paper.

    The test subset is rounded down, then the validation subset of the rest.
    """
    test = _share(count, config.test_fraction)
    validation = _share(count - test, config.validation_fraction)
    return count - test - validation, validation, test


def make_split(dataset: Dataset, config: DataConfig, cache: Path | None = None) -> Split:
    """Splits each class at random: image by image, as the paper does, or by whole groups (``config.group_by``).

    The result depends only on the sorted paths, the labels, ``config.split_seed`` and the groups. Whole groups meet the
    sizes of a split by image as closely as they can; larger differences are logged. With ``official`` the test subset
    is the published one, whatever ``test_fraction`` is: of folds, fold ``split_seed`` modulo their number. The
    validation subset is taken from the rest, by whole groups, unless it is published too. ``cache`` is as of
    ``group_records``.

    Raises:
        DataError: If a class has too few images or groups for all three subsets, or the dataset cannot be grouped so.
    """
    if config.group_by == "official":
        return _official_split(dataset, config, cache)
    groups = group_records(dataset, config.group_by, cache)
    sizes = {label: _sizes(label, count, config) for label, count in dataset.counts().items()}
    rng = np.random.default_rng(config.split_seed)
    if config.group_by == "image":
        return _split(stratified.split_images(dataset.records, sizes, rng), config, groups)
    subsets = stratified.split_records(dataset.records, groups, sizes, rng)
    stratified.check_subsets(subsets, sizes, SUBSETS)
    return _split(subsets, config, groups)


def _official_split(dataset: Dataset, config: DataConfig, cache: Path | None) -> Split:
    column = published.published_column(dataset.records, config.split_column)
    if column == published.OFFICIAL_FOLD:
        groups = group_records(dataset, config.group_by, cache)
        folds = stratified.official_folds(dataset.records, groups, config.split_seed)
        return _split_for_fold(folds, config.split_seed % len(folds), config, groups)
    # Before near-duplicates are searched, which takes time.
    subsets = published.published_subsets(dataset.records, column)
    groups = group_records(dataset, config.group_by, cache)
    published.log_divided(subsets, groups)
    train, test = subsets["train"], subsets["test"]
    if validation := subsets.get("validation"):
        split = _split((train, validation, test), config, groups)
    else:
        split = _with_validation(train, test, config, groups)
    return replace(split, column=column)


def make_folds(dataset: Dataset, config: DataConfig, cv: CVConfig, cache: Path | None = None) -> list[Split]:
    """Makes the split of each fold of a cross-validation.

    With ``cv.test`` ``rotating`` the images are split into stratified folds; each is tested once, and
    ``config.validation_fraction`` of the rest validates. With ``fixed`` every fold has the test subset of
    ``make_split``; the rest is split into folds, each of which validates once. Arguments are as of ``make_split``.

    Raises:
        DataError: If a class has fewer images, or groups, than the folds need, or ``cv.folds`` are not the official
            ones.
    """
    if cv.test == "fixed":
        single = make_split(dataset, config, cache)
        rest = (*single.train, *single.validation)
        folds = _folds(rest, cv.folds, config, single.groups)
        subsets = [(_others(folds, fold), validation, single.test) for fold, validation in enumerate(folds)]
        return [replace(_split(each, config, single.groups), column=single.column) for each in subsets]
    column = _fold_column(dataset, config)
    groups = group_records(dataset, config.group_by, cache)
    if column:
        folds = stratified.official_folds(dataset.records, groups, config.split_seed)
        if cv.folds != len(folds):
            raise DataError(
                "A cross-validation by official folds needs as many folds as there are",
                received=f"cv.folds = {cv.folds} for {len(folds)}",
                remedy=f"Give --folds {len(folds)}",
            )
    else:
        folds = _folds(dataset.records, cv.folds, config, groups)
    return [_split_for_fold(folds, fold, config, groups) for fold in range(cv.folds)]


def _folds(records: Sequence[Record], count: int, config: DataConfig, groups: Mapping[str, str]) -> list[list[Record]]:
    if config.group_by == "image":
        return stratified.image_folds(records, count, config.split_seed)
    return stratified.group_folds(records, groups, count, config.split_seed)


def _fold_column(dataset: Dataset, config: DataConfig) -> str:
    """The column of the folds that rotate with ``official``; "" for another grouping. A test part does not rotate."""
    if config.group_by != "official":
        return ""
    column = published.published_column(dataset.records, config.split_column)
    if column != published.OFFICIAL_FOLD:
        raise DataError(
            "A cross-validation of a published split has a fixed test subset",
            received=f"cv.test = rotating for the column {column}",
            remedy="Give --test fixed: the training part is split into folds, each of which validates once",
        )
    return column


def _split_for_fold(
    folds: Sequence[Sequence[Record]], fold: int, config: DataConfig, groups: Mapping[str, str]
) -> Split:
    """The split that tests a fold."""
    split = _with_validation(_others(folds, fold), folds[fold], config, groups, fold)
    return replace(split, column=published.OFFICIAL_FOLD if config.group_by == "official" else "")


def _with_validation(
    rest: Sequence[Record], test: Sequence[Record], config: DataConfig, groups: Mapping[str, str], fold: int = 0
) -> Split:
    """A split with this test subset: of the rest, ``config.validation_fraction`` validates."""
    counts = Counter(record.label for record in rest)
    validations = {label: _share(count, config.validation_fraction) for label, count in counts.items()}
    for label, size in validations.items():
        if not 0 < size < counts[label]:
            raise DataError(
                "Each class must have enough images for training and validation beside the test subset",
                received=f"{counts[label]} of {label} beside it",
                remedy="Add images, or change data.validation_fraction or cv.folds",
            )
    rng = np.random.default_rng((config.split_seed, fold))
    sizes = {label: (counts[label] - size, size) for label, size in validations.items()}
    if config.group_by == "image":
        validation, train = stratified.split_images(rest, {label: own[::-1] for label, own in sizes.items()}, rng)
    else:
        train, validation = stratified.split_records(rest, groups, sizes, rng)
        stratified.check_subsets((train, validation), sizes, (f"training of fold {fold}", f"validation of fold {fold}"))
    return _split((train, validation, test), config, groups)


def _others(folds: Sequence[Sequence[Record]], fold: int) -> list[Record]:
    return list(chain(*folds[:fold], *folds[fold + 1 :]))


def _share(count: int, fraction: float) -> int:
    # Rounded down; the small number keeps a product that is a hair below its whole number from losing an image.
    return math.floor(count * fraction + 1e-9)


def _sizes(label: str, count: int, config: DataConfig) -> tuple[int, int, int]:
    sizes = split_sizes(count, config)
    if min(sizes) < 1:
        raise DataError(
            "Each class must have enough images for training, validation and test",
            received=f"{count} of {label}, which gives {dict(zip(SUBSETS, sizes, strict=True))}",
            remedy="Add images, or change data.test_fraction and data.validation_fraction",
        )
    return sizes


def _split(subsets: Sequence[Collection[Record]], config: DataConfig, groups: Mapping[str, str]) -> Split:
    train, validation, test = (tuple(stratified.by_path(subset)) for subset in subsets)
    return Split(train, validation, test, config.split_seed, groups, config.group_by)
