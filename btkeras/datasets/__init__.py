"""Datasets: a folder of labelled images, read into records, or into batches for ``fit``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btkeras.datasets.classes import CLASSES
from btkeras.datasets.dataset import Dataset, Record, load_dataset
from btkeras.lazy import lazy_names

if TYPE_CHECKING:
    from btkeras.training.tf_dataset import load as load

__all__ = ["CLASSES", "Dataset", "Record", "load", "load_dataset"]

__getattr__ = lazy_names(__name__, {"load": "btkeras.training.tf_dataset"})
