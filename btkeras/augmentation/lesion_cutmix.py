"""Lesion CutMix: slices get patches of similar slices, and the class follows the tumour.

In public collections tumour-free slices come from other scanners and planes than tumours, so these alone can tell the
class; here each class appears in the other's heads. It is CutMix (Yun et al. 2019) where the tumour decides the class,
so labels are not mixed. ``btkeras.augmentation.patches`` says what fits where.
"""

from __future__ import annotations

import tensorflow as tf

from btkeras.augmentation.patches import Patches, PatchKind
from btkeras.config import AugmentConfig

# A patch reaches a little beyond the box, and fades out over this fraction of its half axis.
REACH, FADE = 1.25, 0.35
# It gets the mean and deviation that surround the place, up to so many half axes, its contrast at most this changed.
SURROUNDINGS, CONTRAST = 1.9, 1.8


def draw_patches(patches: Patches, indices: tf.Tensor, key: tf.Tensor, config: AugmentConfig) -> tf.Tensor:
    """Draws a patch, or none, for each image of a batch.

    Args:
        patches: Of the training images.
        indices: int ``[batch]``, which images.
        key: int64 ``[2]``, the key of the random numbers.
        config: Shares of the kinds among the images that have any.

    Returns:
        int32 ``[batch]``: a row of ``patches``, or -1.
    """
    draws = tf.random.stateless_uniform([tf.size(indices), 2], key)
    shares = {
        PatchKind.BACKGROUND: config.background_cutmix,
        PatchKind.REMOVAL: config.lesion_removal,
        PatchKind.LESION: config.lesion_cutmix,
    }
    chosen, low = tf.fill([tf.size(indices)], -1), 0.0
    for kind, share in shares.items():
        first, count = (tf.gather(table[kind], indices) for table in (patches.starts, patches.counts))
        row = first + tf.cast(draws[:, 1] * tf.cast(count, tf.float32), tf.int32)
        hit = (draws[:, 0] >= low) & (draws[:, 0] < low + share) & (count > 0)
        chosen, low = tf.where(hit, tf.minimum(row, first + count - 1), chosen), low + share
    return chosen


def paste(images: tf.Tensor, sources: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """Puts a patch of each source into its image, with the brightness and contrast of the place.

    Args:
        images: uint8 or float32 ``[n, side, side, channels]`` in 0..255.
        sources: The same, mirrored where they must be.
        boxes: float32 ``[n, 4]``: top, left, bottom, right as fractions.

    Returns:
        float32 as ``images``.
    """
    images, sources = tf.cast(images, tf.float32), tf.cast(sources, tf.float32)
    distance = distance_to_boxes(boxes, tf.shape(images)[1])
    mask = patch_mask(distance)
    around = tf.cast((distance >= REACH) & (distance < SURROUNDINGS), tf.float32)
    (mean, deviation), (own, contrast) = _moments(images, around), _moments(sources, around)
    gain = tf.clip_by_value(deviation / contrast, 1 / CONTRAST, CONTRAST)
    patch = tf.clip_by_value((sources - own) * gain + mean, 0, 255)
    return images + mask * (patch - images)


def patch_mask(distance: tf.Tensor) -> tf.Tensor:
    """Share of the patch in each pixel, 0..1, by ``distance_to_boxes``."""
    return tf.clip_by_value((REACH - distance) / FADE, 0, 1)


def distance_to_boxes(boxes: tf.Tensor, side: tf.Tensor) -> tf.Tensor:
    """Distance of the pixels from the boxes' centres, in half axes: float32 ``[n, side, side, 1]``."""
    places = (tf.range(side, dtype=tf.float32) + 0.5) / tf.cast(side, tf.float32)
    top, left, bottom, right = tf.unstack(boxes, axis=1)
    rows = (places - ((top + bottom) / 2)[:, None]) / tf.maximum((bottom - top) / 2, 1e-3)[:, None]
    columns = (places - ((left + right) / 2)[:, None]) / tf.maximum((right - left) / 2, 1e-3)[:, None]
    return tf.sqrt(rows[:, :, None] ** 2 + columns[:, None, :] ** 2)[..., None]


def _moments(images: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Weighted mean, and deviation of at least 1, of each image: float32 ``[n, 1, 1, 1]``."""
    mean, variance = tf.nn.weighted_moments(images, [1, 2, 3], weights + 1e-6, keepdims=True)
    return mean, tf.sqrt(variance + 1)
