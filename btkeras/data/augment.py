"""Random crop, flips and brightness for a whole batch, as a function of the pictures and of given random numbers."""

from __future__ import annotations

import tensorflow as tf

from btkeras.config import AugmentConfig

# Uniform numbers a picture uses: crop side, top, left, mirror, turn over, brightness.
NUMBERS = 6


def random_numbers(count: int | tf.Tensor, seed: int, counter: tf.Tensor) -> tf.Tensor:
    """Uniform numbers in [0, 1) for ``count`` pictures, float32 ``[count, NUMBERS]``.

    Stateless: they depend on ``seed`` and ``counter`` alone, so neither the order nor the parallelism of the
    pipeline, nor a restart, changes them.
    """
    return tf.random.stateless_uniform([count, NUMBERS], [tf.constant(seed, tf.int64), counter])


def augment(images: tf.Tensor, numbers: tf.Tensor, size: int, config: AugmentConfig) -> tf.Tensor:
    """Crops, mirrors and brightens each picture on its own.

    Args:
        images: uint8 ``[batch, side, side, channels]``.
        numbers: float32 ``[batch, NUMBERS]`` in [0, 1), from ``random_numbers``.
        size: Side of the result, pixels.
        config: How much of each.

    Returns:
        float32 ``[batch, size, size, channels]`` in 0..255.
    """
    side, top, left, mirror, over, brightness = tf.unstack(numbers, NUMBERS, axis=1)
    low, high = config.crop
    side = low + (high - low) * side
    top, left = top * (1 - side), left * (1 - side)
    rows = _flip(top, top + side, (over < 0.5) & config.vertical_flip)
    columns = _flip(left, left + side, (mirror < 0.5) & config.horizontal_flip)
    crops = _crop(images, rows, columns, size)
    shift = (2 * brightness - 1) * 255 * config.brightness
    return tf.clip_by_value(crops + shift[:, None, None, None], 0, 255)


def _flip(start: tf.Tensor, end: tf.Tensor, flip: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.where(flip, end, start), tf.where(flip, start, end)


def _crop(
    images: tf.Tensor, rows: tuple[tf.Tensor, tf.Tensor], columns: tuple[tf.Tensor, tf.Tensor], size: int
) -> tf.Tensor:
    """Samples each picture between the given fractions of its height and width; outside is black."""
    height, width = (tf.cast(tf.shape(images)[axis], tf.float32) for axis in (1, 2))
    top, bottom = _pixel_centres(*rows, height, size)
    left, right = _pixel_centres(*columns, width, size)
    boxes = tf.stack([top, left, bottom, right], axis=1)
    return tf.image.crop_and_resize(images, boxes, tf.range(tf.shape(images)[0]), [size, size])


def _pixel_centres(start: tf.Tensor, end: tf.Tensor, source: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """From edges as fractions to the first and last sampled centre, in ``crop_and_resize``'s unit (source - 1).

    Its own mapping stretches corner centre to corner centre; this one keeps scale and position, so that the whole
    picture at its own size comes out unchanged.
    """
    half = (end - start) / (2 * size)
    return ((start + half) * source - 0.5) / (source - 1), ((end - half) * source - 0.5) / (source - 1)
