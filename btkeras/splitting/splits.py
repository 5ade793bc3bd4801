"""Training, validation and test parts: made once, saved with a digest, verified whenever they are read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from btkeras.config import DataConfig
from btkeras.datasets.dataset import Dataset, Record
from btkeras.errors import DataError
from btkeras.files import digest, write_json
from btkeras.splitting.group_split import check_subsets, official_folds, split_for_fold, split_records, subset_size
from btkeras.splitting.groups import group_records

SUBSETS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Which record is used for what.

    Attributes:
        train: Records that the network learns from.
        validation: Records that choose the checkpoint.
        test: Records that are only ever reported on.
        seed: Seed it was made with.
        groups: What ``data.groups.group_records`` says of the dataset: no group is in two parts, except by ``image``.
        group_by: What it keeps together, one of ``btkeras.config.BYS``.
    """

    train: tuple[Record, ...]
    validation: tuple[Record, ...]
    test: tuple[Record, ...]
    seed: int = 0
    groups: Mapping[str, str] = field(default_factory=dict)
    group_by: str = "image"

    def subset(self, name: str) -> tuple[Record, ...]:
        """The records of one of ``PARTS``."""
        if name not in SUBSETS:
            raise DataError(f"A part of a split must be one of {', '.join(SUBSETS)}", received=repr(name))
        records: tuple[Record, ...] = getattr(self, name)
        return records

    def without(self, paths: Collection[str]) -> Split:
        """The same split less some images."""
        left_out = set(paths)
        subsets = {name: tuple(r for r in self.subset(name) if r.path not in left_out) for name in SUBSETS}
        return Split(**subsets, seed=self.seed, groups=self.groups, group_by=self.group_by)


def split_sizes(count: int, config: DataConfig) -> tuple[int, int, int]:
    """Sizes of training, validation and test for a class of ``count`` images.

    The test part is rounded down, then the validation part of the rest: 708 give 454, 113 and 141 (paper, table 1).
    """
    test = subset_size(count, config.test_fraction)
    validation = subset_size(count - test, config.validation_fraction)
    return count - test - validation, validation, test


def make_split(dataset: Dataset, config: DataConfig, cache: Path | None = None) -> Split:
    """Splits each class at random: image by image, as the paper does, or by whole groups (``config.group_by``).

    By ``image`` the result depends only on the sorted paths, the labels and ``config.split_seed``; else also on the
    groups. Whole groups meet the sizes of a split by image as closely as they can, in every class; what differs much
    is said. By ``cvind`` fold 1 + ``split_seed`` modulo the number of folds is tested, whatever ``test_fraction`` is.

    Args:
        dataset: The images.
        config: Fractions, seed and ``group_by``.
        cache: Folder that keeps what is found in the images, see ``group_records``.

    Raises:
        DataError: If a class has too few images or groups for all three parts, or the dataset cannot be grouped so.
    """
    groups = group_records(dataset, config.group_by, cache)
    if config.group_by == "official":
        folds = official_folds(dataset, groups, config.split_seed)
        tested = config.split_seed % len(folds)
        return split_of(split_for_fold(folds, tested, config, groups), config, groups)
    sizes = {label: _sizes(label, count, config) for label, count in dataset.counts().items()}
    rng = np.random.default_rng(config.split_seed)
    if config.group_by == "image":
        return split_of(_by_image(dataset, sizes, rng), config, groups)
    dealt = split_records(dataset.records, groups, sizes, rng)
    check_subsets(dealt, sizes, dict(enumerate(SUBSETS)))
    return split_of(dict(zip(SUBSETS, dealt, strict=True)), config, groups)


def _by_image(
    dataset: Dataset, sizes: Mapping[str, tuple[int, int, int]], rng: np.random.Generator
) -> dict[str, list[Record]]:
    subsets: dict[str, list[Record]] = {name: [] for name in SUBSETS}
    for label in dataset.classes:
        members = sorted((r for r in dataset.records if r.label == label), key=lambda record: record.path)
        order = rng.permutation(len(members))
        bounds = np.cumsum(sizes[label])[:-1]
        for name, chosen in zip(SUBSETS, np.split(order, bounds), strict=True):
            subsets[name] += [members[i] for i in chosen]
    return subsets


