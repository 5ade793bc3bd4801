"""Stores to batches: the tf.data pipelines of training and evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from btkeras.config import AppearanceConfig, AugmentConfig
from btkeras.data.appearance import change_appearance
from btkeras.data.augment import augment, random_key, random_numbers
from btkeras.data.boxes import Tumours
from btkeras.data.store import Store
from btkeras.data.tumour_exchange import Batch, exchange_tumours
from btkeras.machine import threads

_PREFETCH = 2
_UNCHANGED = AppearanceConfig()


def stored_size(image_size: int, config: AugmentConfig) -> int:
    """Side at which training pictures are kept, so that the smallest crop is not enlarged (at most 1.5 times)."""
    return round(image_size / max(config.crop[0], 2 / 3))


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Number of training steps; a last, smaller batch is dropped, since its batch statistics would be poor."""
    return max(count // batch_size, 1)


def training_batches(  # noqa: PLR0913 - each argument comes from another part of the configuration
    store: Store,
    labels: Sequence[int],
    classes: int,
    *,
    image_size: int,
    batch_size: int,
    augmentation: AugmentConfig,
    appearance: AppearanceConfig = _UNCHANGED,
    tumours: Tumours | None = None,
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
        images, answers = _take_kept(store, indices), tf.gather(targets, indices)
        if tumours is not None and augmentation.tumour_exchange:
            boxes, healthy = tf.gather(tumours.boxes, indices), tf.gather(tumours.healthy, indices)
            images = _all_channels(images, store)
            batch, key = Batch(images, answers, boxes, healthy), random_key(seed, step, 0)
            images, answers = exchange_tumours(batch, key, augmentation.tumour_exchange, augmentation.tumour_decoys)
        images = augment(images, random_numbers(size_of_batch, seed, step), image_size, augmentation)
        # As late as possible: grey pictures have a third of the pixels.
        images = _all_channels(images, store)
        return change_appearance(images, seed, step, appearance), answers

    numbers = tf.data.Dataset.range(epochs.start * steps, epochs.stop * steps)
    return _run(numbers.map(load, num_parallel_calls=threads(), deterministic=True))


def evaluation_batches(store: Store, labels: Sequence[int], classes: int, batch_size: int) -> tf.data.Dataset:
    """All pictures once, in order, unchanged: float32 0..255 and one-hot float32, as ``training_batches``."""
    targets = tf.one_hot(np.asarray(labels), classes)

    def load(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images = tf.cast(_take_kept(store, indices), tf.float32)
        return _all_channels(images, store), tf.gather(targets, indices)

    batches = tf.data.Dataset.range(len(store)).batch(batch_size)
    return _run(batches.map(load, num_parallel_calls=threads(), deterministic=True))


def _take_kept(store: Store, indices: tf.Tensor) -> tf.Tensor:
    # Declared stateless, which it is; else op determinism would run the map on one thread.
    images = tf.numpy_function(store.take_kept, [indices], tf.uint8, stateful=False)
    side = store.shape[0]
    return tf.ensure_shape(images, [None, side, side, store.kept_channels])


def _all_channels(images: tf.Tensor, store: Store) -> tf.Tensor:
    """Repeats the one channel of pictures that are kept grey."""
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
