"""Tumours put into tumour-free slices, and taken out of their own, so that the source of a slice tells no class.

In public collections the tumour-free slices come from other scanners than the tumours, so a network can be right by
the scanner alone. Here a slice with a tumour and one without exchange what lies in the tumour's box: the second one
then shows a tumour in its own scanner's style, the first one healthy tissue in the style of the tumours. It is CutMix
(Yun et al. 2019) where the box says what makes the class, and so labels need not be mixed.

The edge of a patch would then tell the class again: it is seen where the source belies the class. So other pairs
exchange a decoy, healthy tissue from beside the tumour, and keep their classes.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from btkeras.augmentation.intensity import match_histograms

# A patch reaches a little beyond the box, and fades out over this part of its half axis.
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
    batch: CutMixBatch, key: tf.Tensor, probability: float, decoys: float = 0.0
) -> tuple[tf.Tensor, tf.Tensor]:
    """Pairs slices with a box at random with healthy ones; ``probability`` of the pairs exchange box and class.

    ``decoys`` of the pairs exchange a place of the box's size away from it, and no class. The patch is given the other
    slice's grey levels, and its edge fades. Heads should lie alike in their images (``data.harmonize``), since the
    patch keeps its place.

    Args:
        batch: The images.
        key: int64 ``[2]``, the key of the random numbers.
        probability: In 0..1.
        decoys: In 0..1 - ``probability``. A tumour that leaves no place of its size beside it has none.

    Returns:
        Images float32 and targets, of the shapes they had.
    """
    images, targets, boxes, no_tumor = batch
    x = tf.cast(images, tf.float32) / 255
    draws = tf.random.stateless_uniform([tf.shape(x)[0], 2], key)
    tumor = tf.reduce_any(boxes > 0, axis=1) & ~no_tumor
    ill, well = _shuffled(tumor, draws[:, 0]), _shuffled(no_tumor, draws[:, 0])
    pairs = tf.minimum(tf.size(ill), tf.size(well))
    ill, well = ill[:pairs], well[:pairs]
    draw, own = tf.gather(draws[:, 1], ill), tf.gather(boxes, ill)
    beside, free = _beside(own)
    exchanged = draw < probability
    chosen = exchanged | ((draw < probability + decoys) & free)
    place = tf.where(exchanged[:, None], own, beside)[chosen]
    ill, well, exchanged = ill[chosen], well[chosen], exchanged[chosen]
    with_tumor, without = tf.gather(x, ill), tf.gather(x, well)
    mask = _mask(place, tf.shape(x)[1])
    healed = with_tumor + mask * (match_histograms(without, with_tumor) - with_tumor)
    implanted = without + mask * (match_histograms(with_tumor, without) - without)
    places = tf.concat([ill, well], axis=0)[:, None]
    x = tf.tensor_scatter_nd_update(x, places, tf.concat([healed, implanted], axis=0))
    theirs = tf.concat([tf.gather(targets, well), tf.gather(targets, ill)], axis=0)
    ours = tf.concat([tf.gather(targets, ill), tf.gather(targets, well)], axis=0)
    answers = tf.where(tf.tile(exchanged, [2])[:, None], theirs, ours)
    return 255 * x, tf.tensor_scatter_nd_update(targets, places, answers)


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
