"""Random changes to how images look, held against NumPy, SciPy and scikit-image."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf
from numpy.typing import NDArray

from btkeras.augmentation.intensity import augment_intensity, draw_intensity
from btkeras.config import IntensityConfig
from tests.images import scene

EVERYTHING = IntensityConfig(histogram=0.5, curve=0.6, gamma=0.5, bias_field=0.5, blur=1.0, noise=0.3, inversion=0.1)
NAMES = [field.name for field in fields(IntensityConfig) if field.name != "probability"]
ALONE = [IntensityConfig(**{name: getattr(EVERYTHING, name)}) for name in NAMES]

Images = NDArray[np.float32]


def run(images: Images, config: IntensityConfig, seed: int = 0, counter: int = 0) -> Images:
    draws = draw_intensity(len(images), seed, tf.constant(counter, tf.int64), config)
    return augment_intensity(tf.constant(images), draws, config).numpy()


def sample_images(count: int = 16, side: int = 32) -> Images:
    return np.stack([scene(side, side, seed)[..., :1] for seed in range(count)]).astype(np.float32)


def ramps(count: int = 32) -> Images:
    """Every grey level once."""
    return np.tile(np.arange(256, dtype=np.float32).reshape(1, 16, 16, 1), (count, 1, 1, 1))


@pytest.mark.parametrize("config", [EVERYTHING, *ALONE], ids=["all", *NAMES])
def test_it_changes_images_and_keeps_shape_and_range(config: IntensityConfig) -> None:
    images = sample_images()
    changed = run(images, config)
    assert changed.shape == images.shape and changed.dtype == np.float32
    assert changed.min() >= 0 and changed.max() <= 255
    assert np.abs(changed - images).max() > 1


def test_nothing_asked_for_changes_nothing_to_the_last_bit() -> None:
    images = sample_images()
    np.testing.assert_array_equal(run(images, IntensityConfig()), images)


@pytest.mark.parametrize("config", [EVERYTHING, *ALONE], ids=["all", *NAMES])
def test_it_depends_on_seed_and_counter_alone(config: IntensityConfig) -> None:
    images = sample_images(8)
    first = run(images, config, seed=1, counter=5)
    np.testing.assert_array_equal(run(images, config, seed=1, counter=5), first)
    assert np.abs(run(images, config, seed=1, counter=6) - first).max() > 0
    assert np.abs(run(images, config, seed=2, counter=5) - first).max() > 0


def test_inside_tf_data_it_is_the_same() -> None:
    images = sample_images()
    traced = tf.data.Dataset.from_tensors(images).map(
        lambda x: augment_intensity(x, draw_intensity(16, 0, tf.constant(0, tf.int64), EVERYTHING), EVERYTHING)
    )
    np.testing.assert_allclose(next(iter(traced)).numpy(), run(images, EVERYTHING), atol=1e-2)


def test_channels_are_changed_alike() -> None:
    grey = sample_images(8)
    config = IntensityConfig(curve=0.6, gamma=0.5, bias_field=0.5, blur=1.0, noise=0.3)
    color = run(np.repeat(grey, 3, axis=-1), config)
    np.testing.assert_allclose(color, np.repeat(run(grey, config), 3, axis=-1), atol=1e-2)


def test_a_change_that_is_off_leaves_the_others_as_they_are() -> None:
    images = sample_images()
    gamma = run(images, IntensityConfig(gamma=1.0))
    np.testing.assert_allclose(run(images, IntensityConfig(gamma=1.0, inversion=1.0)), 255 - gamma, atol=1e-3)


def test_only_some_images_are_changed() -> None:
    images = sample_images(200, 16)
    changed = np.abs(run(images, IntensityConfig(probability=0.25, inversion=1.0)) - images).max(axis=(1, 2, 3)) > 0
    assert 30 <= changed.sum() <= 70
    everything = run(images, IntensityConfig(inversion=1.0))
    np.testing.assert_array_equal(
        run(images, IntensityConfig(probability=0.25, inversion=1.0))[changed], everything[changed]
    )


def test_exchanged_histograms_are_scikit_images() -> None:
    exposure = pytest.importorskip("skimage.exposure")
    rng = np.random.default_rng(0)
    # Grey levels that occur often and are spread differently, so that both ways to interpolate agree.
    images = np.stack([scipy.ndimage.gaussian_filter(rng.normal(size=(128, 128)), s) for s in (1, 3)])
    images = np.stack([(image - image.min()) / np.ptp(image) for image in images]) ** np.array([1, 2])[:, None, None]
    images = np.round(255 * images)[..., None].astype(np.float32)
    config = IntensityConfig(histogram=1.0)
    changed = next(c for c in (run(images, config, counter=i) for i in range(20)) if np.abs(c - images).max() > 20)
    for own, other, result in ((0, 1, changed[0]), (1, 0, changed[1])):
        expected = exposure.match_histograms(images[own, ..., 0], images[other, ..., 0])
        assert np.abs(result[..., 0] - expected).mean() < 1


def test_an_image_alone_keeps_its_histogram() -> None:
    images = np.round(sample_images(1))
    np.testing.assert_allclose(run(images, IntensityConfig(histogram=1.0)), images, atol=1e-3)


def test_curve_is_a_curve_between_points_that_keeps_black_and_reaches_white() -> None:
    curves = run(ramps(), IntensityConfig(curve=1.0)).reshape(-1, 256)
    assert curves[:, 0].max() == 0
    corners = np.abs(np.diff(curves, 2)) > 0.02
    # Five pieces have four corners, each seen in at most two neighbouring levels.
    assert corners.sum(axis=1).max() <= 8 and corners.sum() > 64
    np.testing.assert_allclose(curves.max(axis=1), 255, atol=3)
    assert (np.diff(curves) < 0).any()


def test_gamma_is_a_power_within_its_octaves() -> None:
    curves = run(ramps(), IntensityConfig(gamma=1.0)).reshape(-1, 256)[:, 1:255] / 255
    exponents = np.log(curves) / np.log(np.arange(1, 255) / 255)
    np.testing.assert_allclose(exponents, exponents[:, :1].repeat(254, 1), rtol=1e-3)
    assert 0.5 <= exponents.min() < 0.7 and 1.4 < exponents.max() <= 2


def test_a_bias_field_is_smooth_and_within_its_octaves() -> None:
    grey = np.full((32, 64, 64, 1), 100, np.float32)
    exponents = np.log2(run(grey, IntensityConfig(bias_field=1.0))[..., 0] / 100)
    # A bicubic curve may overshoot its cells a little.
    assert np.abs(exponents).max() <= 1.3 and np.abs(exponents).max() > 0.5
    assert np.abs(np.diff(exponents, axis=1)).max() < 0.2
    assert np.ptp(exponents, axis=(1, 2)).min() < 0.2


def test_blur_mixes_with_a_gaussian_copy() -> None:
    images = sample_images(32)
    inside = images[:, 2:-2, 2:-2]
    line = np.array([1, 4, 6, 4, 1]) / 16
    blurred = scipy.ndimage.convolve(images, np.outer(line, line)[None, :, :, None])[:, 2:-2, 2:-2]
    # Away from black and white, where sharpening is cut off.
    changed = run(0.5 * images + 60, IntensityConfig(blur=1.0))[:, 2:-2, 2:-2]
    differences, towards = changed - (0.5 * inside + 60), 0.5 * (blurred - inside)
    shares = (differences * towards).sum(axis=(1, 2, 3)) / (towards**2).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(differences, shares[:, None, None, None] * towards, atol=0.05)
    assert -0.5 <= shares.min() < 0 < 0.5 < shares.max() <= 1


def test_noise_is_measured_by_the_images_own_deviation() -> None:
    images = np.clip(sample_images(64, 48) * 0.4 + 80, 0, 255).astype(np.float32)
    share = (run(images, IntensityConfig(noise=0.5)) - images).std(axis=(1, 2, 3)) / images.std(axis=(1, 2, 3))
    assert share.max() < 0.52 and share.max() > 0.4 and share.min() < 0.1
    flat = np.full((4, 8, 8, 1), 90, np.float32)
    np.testing.assert_allclose(run(flat, IntensityConfig(noise=0.5)), flat, atol=1e-3)


def test_inversion_makes_the_negative_of_some_images() -> None:
    images = sample_images(200, 16)
    changed = run(images, IntensityConfig(inversion=0.25))
    inverted = np.abs(changed - (255 - images)).max(axis=(1, 2, 3)) < 1e-3
    kept = np.abs(changed - images).max(axis=(1, 2, 3)) < 1e-3
    assert (inverted ^ kept).all() and 30 <= inverted.sum() <= 70
