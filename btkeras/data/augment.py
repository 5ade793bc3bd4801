"""Random crop, flips and brightness for a whole batch, as a function of the pictures and of given random numbers."""

from __future__ import annotations

import tensorflow as tf

from btkeras.config import AugmentConfig

# Uniform numbers a picture uses: crop side, top, left, mirror, turn over, brightness.
NUMBERS = 6
# So far, in pixels, within the outermost centres that no rounding leads out of them.
_INSIDE = 1e-3


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
    height, width = (tf.cast(tf.shape(images)[axis], tf.float32) for axis in (1, 2))
    first, last = _sampled(top, side, height, size, (over < 0.5) & config.vertical_flip)
    leftmost, rightmost = _sampled(left, side, width, size, (mirror < 0.5) & config.horizontal_flip)
    boxes = tf.stack([first, leftmost, last, rightmost], axis=1)
    # Outside of the picture it gives black.
    crops = tf.image.crop_and_resize(images, boxes, tf.range(tf.shape(images)[0]), [size, size])
    shift = (2 * brightness - 1) * 255 * config.brightness
    return tf.clip_by_value(crops + shift[:, None, None, None], 0, 255)


def _sampled(
    start: tf.Tensor, side: tf.Tensor, source: tf.Tensor, size: int, flip: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The first and the last place that is sampled of each crop, in ``crop_and_resize``'s unit.

    That unit, from the first pixel's centre to the last one's, would stretch a crop corner centre to corner centre.
    Here scale and position are kept, and the whole picture at its own size comes out unchanged to the last bit.

    Args:
        start: Upper or left edge of each crop, as a fraction of the picture.
        side: Length of each crop, as a fraction of the picture.
        source: The picture's length, pixels.
        size: The result's length, pixels.
        flip: Whether to mirror.
    """
    step = side * (source / size)
    first = start * source + (step - 1) / 2
    last = (start + side) * source - (step + 1) / 2
    # The edge of an enlarged crop can lie between the picture's edge and its first centre, where no pixel is.
    enlarged = (step < 1) & (side <= 1)
    first = tf.where(enlarged, tf.maximum(first, _INSIDE), first) / (source - 1)
    last = tf.where(enlarged, tf.minimum(last, source - 1 - _INSIDE), last) / (source - 1)
    return tf.where(flip, last, first), tf.where(flip, first, last)
