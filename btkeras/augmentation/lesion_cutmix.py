"""Lesion CutMix: a slice with a tumour and one without exchange what lies in the tumour's box, and their classes.

In public collections tumour-free slices come from other scanners, so the scanner alone can tell the class; here each
class appears in the other's style. It is CutMix (Yun et al. 2019) where the box decides the class, so labels are not
mixed. Since the edge of a patch would tell the class again, other pairs exchange tissue beside the tumour and keep
their classes (background CutMix).
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from btkeras.augmentation.intensity import match_histograms

# A patch reaches a little beyond the box, and fades out over this fraction of its half axis.
_REACH = 1.25
_FADE = 0.35


class CutMixBatch(NamedTuple):
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


def lesion_cutmix(
    batch: CutMixBatch, key: tf.Tensor, probability: float, background_probability: float = 0.0
) -> tuple[tf.Tensor, tf.Tensor]:
    """Pairs slices that have a box at random with tumour-free ones, which exchange a patch.

    The patch keeps its place, so heads should lie alike (``data.harmonize``); it is given the other slice's histogram.

    Args:
        batch: The images.
        key: int64 ``[2]``, the key of the random numbers.
        probability: Of a pair to exchange box and class, in 0..1.
        background_probability: Of a pair to exchange a patch of the box's size beside it, and no class, in
            0..1 - ``probability``. A tumour that leaves no room beside it has none.

    Returns:
        Images float32 and targets, of the shapes they had.
    """
    images, targets, boxes, no_tumor = batch
    x = tf.cast(images, tf.float32) / 255
    draws = tf.random.stateless_uniform([tf.shape(x)[0], 2], key)
    tumor = tf.reduce_any(boxes > 0, axis=1) & ~no_tumor
    first, second = _shuffled(tumor, draws[:, 0]), _shuffled(no_tumor, draws[:, 0])
    count = tf.minimum(tf.size(first), tf.size(second))
    pairs = tf.stack([first[:count], second[:count]])
    draw, own = tf.gather(draws[:, 1], pairs[0]), tf.gather(boxes, pairs[0])
    beside, free = _beside(own)
    exchanged = draw < probability
    chosen = exchanged | ((draw < probability + background_probability) & free)
    mask = _mask(tf.where(exchanged[:, None], own, beside)[chosen], tf.shape(x)[1])
    with_tumor, without = tf.unstack(tf.boolean_mask(pairs, chosen, axis=1))
    indices, partners = tf.concat([with_tumor, without], axis=0), tf.concat([without, with_tumor], axis=0)
    before, other = tf.gather(x, indices), tf.gather(x, partners)
    patched = before + tf.tile(mask, [2, 1, 1, 1]) * (match_histograms(other, before) - before)
    labels = tf.gather(targets, tf.where(tf.tile(exchanged[chosen], [2]), partners, indices))
    x = tf.tensor_scatter_nd_update(x, indices[:, None], patched)
    return 255 * x, tf.tensor_scatter_nd_update(targets, indices[:, None], labels)


def _beside(boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The boxes mirrored left to right or, if the two patches would touch, top to bottom; and where neither touches."""
    top, left, bottom, right = tf.unstack(boxes, axis=1)
    sideways, upright = tf.stack([top, 1 - right, bottom, 1 - left], 1), tf.stack([1 - bottom, left, 1 - top, right], 1)
    free_sideways = tf.abs(left + right - 1) > _REACH * (right - left)
    free_upright = tf.abs(top + bottom - 1) > _REACH * (bottom - top)
    return tf.where(free_sideways[:, None], sideways, upright), free_sideways | free_upright


def _shuffled(wanted: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Indices of the wanted images, in random order."""
    order = tf.argsort(draws)
    return order[tf.gather(wanted, order)]


def _mask(boxes: tf.Tensor, side: tf.Tensor) -> tf.Tensor:
    """Ellipses in the boxes, 1 inside and fading to 0: float32 ``[n, side, side, 1]``."""
    places = (tf.range(side, dtype=tf.float32) + 0.5) / tf.cast(side, tf.float32)
    top, left, bottom, right = tf.unstack(boxes, axis=1)
    rows = (places - ((top + bottom) / 2)[:, None]) / tf.maximum((bottom - top) / 2, 1e-3)[:, None]
    columns = (places - ((left + right) / 2)[:, None]) / tf.maximum((right - left) / 2, 1e-3)[:, None]
    distance = tf.sqrt(rows[:, :, None] ** 2 + columns[:, None, :] ** 2)
    return tf.clip_by_value((_REACH - distance) / _FADE, 0, 1)[..., None]
