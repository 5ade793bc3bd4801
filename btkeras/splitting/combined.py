"""The split of an ensemble: what none of its networks was trained on tests and calibrates it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from btkeras.datasets.dataset import Record
from btkeras.errors import DataError
from btkeras.logging import logger
from btkeras.splitting import stratified
from btkeras.splitting.splits import SUBSETS, Split

_LEAST = 2


def combine_splits(splits: Sequence[Split]) -> Split:
    """Makes one split of several of the same dataset.

    All images that a split trains on are training images; the test subset has what all splits test; what is left
    validates. If nothing is left, as of the folds of ``cv --test fixed``, half of the test subset does (stratified and
    by whole groups, seeded): then it calibrates and no longer tests.

    Raises:
        DataError: If the splits test no image in common, as rotating folds do, or are grouped differently.
    """
    first = splits[0]
    if any(split.group_by != first.group_by for split in splits):
        received = ", ".join(sorted({split.group_by for split in splits}))
        raise DataError("Splits must be grouped alike to be combined", received=received)
    trained = {record.path for split in splits for record in split.train}
    in_all = set.intersection(*({record.path for record in split.test} for split in splits))
    test = [record for record in first.test if record.path in in_all]
    if not test:
        raise DataError(
            "The networks of an ensemble must have test images in common, on which none of them was trained",
            received="none, as of folds that rotate",
            remedy="Take the trainings of one fold (other seeds, other networks), or folds of `cv --test fixed`",
        )
    every = {record.path: record for split in splits for name in SUBSETS for record in split.subset(name)}
    rest = [record for path, record in every.items() if path not in trained | in_all]
    if not rest:
        rest, test = _halves(test, first)
        logger.info(f"{len(rest):,} of the test images calibrate the ensemble, since its networks know all others")
    train = [record for path, record in every.items() if path in trained]
    own, calibration, common = (tuple(stratified.by_path(records)) for records in (train, rest, test))
    return replace(first, train=own, validation=calibration, test=common)


def _halves(records: Sequence[Record], split: Split) -> tuple[list[Record], list[Record]]:
    counts = Counter(record.label for record in records)
    if min(counts.values()) < _LEAST:
        received = ", ".join(f"{count} of {label}" for label, count in sorted(counts.items()))
        rule = f"A class must have {_LEAST} test images for half of them to calibrate an ensemble"
        raise DataError(rule, received=received, remedy="Take the trainings of one fold: other seeds, other networks")
    sizes = {label: (count // 2, count - count // 2) for label, count in counts.items()}
    rng = np.random.default_rng(split.seed)
    if split.group_by == "image":
        first, second = stratified.split_images(records, sizes, rng)
    else:
        first, second = stratified.split_records(records, split.groups, sizes, rng)
        stratified.check_subsets((first, second), sizes, ("calibration", "test"))
    return first, second
