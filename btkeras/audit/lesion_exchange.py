"""Slices with a tumour and without exchange it, to see whether a network follows the tumour or the scan."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from btkeras.augmentation.intensity import match_histograms
from btkeras.augmentation.lesion_cutmix import distance_to_boxes, patch_mask


class ExchangeBatch(NamedTuple):
    """Attributes:
    images: ``[batch, side, side, channels]`` in 0..255.
    targets: One-hot float32 ``[batch, classes]``.
    boxes: float32 ``[batch, 4]``: top, left, bottom, right of the tumour as fractions of the image; all 0 without.
    no_tumor: bool ``[batch]``: whether an image is known to show no tumour.
    """

    images: tf.Tensor
    targets: tf.Tensor
    boxes: tf.Tensor
    no_tumor: tf.Tensor


def exchange_lesions(batch: ExchangeBatch, key: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Pairs slices that have a box at random with tumour-free ones, which exchange the tumour and their classes.

    The patch keeps its place, so heads should lie alike (``data.harmonize``); it is given the other slice's histogram.

    Args:
        batch: The images.
        key: int64 ``[2]``, the key of the random numbers.

    Returns:
        Images float32 and targets, of the shapes they had.
    """
    images, targets, boxes, no_tumor = batch
    x = tf.cast(images, tf.float32) / 255
    draws = tf.random.stateless_uniform([tf.shape(x)[0], 2], key)[:, 0]
    tumor = tf.reduce_any(boxes > 0, axis=1) & ~no_tumor
    first, second = _shuffled(tumor, draws), _shuffled(no_tumor, draws)
    count = tf.minimum(tf.size(first), tf.size(second))
    with_tumor, without = first[:count], second[:count]
    mask = patch_mask(distance_to_boxes(tf.gather(boxes, with_tumor), tf.shape(x)[1]))
    indices, partners = tf.concat([with_tumor, without], axis=0), tf.concat([without, with_tumor], axis=0)
    before, other = tf.gather(x, indices), tf.gather(x, partners)
    patched = before + tf.tile(mask, [2, 1, 1, 1]) * (match_histograms(other, before) - before)
    x = tf.tensor_scatter_nd_update(x, indices[:, None], patched)
    return 255 * x, tf.tensor_scatter_nd_update(targets, indices[:, None], tf.gather(targets, partners))


def _shuffled(wanted: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Indices of the wanted images, in random order."""
    order = tf.argsort(draws)
    return order[tf.gather(wanted, order)]
