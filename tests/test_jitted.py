"""The augmentation that JAX compiles, held against the one of the tf.data pipeline, with the same draws."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import fields

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from btkeras.augmentation import geometry, intensity, lesion_cutmix
from btkeras.config import AugmentConfig, IntensityConfig
from tests.images import scene

pytestmark = [
    pytest.mark.jax,
    pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs the extra btkeras[jax]"),
]

STEP = tf.constant(3, tf.int64)
# Of 0..255: float32 of other sums and powers.
TOLERANCE = 0.02
STRENGTHS = IntensityConfig(histogram=0.5, curve=0.6, gamma=0.5, bias_field=0.5, blur=1.0, noise=0.3, inversion=0.3)
NAMES = [field.name for field in fields(IntensityConfig) if field.name != "probability"]


def slices(count: int, side: int, channels: int = 1, seed: int = 0) -> NDArray[np.uint8]:
    return np.stack([scene(side, side, seed + i)[..., :channels] for i in range(count)]).astype(np.uint8)


def numpy(draws: Mapping[str, tf.Tensor]) -> dict[str, NDArray[np.generic]]:
    return {name: value.numpy() for name, value in draws.items()}


@pytest.mark.parametrize(
    "config",
    [
        AugmentConfig(),
        AugmentConfig(crop=(1.0, 1.0), horizontal_flip=False, vertical_flip=False, brightness=0.0),
        AugmentConfig(crop=(0.4, 1.0), vertical_flip=True),
        AugmentConfig(crop=(0.85, 1.3), rotation=15.0, aspect_ratio=0.3, vertical_flip=True),
    ],
    ids=["default", "none", "enlarged", "rotated"],
)
@pytest.mark.parametrize(("side", "size", "channels"), [(40, 32, 1), (32, 32, 3)])
def test_geometry(config: AugmentConfig, side: int, size: int, channels: int) -> None:
    from btkeras.augmentation import jitted

    images, numbers = slices(24, side, channels), geometry.random_numbers(24, 0, STEP)
    expected = geometry.augment(tf.constant(images), numbers, size, config).numpy()
    found = np.asarray(jitted.augment(images, numbers.numpy(), size, config))
    # A sample on the very edge may be taken for inside by one and for outside by the other.
    far = np.abs(found - expected).max(axis=-1) > TOLERANCE
    assert far.mean() < 1e-3 and not far[:, 2:-2, 2:-2].any()


@pytest.mark.parametrize("name", [*(name for name in NAMES if name != "noise"), "all"])
def test_intensity(name: str) -> None:
    from btkeras.augmentation import jitted

    images = slices(16, 32).astype(np.float32)
    every = {field: getattr(STRENGTHS, field) for field in NAMES if field != "noise"}
    config = IntensityConfig(**(every if name == "all" else {name: every[name]}), probability=0.7)
    draws = intensity.draw_intensity(16, 0, STEP, config)
    expected = intensity.augment_intensity(tf.constant(images), draws, config).numpy()
    found = np.asarray(jitted.augment_intensity(images, numpy(draws), config))
    # A pixel whose histogram's level rounds to the next one is another level after the match.
    limit = 2.0 if name in ("histogram", "all") else TOLERANCE
    assert np.abs(found - expected).max() < limit and np.abs(expected - images).max() > 1
    assert np.mean(np.abs(found - expected) > TOLERANCE) < 0.01


def test_noise_is_drawn_anew_and_as_strong() -> None:
    from btkeras.augmentation import jitted

    images, config = np.full((8, 64, 64, 1), 128, np.float32), IntensityConfig(noise=0.3, probability=1.0)
    images += 40 * (np.arange(64)[:, None, None] > 31)
    draws = intensity.draw_intensity(8, 0, STEP, config)
    expected = intensity.augment_intensity(tf.constant(images), draws, config).numpy()
    found = np.asarray(jitted.augment_intensity(images, numpy(draws), config))
    deviations = [np.std(each - images, axis=(1, 2, 3)) for each in (found, expected)]
    np.testing.assert_allclose(*deviations, rtol=0.1)
    other = numpy(intensity.draw_intensity(8, 0, STEP + 1, config)) | {"noise": draws["noise"].numpy()}
    assert np.abs(np.asarray(jitted.augment_intensity(images, other, config)) - found).max() > 1


def test_patches() -> None:
    from btkeras.augmentation import jitted

    images, sources = slices(6, 40), slices(6, 40, seed=50)
    boxes = np.random.default_rng(0).uniform(0.1, 0.4, (6, 4)) + np.array([0, 0, 0.4, 0.4])
    boxes = boxes.astype(np.float32)
    expected = lesion_cutmix.paste(tf.constant(images), tf.constant(sources), tf.constant(boxes)).numpy()
    np.testing.assert_allclose(np.asarray(jitted.paste(images, sources, boxes)), expected, atol=TOLERANCE)
