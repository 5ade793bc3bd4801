"""Random intensity changes of a batch, as other scanners, coils and sequences would show the same head.

Strong intensity changes help on other collections (Billot et al. 2023, SynthSeg; Zhou et al. 2019, Models Genesis).
Exchanging histograms within a batch removes what a class's intensities alone would tell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from btkeras.augmentation.geometry import random_key
from btkeras.config import IntensityConfig

LEVELS = 256
# Points of the random curve of grey levels; the first stays black.
POINTS = 6
# Cells of the bias field along a side: coils vary slowly.
_CELLS = 4
# A 5 x 5 binomial kernel: a Gaussian with a standard deviation of one pixel.
BINOMIAL = (1.0, 4.0, 6.0, 4.0, 1.0)
# What is drawn for an image, by change, in the order in which these are applied.
_ONE = (1, 1, 1)
_DRAWS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "histogram": (2,),
        "curve": (POINTS,),
        **dict.fromkeys(("gamma", "bias_field", "blur", "noise", "inversion"), _ONE),
    }
)
# And beside these: the bias field's cells, the noise's key, and whether an image is changed at all.
CELLS, NOISE_KEY, CHANGED = "cells", "noise_key", "changed"

Draws = Mapping[str, tf.Tensor]


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
    table = tf.minimum(tf.searchsorted(wanted, ranks), LEVELS - 1)
    matched = tf.gather(tf.reshape(table, [-1]), cells)
    return tf.cast(tf.reshape(matched, tf.shape(levels)), tf.float32) / (LEVELS - 1)


def _cells(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Grey levels, and the places ``[n, pixels]`` of their counts in one histogram behind another."""
    levels = tf.cast(tf.round((LEVELS - 1) * images), tf.int32)
    count = tf.shape(images)[0]
    return levels, tf.reshape(levels, [count, -1]) + LEVELS * tf.range(count)[:, None]


