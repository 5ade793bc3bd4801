"""Random intensity changes of a batch, as other scanners, coils and sequences would show the same head.

Strong intensity changes help on other collections (Billot et al. 2023, SynthSeg; Zhou et al. 2019, Models Genesis).
Exchanging histograms within a batch removes what a class's intensities alone would tell.
"""

from __future__ import annotations

import math

import tensorflow as tf

from btkeras.augmentation.geometry import random_key
from btkeras.config import IntensityConfig

_LEVELS = 256
# Points of the random curve of grey levels; the first stays black.
_POINTS = 6
# Cells of the bias field along a side: coils vary slowly.
_CELLS = 4
# A 5 x 5 binomial kernel: a Gaussian with a standard deviation of one pixel.
_BINOMIAL = (1.0, 4.0, 6.0, 4.0, 1.0)


def match_histograms(images: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Gives each image the histogram of another.

    Args:
        images: float32 ``[n, height, width, channels]`` in 0..1; counted as 256 levels, all channels together.
        others: The same for the images to match.

    Returns:
        float32 as ``images``, of the 256 levels.
    """
    levels, cells = _cells(images)
    counts = _counts(cells, tf.shape(images)[0])
    wanted = tf.cumsum(_counts(_cells(others)[1], tf.shape(others)[0]), axis=1)
    # The middle of each level's ranks, so that an image matched with itself stays as it is.
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


def augment_intensity(images: tf.Tensor, seed: int, counter: tf.Tensor, config: IntensityConfig) -> tf.Tensor:
    """Applies the changes that ``config`` asks for, each image with strengths of its own.

    Args:
        images: float32 ``[batch, side, side, channels]`` in 0..255; all channels are changed alike.
        seed: The training's seed; with ``counter`` it decides all random numbers.
        counter: int64 scalar, the number of the batch.
        config: How much of each.

    Returns:
        float32 of the same shape, in 0..255.
    """
    x = images / 255
    changes = (
        (config.histogram, _exchange_histograms),
        (config.curve, _change_curve),
        (config.gamma, _change_gamma),
        (config.bias_field, _add_bias_field),
        (config.blur, _blur_or_sharpen),
        (config.noise, _add_noise),
        (config.inversion, _invert),
    )
    if not any(strength for strength, _ in changes):
        return images
    for use, (strength, change) in enumerate(changes, start=1):
        if strength:
            # By number, so that a change switched off leaves the others as they are.
            x = tf.clip_by_value(change(x, random_key(seed, counter, use), strength), 0, 1)
    changed = _uniform(x, random_key(seed, counter, len(changes) + 1)) < config.probability
    return tf.where(changed, 255 * x, images)


def _uniform(x: tf.Tensor, key: tf.Tensor, *shape: int) -> tf.Tensor:
    """Numbers in 0..1 for each image, ``[batch, 1, 1, 1]`` or ``[batch, *shape]``."""
    return tf.random.stateless_uniform([tf.shape(x)[0], *(shape or (1, 1, 1))], key)


def _exchange_histograms(x: tf.Tensor, key: tf.Tensor, probability: float) -> tf.Tensor:
    """Gives ``probability`` of the images the grey levels of a random other one."""
    draws = _uniform(x, key, 2)
    partner = tf.argsort(draws[:, 0])
    chosen = tf.where(draws[:, 1] < probability)
    matched = match_histograms(tf.gather_nd(x, chosen), tf.gather(x, tf.gather_nd(partner, chosen)))
    return tf.tensor_scatter_nd_update(x, chosen, matched)


def _change_curve(x: tf.Tensor, key: tf.Tensor, share: float) -> tf.Tensor:
    """Mixes a random curve, linear between ``_POINTS`` points, with the identity; its highest point is white."""
    draws = _uniform(x, key, _POINTS)
    share = share * draws[:, :1]
    line = tf.linspace(0.0, 1.0, _POINTS)[None, 1:]
    heights = (1 - share) * line + share * draws[:, 1:]
    heights /= tf.reduce_max(heights, axis=1, keepdims=True)
    place = (_POINTS - 1) * x
    # Each point's hat function: 1 there, 0 from its neighbours on.
    hats = (tf.nn.relu(1 - tf.abs(place - number)) for number in range(1, _POINTS))
    return tf.add_n([heights[:, i, None, None, None] * hat for i, hat in enumerate(hats)])


def _change_gamma(x: tf.Tensor, key: tf.Tensor, octaves: float) -> tf.Tensor:
    # A power by logarithm and exponential takes a quarter of the time of ``x ** y``; log 0 gives 0 again.
    return tf.exp(2 ** (octaves * (2 * _uniform(x, key) - 1)) * tf.math.log(x))


def _add_bias_field(x: tf.Tensor, key: tf.Tensor, octaves: float) -> tf.Tensor:
    """Multiplies with a smooth field, each image with a strength of its own."""
    strength, cells = _uniform(x, key), _uniform(x, key + 1, _CELLS, _CELLS, 1)
    field = tf.image.resize(2 * cells - 1, tf.shape(x)[1:3], method="bicubic")
    return x * tf.exp(math.log(2) * octaves * strength * field)


def _blur_or_sharpen(x: tf.Tensor, key: tf.Tensor, share: float) -> tf.Tensor:
    """Mixes with a blurred copy, by -share/2 (sharper) to share."""
    line = tf.constant(_BINOMIAL) / sum(_BINOMIAL)
    kernel = tf.tile((line[:, None] * line)[:, :, None, None], [1, 1, x.shape[-1], 1])
    blurred = tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME")
    return x + share * (1.5 * _uniform(x, key) - 0.5) * (blurred - x)


def _add_noise(x: tf.Tensor, key: tf.Tensor, share: float) -> tf.Tensor:
    noise = tf.random.stateless_normal(tf.shape(x)[:3], key + 1)[..., None]
    deviation = share * tf.math.reduce_std(x, axis=[1, 2, 3], keepdims=True)
    # Magnitude images have no negative values, so dark noise folds up (Rician for no signal).
    return tf.abs(x + deviation * _uniform(x, key) * noise)


def _invert(x: tf.Tensor, key: tf.Tensor, probability: float) -> tf.Tensor:
    return tf.where(_uniform(x, key) < probability, 1 - x, x)
