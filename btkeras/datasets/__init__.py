"""Datasets: a folder of labelled images, read into records."""

from btkeras.datasets.classes import CLASSES
from btkeras.datasets.dataset import Dataset, Record, load_dataset

__all__ = ["CLASSES", "Dataset", "Record", "load_dataset"]
