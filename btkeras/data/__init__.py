"""Datasets: records, images, splits, augmentation and the tf.data pipeline."""

from btkeras.data.records import CLASSES, Dataset, Record, load_dataset

__all__ = ["CLASSES", "Dataset", "Record", "load_dataset"]
