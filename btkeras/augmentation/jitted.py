"""The augmentation of a batch for JAX to compile: what ``geometry``, ``lesion_cutmix`` and ``intensity`` do.

The same draws give the same images to float32's rounding; the noise alone has other random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from btkeras.augmentation.geometry import INSIDE, NUMBERS
from btkeras.augmentation.intensity import BINOMIAL, CELLS, CHANGED, LEVELS, NOISE_KEY, POINTS, bias_weights
from btkeras.augmentation.lesion_cutmix import CONTRAST, FADE, REACH, SURROUNDINGS
from btkeras.config import AugmentConfig, IntensityConfig

Draws = Mapping[str, Array]


def augment(images: Array, numbers: Array, size: int, config: AugmentConfig) -> Array:
    """As ``geometry.augment``."""
    side, top, left, horizontal, vertical, brightness, rotation, aspect_ratio = (numbers[:, i] for i in range(NUMBERS))
    low, high = config.crop
    side = low + (high - low) * side
    height, width = images.shape[1:3]
    first, last = _sampled(top * (1 - side), side, height, size, (vertical < 0.5) & config.vertical_flip)
    leftmost, rightmost = _sampled(left * (1 - side), side, width, size, (horizontal < 0.5) & config.horizontal_flip)
    angle = (2 * rotation - 1) * (config.rotation * math.pi / 180)
    stretched = 2 ** ((aspect_ratio - 0.5) * config.aspect_ratio)
    down, across = (last - first) / (size - 1) / stretched, (rightmost - leftmost) / (size - 1) * stretched
    steps = jnp.arange(size, dtype=jnp.float32) - (size - 1) / 2
    y, x = steps[None, :, None], steps[None, None, :]
    down, across, cos, sin, middle, centre = (
        each[:, None, None]
        for each in (down, across, jnp.cos(angle), jnp.sin(angle), (first + last) / 2, (leftmost + rightmost) / 2)
    )
    rows, columns = middle + down * (sin * x + cos * y), centre + across * (cos * x - sin * y)
    crops = jax.vmap(partial(_bilinear, faded=bool(config.rotation or config.aspect_ratio)))(images, rows, columns)
    shift = (2 * brightness - 1) * 255 * config.brightness
    return jnp.clip(crops + shift[:, None, None, None], 0, 255)


def _sampled(start: Array, side: Array, source: int, size: int, flip: Array) -> tuple[Array, Array]:
    """As ``geometry._sampled``, in source pixels."""
    step = side * (source / size)
    first = start * source + (step - 1) / 2
    last = (start + side) * source - (step + 1) / 2
    enlarged = (step < 1) & (side <= 1)
    first = jnp.where(enlarged, jnp.maximum(first, INSIDE), first)
    last = jnp.where(enlarged, jnp.minimum(last, source - 1 - INSIDE), last)
    return jnp.where(flip, last, first), jnp.where(flip, first, last)


def _bilinear(image: Array, rows: Array, columns: Array, *, faded: bool) -> Array:
    """Samples ``[height, width, channels]``; outside is black, ``faded`` to or not, as TensorFlow does it."""
    height, width = image.shape[:2]
    inside = (rows > -1) & (rows < height) & (columns > -1) & (columns < width)
    if not faded:
        inside = (rows >= 0) & (rows <= height - 1) & (columns >= 0) & (columns <= width - 1)
    top, left = jnp.floor(rows), jnp.floor(columns)
    found = jnp.zeros((*rows.shape, image.shape[2]), jnp.float32)
    for row, row_share in ((top, top + 1 - rows), (top + 1, rows - top)):
        for column, column_share in ((left, left + 1 - columns), (left + 1, columns - left)):
            there = (row >= 0) & (row < height) & (column >= 0) & (column < width) & inside
            pixels = image[jnp.clip(row, 0, height - 1).astype(int), jnp.clip(column, 0, width - 1).astype(int)]
            found += jnp.where(there, row_share * column_share, 0.0)[..., None] * pixels
    return found


def paste(images: Array, sources: Array, boxes: Array) -> Array:
    """As ``lesion_cutmix.paste``."""
    images, sources = images.astype(jnp.float32), sources.astype(jnp.float32)
    places = (jnp.arange(images.shape[1], dtype=jnp.float32) + 0.5) / images.shape[1]
    top, left, bottom, right = (boxes[:, i] for i in range(4))
    rows, columns = (
        (places - ((low + high) / 2)[:, None]) / jnp.maximum((high - low) / 2, 1e-3)[:, None]
        for low, high in ((top, bottom), (left, right))
    )
    distance = jnp.sqrt(rows[:, :, None] ** 2 + columns[:, None, :] ** 2)[..., None]
    around = ((distance >= REACH) & (distance < SURROUNDINGS)).astype(jnp.float32)
    (mean, deviation), (own, contrast) = _moments(images, around), _moments(sources, around)
    gain = jnp.clip(deviation / contrast, 1 / CONTRAST, CONTRAST)
    patch = jnp.clip((sources - own) * gain + mean, 0, 255)
    return images + jnp.clip((REACH - distance) / FADE, 0, 1) * (patch - images)


def _moments(images: Array, weights: Array) -> tuple[Array, Array]:
    weights = jnp.broadcast_to(weights + 1e-6, images.shape)
    mean = jnp.average(images, (1, 2, 3), weights, keepdims=True)
    return mean, jnp.sqrt(jnp.average((images - mean) ** 2, (1, 2, 3), weights, keepdims=True) + 1)


def augment_intensity(images: Array, draws: Draws, config: IntensityConfig) -> Array:
    """As ``intensity.augment_intensity``."""
    if CHANGED not in draws:
        return images
    x = images / 255
    for name, change in _CHANGES.items():
        if name in draws:
            x = jnp.clip(change(x, draws, getattr(config, name)), 0, 1)
    return jnp.where(draws[CHANGED] < config.probability, 255 * x, images)


def _exchange_histograms(x: Array, draws: Draws, probability: float) -> Array:
    order, hit = draws["histogram"][:, 0], draws["histogram"][:, 1]
    levels = jnp.round((LEVELS - 1) * x).astype(int)
    counts = jax.vmap(lambda level: jnp.bincount(level.ravel(), length=LEVELS))(levels)
    wanted = jnp.cumsum(counts[jnp.argsort(order)], axis=1)
    table = jax.vmap(jnp.searchsorted)(wanted, jnp.cumsum(counts, axis=1) - counts // 2)
    matched = jax.vmap(lambda line, level: line[level])(jnp.minimum(table, LEVELS - 1), levels)
    return jnp.where((hit < probability)[:, None, None, None], matched / (LEVELS - 1), x)


def _change_curve(x: Array, draws: Draws, share: float) -> Array:
    share = share * draws["curve"][:, :1]
    heights = (1 - share) * jnp.linspace(0.0, 1.0, POINTS)[1:] + share * draws["curve"][:, 1:]
    heights /= heights.max(axis=1, keepdims=True)
    place = (POINTS - 1) * x
    hats = (jnp.maximum(1 - jnp.abs(place - number), 0) for number in range(1, POINTS))
    return sum(heights[:, i, None, None, None] * hat for i, hat in enumerate(hats))


def _change_gamma(x: Array, draws: Draws, octaves: float) -> Array:
    return x ** (2 ** (octaves * (2 * draws["gamma"] - 1)))


def _add_bias_field(x: Array, draws: Draws, octaves: float) -> Array:
    rows, columns = bias_weights(x.shape[1]), bias_weights(x.shape[2])
    field = jnp.einsum("ij,bjkc,lk->bilc", rows, 2 * draws[CELLS] - 1, columns)
    return x * jnp.exp(math.log(2) * octaves * draws["bias_field"] * field)


def _blur_or_sharpen(x: Array, draws: Draws, share: float) -> Array:
    line = np.array(BINOMIAL, np.float32) / sum(BINOMIAL)
    blurred = x
    for axis in (1, 2):
        blurred = _along(blurred, line, axis)
    return x + share * (1.5 * draws["blur"] - 0.5) * (blurred - x)


def _along(x: Array, line: NDArray[np.float32], axis: int) -> Array:
    """Convolution with a line of odd length, zeros beyond the edge."""
    half, size = len(line) // 2, x.shape[axis]
    padded = jnp.pad(x, [(half, half) if i == axis else (0, 0) for i in range(x.ndim)])
    shifted = (jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(len(line)))
    return sum(weight * each for weight, each in zip(line, shifted, strict=True))


def _add_noise(x: Array, draws: Draws, share: float) -> Array:
    noise = jax.random.normal(jax.random.wrap_key_data(draws[NOISE_KEY].astype(jnp.uint32)), (*x.shape[:3], 1))
    return jnp.abs(x + share * x.std(axis=(1, 2, 3), keepdims=True) * draws["noise"] * noise)


def _invert(x: Array, draws: Draws, probability: float) -> Array:
    return jnp.where(draws["inversion"] < probability, 1 - x, x)


_CHANGES: Mapping[str, Callable[[Array, Draws, float], Array]] = {
    "histogram": _exchange_histograms,
    "curve": _change_curve,
    "gamma": _change_gamma,
    "bias_field": _add_bias_field,
    "blur": _blur_or_sharpen,
    "noise": _add_noise,
    "inversion": _invert,
}