def _counts(cells: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    length = LEVELS * count
    return tf.reshape(tf.math.bincount(cells, minlength=length, maxlength=length), [count, LEVELS])


def draw_intensity(count: int, seed: int, counter: tf.Tensor, config: IntensityConfig) -> Draws:
    """Draws the strengths of the changes that ``config`` asks for, for ``count`` images.

    They depend on ``seed`` and ``counter`` (int64, the number of the batch) alone, a change's on no other change.

    Returns:
        By name float32 ``[count, ...]`` in 0..1; of the noise only the key, int64 ``[2]``. Empty if nothing is changed.
    """
    draws: dict[str, tf.Tensor] = {}
    for use, (name, shape) in enumerate(_DRAWS.items(), start=1):
        if getattr(config, name):
            # By number, so that a change switched off leaves the others as they are.
            key = random_key(seed, counter, use)
            draws[name] = tf.random.stateless_uniform([count, *shape], key)
            if name == "bias_field":
                draws[CELLS] = tf.random.stateless_uniform([count, _CELLS, _CELLS, 1], key + 1)
            if name == "noise":
                draws[NOISE_KEY] = key + 1
    if draws:
        key = random_key(seed, counter, len(_DRAWS) + 1)
        draws[CHANGED] = tf.random.stateless_uniform([count, 1, 1, 1], key)
    return draws


def augment_intensity(images: tf.Tensor, draws: Draws, config: IntensityConfig) -> tf.Tensor:
    """Applies the changes that ``config`` asks for, each image with strengths of its own.

    Args:
        images: float32 ``[batch, side, side, channels]`` in 0..255; all channels are changed alike.
        draws: Of ``draw_intensity``, for as many images; other names in it are passed over.
        config: How much of each.

    Returns:
        float32 of the same shape, in 0..255.
    """
    if CHANGED not in draws:
        return images
    x = images / 255
    for name, change in _CHANGES.items():
        if name in draws:
            x = tf.clip_by_value(change(x, draws, getattr(config, name)), 0, 1)
    return tf.where(draws[CHANGED] < config.probability, 255 * x, images)


def _exchange_histograms(x: tf.Tensor, draws: Draws, probability: float) -> tf.Tensor:
    """Gives ``probability`` of the images the grey levels of a random other one."""
    order, hit = tf.unstack(draws["histogram"], axis=1)
    partner = tf.argsort(order)
    chosen = tf.where(hit < probability)
    matched = match_histograms(tf.gather_nd(x, chosen), tf.gather(x, tf.gather_nd(partner, chosen)))
    return tf.tensor_scatter_nd_update(x, chosen, matched)


def _change_curve(x: tf.Tensor, draws: Draws, share: float) -> tf.Tensor:
    """Mixes a random curve, linear between ``POINTS`` points, with the identity; its highest point is white."""
    share = share * draws["curve"][:, :1]
    line = tf.linspace(0.0, 1.0, POINTS)[None, 1:]
    heights = (1 - share) * line + share * draws["curve"][:, 1:]
    heights /= tf.reduce_max(heights, axis=1, keepdims=True)
    place = (POINTS - 1) * x
    # Each point's hat function: 1 there, 0 from its neighbours on.
    hats = (tf.nn.relu(1 - tf.abs(place - number)) for number in range(1, POINTS))
    return tf.add_n([heights[:, i, None, None, None] * hat for i, hat in enumerate(hats)])


def _change_gamma(x: tf.Tensor, draws: Draws, octaves: float) -> tf.Tensor:
    # A power by logarithm and exponential takes a quarter of the time of ``x ** y``; log 0 gives 0 again.
    return tf.exp(2 ** (octaves * (2 * draws["gamma"] - 1)) * tf.math.log(x))


@cache
def bias_weights(side: int) -> NDArray[np.float32]:
    """What the bias field's cells add to each of ``side`` pixels in a line, bicubic: float32 ``[side, cells]``."""
    with tf.init_scope():
        cells = tf.eye(_CELLS)[..., None, None]
        lines = tf.image.resize(cells, [side, 1], method="bicubic")
    return np.asarray(lines)[..., 0, 0].T


def _add_bias_field(x: tf.Tensor, draws: Draws, octaves: float) -> tf.Tensor:
    """Multiplies with a smooth field, each image with a strength of its own."""
    rows, columns = (bias_weights(side) for side in x.shape[1:3])
    field = tf.einsum("ij,bjkc,lk->bilc", rows, 2 * draws[CELLS] - 1, columns)
    return x * tf.exp(math.log(2) * octaves * draws["bias_field"] * field)


def _blur_or_sharpen(x: tf.Tensor, draws: Draws, share: float) -> tf.Tensor:
    """Mixes with a blurred copy, by -share/2 (sharper) to share."""
    line = tf.constant(BINOMIAL) / sum(BINOMIAL)
    kernel = tf.tile((line[:, None] * line)[:, :, None, None], [1, 1, x.shape[-1], 1])
    blurred = tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME")
    return x + share * (1.5 * draws["blur"] - 0.5) * (blurred - x)


def _add_noise(x: tf.Tensor, draws: Draws, share: float) -> tf.Tensor:
    noise = tf.random.stateless_normal(tf.shape(x)[:3], draws[NOISE_KEY])[..., None]
    deviation = share * tf.math.reduce_std(x, axis=[1, 2, 3], keepdims=True)
    # Magnitude images have no negative values, so dark noise folds up (Rician for no signal).
    return tf.abs(x + deviation * draws["noise"] * noise)


def _invert(x: tf.Tensor, draws: Draws, probability: float) -> tf.Tensor:
    return tf.where(draws["inversion"] < probability, 1 - x, x)


_CHANGES: Mapping[str, Callable[[tf.Tensor, Draws, float], tf.Tensor]] = MappingProxyType(
    {
        "histogram": _exchange_histograms,
        "curve": _change_curve,
        "gamma": _change_gamma,
        "bias_field": _add_bias_field,
        "blur": _blur_or_sharpen,
        "noise": _add_noise,
        "inversion": _invert,
    }
)