def _sizes(label: str, count: int, config: DataConfig) -> tuple[int, int, int]:
    sizes = split_sizes(count, config)
    if min(sizes) < 1:
        raise DataError(
            "Each class must have enough images for training, validation and test",
            received=f"{count} of {label}, which gives {dict(zip(SUBSETS, sizes, strict=True))}",
            remedy="Add images, or change data.test_fraction and data.validation_fraction",
        )
    return sizes


def split_of(subsets: Mapping[str, Sequence[Record]], config: DataConfig, groups: Mapping[str, str]) -> Split:
    """A split from its parts in any order."""
    ordered = {name: tuple(sorted(subsets[name], key=lambda record: record.path)) for name in SUBSETS}
    return Split(**ordered, seed=config.split_seed, groups=groups, group_by=config.group_by)


def files_digest(records: Sequence[Record]) -> str:
    """Digest of a dataset's file list: the sorted paths and their labels."""
    return digest(f"{record.path}\n{record.label}" for record in sorted(records, key=lambda record: record.path))


def save_split(split: Split, dataset: Dataset, target: Path) -> None:
    """Writes ``splits.json``."""
    document = {
        "group_by": split.group_by,
        "seed": split.seed,
        "classes": list(dataset.classes),
        "counts": {name: _counts(split.subset(name), dataset) for name in SUBSETS},
        "dataset_digest": files_digest(dataset.records),
        "digest": _digest({name: [record.path for record in split.subset(name)] for name in SUBSETS}),
        **{name: [record.path for record in split.subset(name)] for name in SUBSETS},
        "groups": dict(split.groups),
    }
    write_json(target, document)


def load_split(source: Path, dataset: Dataset) -> Split:
    """Reads ``splits.json`` for a dataset.

    Raises:
        DataError: If the file is no split, was edited, has an image in two parts, or the dataset's file list is
            not the one that was split.
    """
    document = _read(source)
    names = {name: document[name] for name in SUBSETS}
    if _digest(names) != document["digest"]:
        raise DataError(
            f"{source} must be as it was written", received="another digest", remedy="Restore it, or start a new run"
        )
    every = list(chain.from_iterable(names.values()))
    repeated = [path for path, count in Counter(every).items() if count > 1]
    if repeated:
        raise DataError("An image must be in one part of a split only", received=f"{repeated[0]} ({source})")
    by_path = {record.path: record for record in dataset.records}
    if files_digest(dataset.records) != document["dataset_digest"] or not by_path.keys() >= set(every):
        raise DataError(
            f"The dataset must be the one that {source} was made for",
            received=f"{dataset.root}, where {_difference(set(every), dataset)}",
            remedy="Restore the dataset, or start a new run",
        )
    subsets = {name: tuple(by_path[path] for path in paths) for name, paths in names.items()}
    # Runs of before there were groups have none.
    groups, group_by = document.get("groups", {}), document.get("group_by", "image")
    return Split(**subsets, seed=document["seed"], groups=groups, group_by=group_by)


def _read(source: Path) -> dict[str, Any]:
    try:
        document: object = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{source} must be a readable splits.json", received=repr(error)) from error
    kinds = dict.fromkeys(SUBSETS, list) | {"seed": int, "digest": str, "dataset_digest": str}
    found = document if isinstance(document, dict) else {}
    wrong = [key for key, kind in kinds.items() if not isinstance(found.get(key), kind)]
    if wrong:
        raise DataError(
            f"{source} must hold the lists {', '.join(SUBSETS)}, a seed, a digest and a dataset_digest",
            received=f"nothing, or something else, as {', '.join(wrong)}",
            remedy="Restore it, or start a new run",
        )
    return found


def _digest(subsets: dict[str, list[str]]) -> str:
    return digest(f"{name}\n{path}" for name in SUBSETS for path in subsets[name])


def _counts(records: Sequence[Record], dataset: Dataset) -> dict[str, int]:
    counter = Counter(record.label for record in records)
    return {label: counter[label] for label in dataset.classes}


def _difference(known: set[str], dataset: Dataset) -> str:
    present = {record.path for record in dataset.records}
    for text, paths in (("is missing", known - present), ("is new", present - known)):
        if paths:
            return f"{min(paths)} {text}" + (f" (and {len(paths) - 1} more)" if len(paths) > 1 else "")
    return "labels have changed"
