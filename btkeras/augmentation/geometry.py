"""Random crop, flips, rotation, aspect-ratio jitter and brightness of a batch, from given random numbers."""

from __future__ import annotations

import math

import tensorflow as tf

from btkeras.config import AugmentConfig

# Uniform numbers of an image: crop side, top, left, both flips, brightness, rotation, aspect ratio.
NUMBERS = 8
_FIRST = 6
# Distance, in pixels, from the outermost pixel centres that no rounding crosses.
INSIDE = 1e-3


def random_numbers(count: int | tf.Tensor, seed: int, counter: tf.Tensor) -> tf.Tensor:
    """Uniform numbers in [0, 1) for ``count`` images, float32 ``[count, NUMBERS]``.

    They depend on ``seed`` and ``counter`` alone: neither the pipeline's parallelism nor a restart changes them.
    """
    key = tf.constant(seed, tf.int64)
    # Two draws, so that the first numbers are those of runs from before rotation was added.
    first = tf.random.stateless_uniform([count, _FIRST], [key, counter])
    return tf.concat([first, tf.random.stateless_uniform([count, NUMBERS - _FIRST], [key, -1 - counter])], axis=1)


def random_key(seed: int, counter: tf.Tensor, use: int) -> tf.Tensor:
    """A key int64 ``[2]`` for stateless random operations; each ``use`` of a batch has its own."""
    key = tf.stack([tf.constant(seed, tf.int64), counter])
    return tf.random.experimental.stateless_fold_in(key, tf.constant(use, tf.int64))


def augment(images: tf.Tensor, numbers: tf.Tensor, size: int, config: AugmentConfig) -> tf.Tensor:
    """Changes each image on its own.

    Args:
        images: uint8 or float32 ``[batch, side, side, channels]`` in 0..255.
        numbers: float32 ``[batch, NUMBERS]`` in [0, 1), from ``random_numbers``.
        size: Side of the result, pixels.
        config: How much of each.

    Returns:
        float32 ``[batch, size, size, channels]`` in 0..255.
    """
    side, top, left, horizontal, vertical, brightness, rotation, aspect_ratio = tf.unstack(numbers, NUMBERS, axis=1)
    low, high = config.crop
    side = low + (high - low) * side
    top, left = top * (1 - side), left * (1 - side)
    height, width = (tf.cast(tf.shape(images)[axis], tf.float32) for axis in (1, 2))
    first, last = _sampled(top, side, height, size, (vertical < 0.5) & config.vertical_flip)
    leftmost, rightmost = _sampled(left, side, width, size, (horizontal < 0.5) & config.horizontal_flip)
    boxes = tf.stack([first, leftmost, last, rightmost], axis=1)
    # Outside of the image both operations give black.
    if config.rotation or config.aspect_ratio:
        angle = (2 * rotation - 1) * (config.rotation * math.pi / 180)
        crops = _rotated(images, boxes, angle, 2 ** ((aspect_ratio - 0.5) * config.aspect_ratio), size)
    else:
        crops = tf.image.crop_and_resize(images, boxes, tf.range(tf.shape(images)[0]), [size, size])
    shift = (2 * brightness - 1) * 255 * config.brightness
    return tf.clip_by_value(crops + shift[:, None, None, None], 0, 255)


def _rotated(images: tf.Tensor, boxes: tf.Tensor, angle: tf.Tensor, aspect_ratio: tf.Tensor, size: int) -> tf.Tensor:
    """Samples boxes as ``crop_and_resize`` does, but rotated about their centres (radians) and wider by a ratio."""
    height, width = (tf.cast(tf.shape(images)[axis], tf.float32) for axis in (1, 2))
    first, left, last, right = tf.unstack(boxes, axis=1)
    # Source pixels from one sampled place to the next, negative where flipped.
    down, across = (last - first) * (height - 1) / (size - 1), (right - left) * (width - 1) / (size - 1)
    down, across = down / aspect_ratio, across * aspect_ratio
    middle = (size - 1) / 2
    cos, sin = tf.cos(angle), tf.sin(angle)
    x0 = (left + right) * (width - 1) / 2 - across * (cos - sin) * middle
    y0 = (first + last) * (height - 1) / 2 - down * (sin + cos) * middle
    nothing = tf.zeros_like(angle)
    matrix = [across * cos, -across * sin, x0, down * sin, down * cos, y0, nothing, nothing]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=tf.stack(matrix, axis=1),
        output_shape=[size, size],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


def _sampled(
    start: tf.Tensor, side: tf.Tensor, source: tf.Tensor, size: int, flip: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The first and last sampled place of crops at ``start``, ``side`` long (fractions), in ``crop_and_resize``'s unit.

    That unit, from the first pixel's centre to the last one's, would stretch the image; here its scale stays, and the
    whole image at its own size comes out unchanged to the last bit.
    """
    step = side * (source / size)
    first = start * source + (step - 1) / 2
    last = (start + side) * source - (step + 1) / 2
    # The edge of an enlarged crop can lie between the image's edge and its first centre, where no pixel is.
    enlarged = (step < 1) & (side <= 1)
    first = tf.where(enlarged, tf.maximum(first, INSIDE), first) / (source - 1)
    last = tf.where(enlarged, tf.minimum(last, source - 1 - INSIDE), last) / (source - 1)
    return tf.where(flip, last, first), tf.where(flip, first, last)
