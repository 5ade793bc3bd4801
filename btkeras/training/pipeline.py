"""From a dataset and a split to batches: decoded images, then the tf.data pipelines of training and evaluation."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from btkeras.augmentation.geometry import augment, random_key, random_numbers
from btkeras.augmentation.intensity import augment_intensity
from btkeras.augmentation.lesion_cutmix import CutMixBatch, lesion_cutmix
from btkeras.config import AugmentConfig, ExperimentConfig
from btkeras.datasets.boxes import LesionBoxes, boxes_in_heads, lesion_boxes
from btkeras.datasets.dataset import Dataset, Record
from btkeras.errors import DataError
from btkeras.machine import cache_folder, threads
from btkeras.preprocessing.cache import ImageCache, build_cache, resolved_cache
from btkeras.preprocessing.preprocessor import Preprocessor
from btkeras.splitting.splits import SUBSETS, Split

_NAMED = 20
# Without a terminal, a progress line appears after so many seconds, and then as often.
_QUIET_SECONDS = 30.0
_PREFETCH = 2


@dataclass(frozen=True)
class SplitImages:
    """The readable images of a split.

    Attributes:
        classes: Class names, in the order of the indices.
        caches: Images of each subset.
        labels: Class indices of each subset's images.
        broken: Path (relative to the dataset) and reason of each image that could not be read.
        lesions: Boxes of the training images, if ``augment.lesion_cutmix`` is on.
        pixels: Digest of each image as it was decoded, by path; "" of the broken ones.
    """

    classes: tuple[str, ...]
    caches: dict[str, ImageCache]
    labels: dict[str, list[int]]
    broken: dict[str, str]
    lesions: LesionBoxes | None = None
    pixels: Mapping[str, str] = field(default_factory=dict)

    @property
    def left_out(self) -> list[dict[str, str]]:
        """The broken images, for a manifest."""
        return [{"path": path, "reason": reason} for path, reason in self.broken.items()]


def load_split_images(
    dataset: Dataset, split: Split, config: ExperimentConfig, *, skip_broken: bool = False, cache_test: bool = False
) -> SplitImages:
    """Decodes every image of the split once, so that a broken one is known before anything is trained.

    ``skip_broken`` leaves out what cannot be read. With ``cache_test`` the test images may take memory too; on disk
    they are cached for the evaluation anyway.

    Raises:
        DataError: If one cannot be read and ``skip_broken`` is not set, or a subset loses a class.
    """
    caches: dict[str, ImageCache] = {}
    labels: dict[str, list[int]] = {}
    broken: dict[str, str] = {}
    pixels: dict[str, str] = {}
    for subset in SUBSETS:
        records, size = split.subset(subset), config.data.image_size
        stored = stored_size(size, config.augment) if subset == "train" else size
        cache = load_images(dataset, records, stored, config, name=subset, cached=cache_test or subset != "test")
        broken |= {records[i].path: str(error) for i, error in cache.broken.items()}
        labels[subset] = [dataset.classes.index(r.label) for i, r in enumerate(records) if i not in cache.broken]
        pixels |= dict(zip((record.path for record in records), cache.pixels, strict=True))
        caches[subset] = cache
    if broken and not skip_broken:
        raise broken_images(broken)
    _check_classes_left(split, broken)
    lesions = _lesions(dataset, split, config, broken) if config.augment.lesion_cutmix else None
    return SplitImages(dataset.classes, caches, labels, broken, lesions, pixels)


def stored_size(image_size: int, config: AugmentConfig) -> int:
    """Side at which training images are cached, so that the smallest crop is not enlarged (at most 1.5 times)."""
    return round(image_size / max(config.crop[0], 2 / 3))


def load_images(
    dataset: Dataset, records: Sequence[Record], size: int, config: ExperimentConfig, *, name: str, cached: bool = True
) -> ImageCache:
    """Decodes the images of records, with a progress bar of this name; without ``cached`` they take no memory."""
    preprocessor = Preprocessor(size, config.data.channels, config.data.harmonize)
    cache = resolved_cache(config.data.cache, len(records), preprocessor)
    pause = 0.0 if sys.stderr.isatty() else _QUIET_SECONDS
    pauses: dict[str, Any] = {"delay": pause, "mininterval": max(pause, 0.1), "maxinterval": max(pause, 10.0)}
    return build_cache(
        [dataset.root / record.path for record in records],
        preprocessor,
        cache="none" if cache == "memory" and not cached else cache,
        folder=cache_folder() / "images",
        progress=lambda images: tqdm(
            images, f"reading {name}", len(records), unit=" images", file=sys.stderr, leave=False, **pauses
        ),
    )


def broken_images(broken: Mapping[str, str]) -> DataError:
    """The error that names broken images (path and reason of each), the first of them where there are many."""
    reasons = [f"\n  {reason.removesuffix('.')}" for reason in list(broken.values())[:_NAMED]]
    more = f"\n  and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
    return DataError(
        "Every image of a dataset must be readable",
        received=f"{len(broken)} broken:{''.join(reasons)}{more}",
        remedy="Mend or remove them, or leave them out: --skip-broken",
    )


def _check_classes_left(split: Split, broken: Collection[str]) -> None:
    for subset in SUBSETS:
        records = split.subset(subset)
        if lost := {r.label for r in records} - {r.label for r in records if r.path not in broken}:
            raise DataError(
                "Each subset of a split must have a readable image of each of its classes",
                received=f"no readable {min(lost)} in {subset}",
                remedy="Mend the broken images, or remove them and start a new run",
            )


def _lesions(dataset: Dataset, split: Split, config: ExperimentConfig, broken: Collection[str]) -> LesionBoxes:
    classes = config.augment.cutmix_classes
    if unknown := set(classes) - set(dataset.classes):
        rule = f"augment.cutmix_classes must be classes of the dataset: {', '.join(dataset.classes)}"
        raise DataError(rule, received=min(unknown))
    records = [record for record in split.train if record.path not in broken]
    boxes = [record.box for record in records]
    if config.data.harmonize:
        boxes = boxes_in_heads([dataset.root / record.path for record in records], boxes)
    lesions = lesion_boxes([record.label for record in records], boxes, classes)
    for missing, found in (("a tumour's box", lesions.boxes), ("a slice without tumour", lesions.no_tumor)):
        if not found.any():
            raise DataError(
                f"augment.lesion_cutmix needs slices of no_tumor, and boxes of {' and '.join(classes)}",
                received=f"{dataset.root} without {missing} in its training subset",
                remedy="Prepare it from masks or boxes.csv, or set augment.lesion_cutmix=0",
            )
    return lesions


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Number of training steps; a last, smaller batch is dropped, since its batch statistics would be poor."""
    return max(count // batch_size, 1)


def training_batches(data: SplitImages, config: ExperimentConfig, epochs: range) -> tf.data.Dataset:
    """Augmented batches, epoch after epoch, in one dataset (so that nothing stops at an epoch's end).

    Order and augmentation are functions of (seed, epoch, position): a run resumed at an epoch gets the batches that
    the uninterrupted run gets, and parallelism changes nothing. Epochs count from 0.

    Returns:
        A dataset of float32 ``[batch, image_size, image_size, channels]`` in 0..255 and one-hot float32
        ``[batch, classes]``; ``steps_per_epoch`` batches for each of ``epochs``.
    """
    cache, lesions, seed = data.caches["train"], data.lesions, config.train.seed
    count, batch_size = len(cache), min(config.train.batch_size, len(cache))
    steps = steps_per_epoch(count, config.train.batch_size)
    one_hot = tf.one_hot(np.asarray(data.labels["train"]), len(data.classes))

    def load(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        epoch, first = step // steps, step % steps * batch_size
        positions = first + tf.range(batch_size, dtype=tf.int64)
        key = tf.stack([tf.constant(seed, tf.int64), epoch])
        indices = tf.random.experimental.index_shuffle(positions, key, max_index=count - 1)
        images, targets = _take(cache, indices), tf.gather(one_hot, indices)
        if lesions is not None and config.augment.lesion_cutmix:
            boxes, no_tumor = tf.gather(lesions.boxes, indices), tf.gather(lesions.no_tumor, indices)
            batch = CutMixBatch(_all_channels(images, cache), targets, boxes, no_tumor)
            shares = config.augment.lesion_cutmix, config.augment.background_cutmix
            images, targets = lesion_cutmix(batch, random_key(seed, step, 0), *shares)
        images = augment(images, random_numbers(batch_size, seed, step), config.data.image_size, config.augment)
        # As late as possible: grey images have a third of the pixels.
        images = _all_channels(images, cache)
        return augment_intensity(images, seed, step, config.intensity), targets

    numbers = tf.data.Dataset.range(epochs.start * steps, epochs.stop * steps)
    return _prefetched(numbers.map(load, num_parallel_calls=threads(), deterministic=True))


def evaluation_batches(cache: ImageCache, labels: Sequence[int], classes: int, batch_size: int) -> tf.data.Dataset:
    """All images once, in order, unchanged: float32 0..255 and one-hot float32, as ``training_batches``."""
    one_hot = tf.one_hot(np.asarray(labels), classes)

    def load(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images = tf.cast(_take(cache, indices), tf.float32)
        return _all_channels(images, cache), tf.gather(one_hot, indices)

    batches = tf.data.Dataset.range(len(cache)).batch(batch_size)
    return _prefetched(batches.map(load, num_parallel_calls=threads(), deterministic=True))


def _take(cache: ImageCache, indices: tf.Tensor) -> tf.Tensor:
    # Declared stateless, which it is; else op determinism would run the map on one thread.
    images = tf.numpy_function(cache.take_stored, [indices], tf.uint8, stateful=False)
    return tf.ensure_shape(images, [None, cache.shape[0], cache.shape[0], cache.stored_channels])


def _all_channels(images: tf.Tensor, cache: ImageCache) -> tf.Tensor:
    """Repeats the one channel of images that are cached grey."""
    if images.shape[-1] == cache.shape[1]:
        return images
    return tf.broadcast_to(images, tf.concat([tf.shape(images)[:3], [cache.shape[1]]], axis=0))


def _prefetched(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    # With autotuning on, ending an iterator can wait for the tuner's next wake-up: up to 40 s at each epoch's end.
    options.autotune.enabled = False
    options.deterministic = True
    return dataset.prefetch(_PREFETCH).with_options(options)
