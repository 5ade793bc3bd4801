"""Test images of which the training subset has a near-duplicate: metrics are too good by them."""

from __future__ import annotations

from pathlib import Path

from btkeras.datasets.dataset import Dataset
from btkeras.splitting.groups import near_duplicate_sets
from btkeras.splitting.splits import Split

# A split by these has no near-duplicates in several subsets.
_WITHOUT = ("duplicate", "series")


def duplicated_in_training(dataset: Dataset, split: Split, cache: Path | None = None) -> dict[str, str] | None:
    """Finds the test images that have a near-duplicate in the training subset.

    ``cache`` is as of ``group_records``; what was found for a split by groups is used again.

    Returns:
        By path of such a test image, the path of a training image that is a near-duplicate of it, directly or through
        others (``btkeras.splitting.duplicates``). None where the split keeps near-duplicates together.
    """
    if split.group_by in _WITHOUT:
        return None
    train, test = ({record.path for record in subset} for subset in (split.train, split.test))
    found: dict[str, str] = {}
    for group in near_duplicate_sets(dataset, dataset.records, cache):
        if known := min((path for path in group if path in train), default=""):
            found |= dict.fromkeys((path for path in group if path in test), known)
    return dict(sorted(found.items()))
