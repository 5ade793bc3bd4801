"""A dataset, or a subset of its split, as a ``tf.data.Dataset`` for any ``fit``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from btkeras.config import DataConfig, ExperimentConfig, PhantomConfig
from btkeras.datasets.dataset import Dataset, load_dataset
from btkeras.datasets.phantom import cached_phantom
from btkeras.errors import ConfigError
from btkeras.machine import cache_folder
from btkeras.splitting.splits import make_split
from btkeras.training.pipeline import batches_of, broken_images, load_images

_LABEL_MODES = ("int", "categorical")


def load(  # noqa: PLR0913
    data: str | Path | Dataset,
    *,
    subset: str | None = None,
    image_size: int = 224,
    channels: int = 1,
    harmonize: bool = False,
    batch_size: int = 32,
    label_mode: str = "int",
    shuffle: bool = True,
    seed: int = 0,
    group_by: str = "image",
    test_fraction: float = 0.2,
    validation_fraction: float = 0.2,
) -> tf.data.Dataset:
    """Loads slices and labels, as ``keras.utils.image_dataset_from_directory`` does.

    Slices are preprocessed as ``btkeras predict`` and ``btkeras train`` do it, once, and kept in memory or on disk.

    Args:
        data: A folder that ``btkeras prepare`` made, or of class folders; ``phantom``, the synthetic dataset; or a
            ``Dataset``.
        subset: ``train``, ``validation`` or ``test`` of the split that ``btkeras train`` would make; None for all.
        image_size: Side of the images, pixels.
        channels: 1 (grey) or 3.
        harmonize: Whether slices are cropped to the head, normalized in intensity and made grey.
        batch_size: Images of a batch; the last one may be smaller.
        label_mode: ``int``, class indices int32 ``[batch]``; ``categorical``, one-hot float32 ``[batch, classes]``.
        shuffle: Whether each epoch has an order of its own; else it is by path.
        seed: Of the split and the order.
        group_by: What the split keeps in one subset: ``image`` nothing, ``patient`` the slices of a patient; also
            ``duplicate``, ``series``, ``official``.
        test_fraction: Share of each class in the test subset.
        validation_fraction: Share of the rest in the validation subset.

    Returns:
        Batches of float32 ``[batch, image_size, image_size, channels]`` in 0..255, and labels. Its ``class_names``
        are in the order of the indices, its ``file_paths`` in the order without shuffling.

    Raises:
        DataError: If there is no such dataset or subset, or an image is broken.
        ConfigError: If another argument is not valid.

    Example:
        >>> import btkeras
        >>> train = btkeras.datasets.load("phantom", subset="train", image_size=64)
        >>> train.class_names
        ['glioma', 'meningioma', 'no_tumor', 'pituitary']
        >>> train.element_spec[0].shape
        TensorShape([None, 64, 64, 1])
    """
    if label_mode not in _LABEL_MODES:
        raise ConfigError(f"label_mode must be one of {', '.join(_LABEL_MODES)}", received=repr(label_mode))
    for name, value, least in (("batch_size", batch_size, 1), ("seed", seed, 0)):
        if not isinstance(value, int | np.integer) or value < least:
            raise ConfigError(f"{name} must be a whole number, at least {least}", received=repr(value))
    settings = DataConfig(
        image_size=image_size,
        channels=channels,
        harmonize=harmonize,
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        split_seed=seed,
        group_by=group_by,
    )
    dataset = _opened(data)
    records = dataset.records if subset is None else make_split(dataset, settings, cache_folder()).subset(subset)
    images = load_images(dataset, records, image_size, ExperimentConfig(data=settings), name=subset or "images")
    if images.broken:
        raise broken_images({records[i].path: str(error) for i, error in images.broken.items()}, way_out="")
    labels = np.array([dataset.classes.index(record.label) for record in records], np.int32)
    targets = tf.one_hot(labels, len(dataset.classes)) if label_mode == "categorical" else tf.constant(labels)
    numbers = tf.data.Dataset.range(len(records))
    batches = batches_of(images, targets, numbers.shuffle(len(records), seed) if shuffle else numbers, batch_size)
    batches.class_names = [*dataset.classes]
    batches.file_paths = [str(dataset.root / record.path) for record in records]
    return batches


def _opened(data: str | Path | Dataset) -> Dataset:
    if isinstance(data, Dataset):
        return data
    return cached_phantom(PhantomConfig(), cache_folder()) if str(data) == "phantom" else load_dataset(data)
