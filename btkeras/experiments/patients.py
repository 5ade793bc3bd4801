"""Whose slice each image of a run or cross-validation is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from btkeras.datasets.dataset import Dataset
from btkeras.errors import DataError
from btkeras.logging import logger
from btkeras.runs import dataset_of
from btkeras.splitting.split_file import files_digest

# What a split's groups of a patient's slices are called.
_PATIENT = "patient "


def known_patients(manifest: Mapping[str, Any], split: Mapping[str, Any]) -> dict[str, str]:
    """The patient of each image that names one, by path: an id, unique among the collections of the dataset.

    The dataset says it, also where ids came after the split. Where it is gone, or another one now, the split's groups
    do, which have the patients of several slices only.
    """
    dataset = _same_dataset(manifest, split)
    if dataset is not None:
        return {record.path: f"{record.source} {record.patient}" for record in dataset.records if record.patient}
    found = {path: name for path, name in split.get("groups", {}).items() if name.startswith(_PATIENT)}
    if found:
        logger.info("the dataset is gone or has changed: figures per patient leave out patients of a single slice")
    return found


def _same_dataset(manifest: Mapping[str, Any], split: Mapping[str, Any]) -> Dataset | None:
    try:
        dataset = dataset_of(manifest)
    except DataError:
        return None
    return dataset if files_digest(dataset.records) == split["dataset_digest"] else None
