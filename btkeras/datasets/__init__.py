"""Datasets: a folder of labelled images, read into records."""

from btkeras.datasets.dataset import CLASSES, Dataset, Record, load_dataset

__all__ = ["CLASSES", "Dataset", "Record", "load_dataset"]
