"""From a dataset and a split to batches: decoded images, then the tf.data pipelines of training and evaluation."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tqdm import tqdm

from btkeras.augmentation.geometry import augment, random_key, random_numbers
from btkeras.augmentation.intensity import Draws, augment_intensity, draw_intensity
from btkeras.augmentation.lesion_cutmix import draw_patches, paste
from btkeras.augmentation.patches import SIDE, Patches, SlicesToPatch, find_patches
from btkeras.config import PATCHES, AugmentConfig, ExperimentConfig
from btkeras.datasets.boxes import boxes_in_heads, clip_box
from btkeras.datasets.classes import NO_TUMOR
from btkeras.datasets.dataset import Dataset, Record
from btkeras.errors import DataError
from btkeras.machine import cache_folder, threads
from btkeras.preprocessing.cache import ImageCache, build_cache, resolved_cache
from btkeras.preprocessing.preprocessor import Preprocessor
from btkeras.preprocessing.resize import resize
from btkeras.splitting.splits import SUBSETS, Split

_NAMED = 20
# Without a terminal, a progress line appears after so many seconds, and then as often.
_QUIET_SECONDS = 30.0
_PREFETCH = 2
_CHUNK = 256
# An error's traceback can keep an iterator of batches until the interpreter ends; freed there, it waits forever for a
# numpy_function that no longer runs (TensorFlow 2.21). Freed before, it ends.
atexit.register(gc.collect)


@dataclass(frozen=True)
class SplitImages:
    """The readable images of a split.

    Attributes:
        classes: Class names, in the order of the indices.
        caches: Images of each subset.
        labels: Class indices of each subset's images.
        broken: Path (relative to the dataset) and reason of each image that could not be read.
        patches: Of the training images, if ``augment`` has patches.
        pixels: Digest of each image as it was decoded, by path; "" of the broken ones.
    """

    classes: tuple[str, ...]
    caches: dict[str, ImageCache]
    labels: dict[str, list[int]]
    broken: dict[str, str]
    patches: Patches | None = None
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
    wanted = any(getattr(config.augment, name) for name in PATCHES)
    patches = _patches(dataset, split, config, caches["train"]) if wanted else None
    return SplitImages(dataset.classes, caches, labels, broken, patches, pixels)


def stored_size(image_size: int, config: AugmentConfig) -> int:
    """Side at which training images are cached, so that the smallest crop is not enlarged (at most 1.5 times)."""
    return round(image_size / max(config.crop[0], 2 / 3))


def load_images(
    dataset: Dataset, records: Sequence[Record], size: int, config: ExperimentConfig, *, name: str, cached: bool = True
) -> ImageCache:
    """Decodes the images of records, with a progress bar of this name; without ``cached`` they take no memory."""
    preprocessor = Preprocessor(size, config.data.channels, config.data.harmonize)
    # What goes to a device comes from memory.
    wanted = "memory" if config.data.cache == "device" else config.data.cache
    cache = resolved_cache(wanted, len(records), preprocessor)
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


def broken_images(broken: Mapping[str, str], way_out: str = ", or leave them out: --skip-broken") -> DataError:
    """The error that names broken images (path and reason of each), the first of them where there are many."""
    reasons = [f"\n  {reason.removesuffix('.')}" for reason in list(broken.values())[:_NAMED]]
    more = f"\n  and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
    return DataError(
        "Every image of a dataset must be readable",
        received=f"{len(broken)} broken:{''.join(reasons)}{more}",
        remedy=f"Mend or remove them{way_out}",
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


def _patches(dataset: Dataset, split: Split, config: ExperimentConfig, cache: ImageCache) -> Patches:
    if unknown := set(config.augment.cutmix_classes) - set(dataset.classes):
        rule = f"augment.cutmix_classes must be classes of the dataset: {', '.join(dataset.classes)}"
        remedy = "Give classes whose tumours lie in the same places, or none: --set augment.cutmix_classes=[]"
        raise DataError(rule, received=min(unknown), remedy=remedy)
    records = [record for i, record in enumerate(split.train) if i not in cache.broken]
    boxes = [record.box for record in records]
    if config.data.harmonize:
        boxes = boxes_in_heads([dataset.root / record.path for record in records], boxes)
    edges = np.array([(box and clip_box(box)) or (0, 0, 0, 0) for box in boxes], np.float32).reshape(-1, 4)
    labels = np.array([dataset.classes.index(record.label) for record in records])
    no_tumor = dataset.classes.index(NO_TUMOR) if NO_TUMOR in dataset.classes else -1
    for missing, found in (("a tumour's box", edges.any(axis=1)), ("a slice without tumour", labels == no_tumor)):
        if not found.any():
            raise DataError(
                "augment.lesion_cutmix, lesion_removal and background_cutmix need slices of no_tumor and boxes",
                received=f"{dataset.root} without {missing} in its training subset",
                remedy="Prepare it from masks or boxes.csv, or set the three to 0",
            )
    exchanged = tuple(dataset.classes.index(name) for name in config.augment.cutmix_classes)
    return find_patches(SlicesToPatch(_thumbnails(cache), edges, labels, no_tumor, exchanged))


def _thumbnails(cache: ImageCache) -> NDArray[np.float32]:
    found = np.empty((len(cache), SIDE, SIDE), np.float32)
    for start in range(0, len(cache), _CHUNK):
        images = cache.take_stored(np.arange(start, min(start + _CHUNK, len(cache))))
        for number, image in enumerate(images, start):
            found[number] = resize(image, SIDE).mean(axis=2)
    return found


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Number of training steps; a last, smaller batch is dropped, since its batch statistics would be poor."""
    return max(count // batch_size, 1)


def training_draws(data: SplitImages, config: ExperimentConfig, step: tf.Tensor) -> Draws:
    """What is random of a batch, by name: ``indices`` int64 ``[batch]`` of its images, and what changes them.

    It is a function of (seed, step) alone, step counting through all epochs from 0: a run resumed at an epoch gets the
    batches that the uninterrupted run gets, and parallelism changes nothing.
    """
    count, batch_size, seed = len(data.caches["train"]), _batch_size(data, config), config.train.seed
    steps = steps_per_epoch(count, config.train.batch_size)
    epoch, first = step // steps, step % steps * batch_size
    key = tf.stack([tf.constant(seed, tf.int64), epoch])
    positions = first + tf.range(batch_size, dtype=tf.int64)
    indices = tf.random.experimental.index_shuffle(positions, key, max_index=count - 1)
    draws = {"indices": indices, "geometry": random_numbers(batch_size, seed, step)}
    if data.patches is not None:
        draws["patches"] = draw_patches(data.patches, indices, random_key(seed, step, 0), config.augment)
    return {**draws, **draw_intensity(batch_size, seed, step, config.intensity)}


def _batch_size(data: SplitImages, config: ExperimentConfig) -> int:
    return min(config.train.batch_size, len(data.caches["train"]))


def training_batches(data: SplitImages, config: ExperimentConfig, epochs: range) -> tf.data.Dataset:
    """Augmented batches, epoch after epoch, in one dataset (so that nothing stops at an epoch's end).

    Order and augmentation are of ``training_draws``. Epochs count from 0.

    Returns:
        A dataset of float32 ``[batch, image_size, image_size, channels]`` in 0..255 and one-hot float32
        ``[batch, classes]``; ``steps_per_epoch`` batches for each of ``epochs``.
    """
    cache, patches = data.caches["train"], data.patches
    steps = steps_per_epoch(len(cache), config.train.batch_size)
    one_hot = tf.one_hot(np.asarray(data.labels["train"]), len(data.classes))

    def load(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        draws = training_draws(data, config, step)
        images, targets = _take(cache, draws["indices"]), tf.gather(one_hot, draws["indices"])
        if patches is not None:
            images, targets = _patched(cache, patches, draws["patches"], images, targets)
        images = augment(images, draws["geometry"], config.data.image_size, config.augment)
        # As late as possible: grey images have a third of the pixels.
        return augment_intensity(_all_channels(images, cache), draws, config.intensity), targets

    numbers = tf.data.Dataset.range(epochs.start * steps, epochs.stop * steps)
    return _prefetched(numbers.map(load, num_parallel_calls=threads(), deterministic=True))


def _patched(
    cache: ImageCache, patches: Patches, rows: tf.Tensor, images: tf.Tensor, targets: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Images and targets with the patches of these rows (-1: none)."""
    chosen = tf.where(rows >= 0)
    rows = tf.gather(rows, chosen[:, 0])
    sources = _take(cache, tf.gather(patches.sources, rows))
    mirrored = tf.gather(patches.mirrored, rows)[:, None, None, None]
    sources = tf.where(mirrored, sources[:, :, ::-1], sources)
    patched = paste(tf.gather(images, chosen[:, 0]), sources, tf.gather(patches.boxes, rows))
    labels = tf.one_hot(tf.gather(patches.labels, rows), targets.shape[-1])
    images = tf.tensor_scatter_nd_update(tf.cast(images, tf.float32), chosen, patched)
    return images, tf.tensor_scatter_nd_update(targets, chosen, labels)


def evaluation_batches(cache: ImageCache, labels: Sequence[int], classes: int, batch_size: int) -> tf.data.Dataset:
    """All images once, in order, unchanged: float32 0..255 and one-hot float32, as ``training_batches``."""
    one_hot = tf.one_hot(np.asarray(labels), classes)
    return batches_of(cache, one_hot, tf.data.Dataset.range(len(cache)), batch_size)


def batches_of(cache: ImageCache, targets: tf.Tensor, numbers: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
    """The images and targets of these numbers, int64, in batches: float32 0..255, and as ``targets`` has them."""

    def load(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images = tf.cast(_take(cache, indices), tf.float32)
        return _all_channels(images, cache), tf.gather(targets, indices)

    return _prefetched(numbers.batch(batch_size).map(load, num_parallel_calls=threads(), deterministic=True))


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
