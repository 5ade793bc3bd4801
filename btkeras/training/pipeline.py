"""Stores to batches: the tf.data pipelines of training and evaluation."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from btkeras.augmentation.geometry import augment, random_key, random_numbers
from btkeras.augmentation.intensity import augment_intensity
from btkeras.augmentation.lesion_cutmix import CutMixBatch, lesion_cutmix
from btkeras.config import AugmentConfig, ExperimentConfig, IntensityConfig
from btkeras.datasets.boxes import LesionBoxes, boxes_in_heads, lesion_boxes
from btkeras.datasets.dataset import Dataset, Record
from btkeras.errors import DataError
from btkeras.machine import cache_folder, threads
from btkeras.preprocessing.cache import ImageCache, build_cache, resolved_cache
from btkeras.preprocessing.preprocessor import Preprocessor
from btkeras.splitting.splits import SUBSETS, Split

_NAMED = 20
_QUIET_SECONDS = 30.0


@dataclass(frozen=True)
class Inputs:
    """Attributes:
    stores: Images of each part, broken ones left out.
    labels: Class indices of each part's images.
    broken: Path (relative to the dataset) and reason of each image that could not be read.
    tumors: Boxes of the training images, where ``augment.lesion_cutmix`` needs them.
    """

    stores: dict[str, ImageCache]
    labels: dict[str, list[int]]
    broken: dict[str, str]
    tumors: LesionBoxes | None = None

    @property
    def location(self) -> str:
        """Where the training images are cached, for people."""
        return self.stores["train"].location


def build_inputs(
    dataset: Dataset, split: Split, config: ExperimentConfig, *, skip_broken: bool = False, keep_test: bool = False
) -> Inputs:
    """Decodes every image of the split once, so that a broken one is known before anything is trained.

    Args:
        dataset: The images.
        split: Their use.
        config: Says how they are decoded and where they are kept.
        skip_broken: Leave out what cannot be read.
        keep_test: Whether the test part's images take memory too. On disk they are kept for the evaluation anyway.

    Raises:
        DataError: If some cannot be read and ``skip_broken`` is not set; it names them. Also if a part loses all its
            images of a class.
    """
    sizes = dict.fromkeys(SUBSETS, config.data.image_size) | {
        "train": stored_size(config.data.image_size, config.augment)
    }
    stores: dict[str, ImageCache] = {}
    labels: dict[str, list[int]] = {}
    broken: dict[str, str] = {}
    for subset in SUBSETS:
        records = split.subset(subset)
        keep = keep_test or subset != "test"
        stores[subset] = load_images(dataset, records, sizes[subset], config, name=subset, keep=keep)
        reasons = stores[subset].broken
        broken |= {records[i].path: str(error) for i, error in reasons.items()}
        labels[subset] = [dataset.classes.index(r.label) for i, r in enumerate(records) if i not in reasons]
    if broken and not skip_broken:
        raise broken_images(broken)
    for subset in SUBSETS:
        _check_classes_left(subset, split.subset(subset), broken)
    return Inputs(stores, labels, broken, _tumors(dataset, split, config, broken))


def _tumors(dataset: Dataset, split: Split, config: ExperimentConfig, broken: Collection[str]) -> LesionBoxes | None:
    if not config.augment.lesion_cutmix:
        return None
    if unknown := set(config.augment.cutmix_classes) - set(dataset.classes):
        raise DataError(
            f"augment.cutmix_classes must be classes of the dataset: {', '.join(dataset.classes)}",
            received=min(unknown),
        )
    records = [record for record in split.train if record.path not in broken]
    boxes = [record.box for record in records]
    if config.data.harmonize:
        boxes = boxes_in_heads([dataset.root / record.path for record in records], boxes)
    tumors = lesion_boxes([record.label for record in records], boxes, config.augment.cutmix_classes)
    for what, found in (("a tumour's box", tumors.boxes.any()), ("a slice without tumour", tumors.no_tumor.any())):
        if not found:
            raise DataError(
                "augment.lesion_cutmix needs slices of no_tumor, and boxes of "
                + " and ".join(config.augment.cutmix_classes),
                received=f"{dataset.root} without {what} in its training part",
                remedy="Prepare it from masks or boxes.csv, or set augment.lesion_cutmix=0",
            )
    return tumors


def _check_classes_left(subset: str, records: Sequence[Record], broken: Collection[str]) -> None:
    lost = {r.label for r in records} - {r.label for r in records if r.path not in broken}
    if lost:
        raise DataError(
            "Each part of a split must keep a readable image of each of its classes",
            received=f"no readable {min(lost)} in {subset}",
            remedy="Mend the broken images, or remove them and start a new run",
        )


def load_images(
    dataset: Dataset, records: Sequence[Record], size: int, config: ExperimentConfig, *, name: str, keep: bool = True
) -> ImageCache:
    """Decodes the given records' images, with a progress bar; without ``keep`` they take no memory."""
    decoder = Preprocessor(size, config.data.channels, config.data.harmonize)
    cache = resolved_cache(config.data.cache, len(records), decoder)
    # A log gets a line now and then, if it takes long.
    pause = 0.0 if sys.stderr.isatty() else _QUIET_SECONDS

    def progress(images):  # type: ignore[no-untyped-def]
        return tqdm(
            images,
            f"reading {name}",
            len(records),
            unit=" images",
            file=sys.stderr,
            leave=False,
            delay=pause,
            mininterval=max(pause, 0.1),
            maxinterval=max(pause, 10.0),
        )

    return build_cache(
        [dataset.root / record.path for record in records],
        decoder,
        cache="none" if cache == "memory" and not keep else cache,
        folder=cache_folder() / "images",
        progress=progress,
    )


