"""Histogram matching of whole batches, in the graph."""

from __future__ import annotations

import tensorflow as tf

_LEVELS = 256


def match_histograms(images: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Gives each picture the grey levels of another: the brightest tenth of it becomes as bright as the other's.

    Args:
        images: float32 ``[n, height, width, channels]`` in 0..1; counted as 256 levels, all channels together.
        others: The same for the pictures to be like.

    Returns:
        float32 as ``images``, of the 256 levels.
    """
    levels, cells = _cells(images)
    counts = _counts(cells, tf.shape(images)[0])
    wanted = tf.cumsum(_counts(_cells(others)[1], tf.shape(others)[0]), axis=1)
    # The middle of each level's ranks, so that a picture matched with itself stays as it is.
    ranks = tf.cumsum(counts, axis=1) - counts // 2
    table = tf.minimum(tf.searchsorted(wanted, ranks), _LEVELS - 1)
    matched = tf.gather(tf.reshape(table, [-1]), cells)
    return tf.cast(tf.reshape(matched, tf.shape(levels)), tf.float32) / (_LEVELS - 1)


def _cells(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Grey levels, and the places ``[n, pixels]`` of their counts in one histogram behind another."""
    levels = tf.cast(tf.round((_LEVELS - 1) * images), tf.int32)
    count = tf.shape(images)[0]
    return levels, tf.reshape(levels, [count, -1]) + _LEVELS * tf.range(count)[:, None]


def _counts(cells: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    length = _LEVELS * count
    return tf.reshape(tf.math.bincount(cells, minlength=length, maxlength=length), [count, _LEVELS])
