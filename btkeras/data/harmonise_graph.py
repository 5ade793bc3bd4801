"""``btkeras.data.harmonise`` as TensorFlow graph code, equal to the last bit; a test holds the two together."""

from __future__ import annotations

import tensorflow as tf

from btkeras.data.harmonise import (
    BACKGROUND_PERCENT,
    FILLED,
    FOREGROUND,
    MIDDLE,
    SMALLEST_PART,
    SMALLEST_SIDE,
    WHITE_PERCENT,
)


def harmonise(image: tf.Tensor) -> tf.Tensor:
    """Crops a slice to the head and puts it on the common scale of intensity.

    Args:
        image: uint8 ``[height, width, 1]``.

    Returns:
        uint8 ``[rows, columns, 1]`` of the head.
    """
    # Counting is quicker on the CPU than the way to a GPU and back.
    with tf.device("/CPU:0"):
        grey = image[..., 0]
        low, threshold = _levels(grey)
        top, left, bottom, right = _head_box(grey, threshold)
        crop = grey[top:bottom, left:right]
        return tf.gather(_intensity_table(crop, low, threshold), tf.cast(crop, tf.int32))[..., None]


def _head_box(grey: tf.Tensor, threshold: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    # Counts of 25 million pixels, even times 20, still are an int32.
    foreground = tf.cast(grey > tf.cast(threshold, tf.uint8), tf.int32)
    height, width = tf.unstack(tf.shape(grey))
    top, bottom = _largest_run(tf.reduce_sum(foreground, axis=1), width)
    left, right = _largest_run(tf.reduce_sum(foreground[top:bottom], axis=0), bottom - top)
    top, bottom = _largest_run(tf.reduce_sum(foreground[:, left:right], axis=1), right - left)
    rows, columns = bottom - top, right - left
    small = (rows * columns * SMALLEST_PART < height * width) | (tf.minimum(rows, columns) < SMALLEST_SIDE)
    whole = tf.stack([0, 0, height, width])
    found = tf.stack([top, left, bottom, right])
    return tuple(tf.unstack(tf.where(small, whole, found)))


def _largest_run(counts: tf.Tensor, length: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    filled = 100 * counts > FILLED * length
    begins = filled & ~tf.concat([[False], filled[:-1]], axis=0)
    run = tf.where(filled, tf.cumsum(tf.cast(begins, tf.int32)), 0)
    weight = tf.math.unsorted_segment_sum(tf.where(filled, counts, 0), run, tf.reduce_max(run) + 1)
    lines = tf.where(tf.equal(run, tf.argmax(weight, output_type=tf.int32)))[:, 0]
    lines = tf.cast(lines, tf.int32)
    return lines[0], lines[-1] + 1


def _intensity_table(crop: tf.Tensor, low: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    values = tf.range(256, dtype=tf.int64)
    head = tf.where(values > threshold, _histogram(crop), 0)
    middle = tf.maximum(_percentile(head, 50), low + 1)
    high = tf.maximum(_percentile(head, WHITE_PERCENT), middle + 1)
    dark = _line(tf.clip_by_value(values, low, middle) - low, MIDDLE, middle - low)
    bright = _line(tf.clip_by_value(values, middle, high) - middle, 255 - MIDDLE, high - middle)
    return tf.cast(dark + bright, tf.uint8)


def _line(values: tf.Tensor, rise: int, run: tf.Tensor) -> tf.Tensor:
    return (2 * values * rise + run) // (2 * run)


def _levels(grey: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    histogram = _histogram(grey)
    background = _percentile(histogram, BACKGROUND_PERCENT)
    span = _percentile(histogram, WHITE_PERCENT) - background
    return background + span // (2 * FOREGROUND), background + span // FOREGROUND


def _histogram(grey: tf.Tensor) -> tf.Tensor:
    counts = tf.math.bincount(tf.reshape(tf.cast(grey, tf.int32), [-1]), minlength=256, maxlength=256)
    return tf.cast(counts, tf.int64)


def _percentile(histogram: tf.Tensor, percent: int) -> tf.Tensor:
    below = tf.cumsum(histogram)
    # The first of equal values, as in NumPy.
    return tf.argmax(tf.cast(100 * below >= percent * below[-1], tf.int32))
