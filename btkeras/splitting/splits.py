"""Training, validation and test subsets, once or for each fold; saved with a digest and verified when they are read."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from btkeras.config import CVConfig, DataConfig
from btkeras.datasets.dataset import Dataset, Record
from btkeras.errors import DataError
from btkeras.files import digest, write_json
from btkeras.splitting import stratified
from btkeras.splitting.groups import group_records

SUBSETS = ("train", "validation", "test")
_RESTORE = "Restore it, or start a new run"


@dataclass(frozen=True)
class Split:
    """Which record is used for what. No group is in two subsets, except with ``group_by`` ``image``."""

    train: tuple[Record, ...]
    validation: tuple[Record, ...]  # choose the checkpoint
    test: tuple[Record, ...]
    seed: int = 0  # it was made with
    groups: Mapping[str, str] = field(default_factory=dict)  # group by path, from ``group_records``
    group_by: str = "image"  # one of ``btkeras.config.GROUPINGS``

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
        subsets = {name: tuple(r for r in self.subset(name) if r.path not in left_out) for name in SUBSETS}
        return Split(**subsets, seed=self.seed, groups=self.groups, group_by=self.group_by)


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
    sizes of a split by image as closely as they can; larger differences are logged. With ``official`` the fold
    ``split_seed`` modulo the number of folds is tested, whatever ``test_fraction`` is. ``cache`` is as of
    ``group_records``.

    Raises:
        DataError: If a class has too few images or groups for all three subsets, or the dataset cannot be grouped so.
    """
    groups = group_records(dataset, config.group_by, cache)
    if config.group_by == "official":
        folds = stratified.official_folds(dataset.records, groups, config.split_seed)
        return _split_for_fold(folds, config.split_seed % len(folds), config, groups)
    sizes = {label: _sizes(label, count, config) for label, count in dataset.counts().items()}
    rng = np.random.default_rng(config.split_seed)
    if config.group_by == "image":
        return _split(stratified.split_images(dataset.records, sizes, rng), config, groups)
    subsets = stratified.split_records(dataset.records, groups, sizes, rng)
    stratified.check_subsets(subsets, sizes, SUBSETS)
    return _split(subsets, config, groups)


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
        return [_split(each, config, single.groups) for each in subsets]
    groups = group_records(dataset, config.group_by, cache)
    if config.group_by == "official":
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


def _split_for_fold(
    folds: Sequence[Sequence[Record]], fold: int, config: DataConfig, groups: Mapping[str, str]
) -> Split:
    """The split that tests a fold: of the rest, ``config.validation_fraction`` validates."""
    rest = _others(folds, fold)
    counts = Counter(record.label for record in rest)
    validations = {label: _share(count, config.validation_fraction) for label, count in counts.items()}
    for label, size in validations.items():
        if not 0 < size < counts[label]:
            raise DataError(
                "Each class must have enough images for training, validation and test in every fold",
                received=f"{counts[label]} of {label} beside a test fold",
                remedy="Add images, or change data.validation_fraction or cv.folds",
            )
    rng = np.random.default_rng((config.split_seed, fold))
    sizes = {label: (counts[label] - size, size) for label, size in validations.items()}
    if config.group_by == "image":
        validation, train = stratified.split_images(rest, {label: own[::-1] for label, own in sizes.items()}, rng)
    else:
        train, validation = stratified.split_records(rest, groups, sizes, rng)
        stratified.check_subsets((train, validation), sizes, (f"training of fold {fold}", f"validation of fold {fold}"))
    return _split((train, validation, folds[fold]), config, groups)


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


def files_digest(records: Sequence[Record]) -> str:
    """Digest of a dataset's file list: the sorted paths and their labels."""
    return digest(f"{record.path}\n{record.label}" for record in stratified.by_path(records))


def save_split(split: Split, dataset: Dataset, target: Path) -> None:
    """Writes ``splits.json``."""
    paths, counts = {}, {}
    for name in SUBSETS:
        paths[name] = [record.path for record in split.subset(name)]
        counter = Counter(record.label for record in split.subset(name))
        counts[name] = {label: counter[label] for label in dataset.classes}
    head = {"group_by": split.group_by, "seed": split.seed, "classes": list(dataset.classes), "counts": counts}
    digests = {"dataset_digest": files_digest(dataset.records), "digest": _digest(paths)}
    write_json(target, head | digests | paths | {"groups": dict(split.groups)})


def load_split(source: Path, dataset: Dataset) -> Split:
    """Reads ``splits.json`` for a dataset.

    Raises:
        DataError: If the file is no split, was edited, has an image in two subsets, or the dataset's file list is
            not the one that was split.
    """
    document = _read(source)
    names = {name: document[name] for name in SUBSETS}
    if _digest(names) != document["digest"]:
        raise DataError(f"{source} must be as it was written", received="another digest", remedy=_RESTORE)
    records = {record.path: record for record in dataset.records}
    known = Counter(chain(*names.values()))
    if repeated := [path for path, count in known.most_common(1) if count > 1]:
        raise DataError("An image must be in one subset of a split only", received=f"{repeated[0]} ({source})")
    if files_digest(dataset.records) != document["dataset_digest"] or not records.keys() >= known.keys():
        raise DataError(
            f"The dataset must be the one that {source} was made for",
            received=f"{dataset.root}, where {_difference(set(known), set(records))}",
            remedy="Restore the dataset, or start a new run",
        )
    subsets = {name: tuple(records[path] for path in paths) for name, paths in names.items()}
    # Splits of before there were groups have neither.
    groups, group_by = document.get("groups", {}), document.get("group_by", "image")
    return Split(**subsets, seed=document["seed"], groups=groups, group_by=group_by)


def _read(source: Path) -> dict[str, Any]:
    try:
        document: object = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{source} must be a readable splits.json", received=repr(error)) from error
    types = dict.fromkeys(SUBSETS, list) | {"seed": int, "digest": str, "dataset_digest": str}
    found = document if isinstance(document, dict) else {}
    if "by" in found:
        raise DataError(
            f"{source} must have the current names",
            received="by",
            remedy="`by` was renamed to `group_by`, and its values neighbours and cvind to series and official",
        )
    wrong = [key for key, expected in types.items() if not isinstance(found.get(key), expected)]
    if wrong:
        raise DataError(
            f"{source} must hold the lists {', '.join(SUBSETS)}, a seed, a digest and a dataset_digest",
            received=f"nothing, or something else, as {', '.join(wrong)}",
            remedy=_RESTORE,
        )
    return found


def _digest(subsets: Mapping[str, Sequence[str]]) -> str:
    return digest(f"{name}\n{path}" for name in SUBSETS for path in subsets[name])


def _difference(known: set[str], present: set[str]) -> str:
    for text, paths in (("is missing", known - present), ("is new", present - known)):
        if paths:
            return f"{min(paths)} {text}" + (f" (and {len(paths) - 1} more)" if len(paths) > 1 else "")
    return "labels have changed"
