"""Resizing: exact in every engine, and what Pillow's antialiased bilinear filter gives."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from btkeras.preprocessing import graph as image_graph
from btkeras.preprocessing.resize import QUARTERS, UNIT, resize
from tests.images import scene


@functools.cache
def resizer(size: int, channels: int) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """The graph form; tracing takes longer than all images together."""
    spec = tf.TensorSpec([None, None, channels], tf.uint8)
    traced = tf.function(lambda image: image_graph.resize(image, size), input_signature=[spec])
    return lambda image: traced(image).numpy()


def noise(height: int, width: int, channels: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


@settings(max_examples=40, derandomize=True)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    channels=st.sampled_from([1, 3]),
    size=st.sampled_from([7, 48]),
    seed=st.integers(0, 99),
)
def test_resizing_in_the_graph_and_in_numpy_is_equal(
    height: int, width: int, channels: int, size: int, seed: int
) -> None:
    image = noise(height, width, channels, seed)
    np.testing.assert_array_equal(resizer(size, channels)(image), resize(image, size))


@pytest.mark.parametrize(("height", "width"), [(5000, 20), (20, 5000), (2000, 1500)])
def test_large_images_resize_equally_too(height: int, width: int) -> None:
    image = noise(height, width, 1, 0)
    np.testing.assert_array_equal(resizer(48, 1)(image), resize(image, 48))


@pytest.mark.parametrize(("height", "width", "size"), [(90, 130, 40), (512, 512, 224), (61, 77, 60), (20, 30, 64)])
def test_resizing_is_pillows_antialiased_bilinear_within_one_grey_level(height: int, width: int, size: int) -> None:
    image = scene(height, width)
    pillow = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
    difference = np.abs(resize(image, size).astype(int) - pillow)
    assert difference.max() <= 1
    # Pillow rounds to whole grey levels between its two passes, so many halves fall the other way.
    assert difference.mean() < 0.25


def test_resizing_neither_brightens_nor_darkens() -> None:
    image = scene(90, 130)
    rows, columns = (resize_weights(side, 40) for side in (90, 130))
    exact = np.einsum("yh,hwc,xw->yxc", rows, image, columns)
    difference = resize(image, 40) - exact
    assert np.abs(difference).max() < 0.65
    assert abs(difference.mean()) < 0.01


def resize_weights(source: int, target: int) -> NDArray[np.float64]:
    """The triangle filter as a matrix ``[target, source]``."""
    out, into = 2 * np.arange(target)[:, None] + 1, 2 * np.arange(source)[None] + 1
    weights = np.maximum(2 * max(source, target) - np.abs(into * target - out * source), 0)
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_a_constant_image_stays_constant(value: int) -> None:
    image = np.full((53, 91, 3), value, np.uint8)
    assert (resize(image, 40) == value).all()
    assert (resizer(40, 3)(image) == value).all()


def test_the_same_size_changes_nothing() -> None:
    image = noise(48, 48, 3, 0)
    np.testing.assert_array_equal(resizer(48, 3)(image), image)


@settings(max_examples=30, derandomize=True)
@given(source=st.integers(1, 5000), target=st.integers(1, 600))
def test_weights_sum_to_one_at_every_size(source: int, target: int) -> None:
    assert (resize(np.full((source, 1, 1), 255, np.uint8), target) == 255).all()


def test_no_sum_can_leave_the_whole_numbers_that_float32_counts() -> None:
    # Weights are positive and sum to UNIT, so white is the largest sum, at every size.
    first = 255 * UNIT
    second = np.floor(first * QUARTERS / UNIT + 0.5) * UNIT
    luma = 255 * (19595 + 38470 + 7471) + 32768
    assert max(first, second, luma) < 2**24