def broken_images(broken: dict[str, str]) -> DataError:
    """The error that names broken images, the first of them where there are many."""
    reasons = [f"\n  {reason.removesuffix('.')}" for reason in list(broken.values())[:_NAMED]]
    more = f"\n  and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
    return DataError(
        "Every image of a dataset must be readable",
        received=f"{len(broken)} broken:{''.join(reasons)}{more}",
        remedy="Mend or remove them, or leave them out: --skip-broken",
    )


_PREFETCH = 2
_UNCHANGED = IntensityConfig()


def stored_size(image_size: int, config: AugmentConfig) -> int:
    """Side at which training images are kept, so that the smallest crop is not enlarged (at most 1.5 times)."""
    return round(image_size / max(config.crop[0], 2 / 3))


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Number of training steps; a last, smaller batch is dropped, since its batch statistics would be poor."""
    return max(count // batch_size, 1)


def training_batches(  # noqa: PLR0913 - each argument comes from another part of the configuration
    store: ImageCache,
    labels: Sequence[int],
    classes: int,
    *,
    image_size: int,
    batch_size: int,
    augmentation: AugmentConfig,
    intensity: IntensityConfig = _UNCHANGED,
    tumors: LesionBoxes | None = None,
    seed: int,
    epochs: range,
) -> tf.data.Dataset:
    """Augmented batches, epoch after epoch, in one dataset (so that nothing stops at an epoch's end).

    Order and augmentation are functions of (seed, epoch, position): a run resumed at an epoch sees what the
    uninterrupted run sees, and parallelism changes nothing.

    Returns:
        A dataset of float32 ``[batch, image_size, image_size, channels]`` in 0..255 and one-hot float32
        ``[batch, classes]``; ``steps_per_epoch`` batches for each of ``epochs``.
    """
    count = len(store)
    steps = steps_per_epoch(count, batch_size)
    targets = tf.one_hot(np.asarray(labels), classes)
    size_of_batch = min(batch_size, count)

    def load(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        epoch, first = step // steps, step % steps * size_of_batch
        positions = first + tf.range(size_of_batch, dtype=tf.int64)
        key = tf.stack([tf.constant(seed, tf.int64), epoch])
        indices = tf.random.experimental.index_shuffle(positions, key, max_index=count - 1)
        images, answers = _take_stored(store, indices), tf.gather(targets, indices)
        if tumors is not None and augmentation.lesion_cutmix:
            boxes, no_tumor = tf.gather(tumors.boxes, indices), tf.gather(tumors.no_tumor, indices)
            images = _all_channels(images, store)
            batch, key = CutMixBatch(images, answers, boxes, no_tumor), random_key(seed, step, 0)
            images, answers = lesion_cutmix(batch, key, augmentation.lesion_cutmix, augmentation.background_cutmix)
        images = augment(images, random_numbers(size_of_batch, seed, step), image_size, augmentation)
        # As late as possible: grey images have a third of the pixels.
        images = _all_channels(images, store)
        return augment_intensity(images, seed, step, intensity), answers

    numbers = tf.data.Dataset.range(epochs.start * steps, epochs.stop * steps)
    return _run(numbers.map(load, num_parallel_calls=threads(), deterministic=True))


def evaluation_batches(store: ImageCache, labels: Sequence[int], classes: int, batch_size: int) -> tf.data.Dataset:
    """All images once, in order, unchanged: float32 0..255 and one-hot float32, as ``training_batches``."""
    targets = tf.one_hot(np.asarray(labels), classes)

    def load(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images = tf.cast(_take_stored(store, indices), tf.float32)
        return _all_channels(images, store), tf.gather(targets, indices)

    batches = tf.data.Dataset.range(len(store)).batch(batch_size)
    return _run(batches.map(load, num_parallel_calls=threads(), deterministic=True))


def _take_stored(store: ImageCache, indices: tf.Tensor) -> tf.Tensor:
    # Declared stateless, which it is; else op determinism would run the map on one thread.
    images = tf.numpy_function(store.take_stored, [indices], tf.uint8, stateful=False)
    side = store.shape[0]
    return tf.ensure_shape(images, [None, side, side, store.stored_channels])


def _all_channels(images: tf.Tensor, store: ImageCache) -> tf.Tensor:
    """Repeats the one channel of images that are kept grey."""
    channels = store.shape[1]
    if images.shape[-1] == channels:
        return images
    return tf.broadcast_to(images, tf.concat([tf.shape(images)[:3], [channels]], axis=0))


def _run(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    # With autotuning on, ending an iterator can wait for the tuner's next wake-up: up to 40 s at each epoch's end.
    options.autotune.enabled = False
    options.deterministic = True
    return dataset.prefetch(_PREFETCH).with_options(options)
