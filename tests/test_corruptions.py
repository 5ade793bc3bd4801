"""Corruptions: what all of them have in common, and each against an independent reference."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy.ndimage import gaussian_filter
from scipy.signal import convolve2d
from scipy.stats import rice

from btkeras.errors import ConfigError
from btkeras.evaluation.corruptions import CORRUPTIONS, LEVELS, corrupt

EVERY = pytest.mark.parametrize("name", CORRUPTIONS)


def head(seed: int = 0, height: int = 240, width: int = 200) -> np.ndarray:
    """A textured ellipse on black, uint8 ``[height, width, 1]``: dark and bright parts, coarse and fine ones."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    texture = gaussian_filter(rng.normal(size=(height, width)), 2) * 4 + rng.normal(size=(height, width)) / 4
    pixels = np.where(rows**2 + columns**2 < 0.7, 110 + 50 * texture, 4)
    return np.clip(pixels, 0, 255).astype(np.uint8)[..., None]


def flat(value: int, side: int = 200) -> np.ndarray:
    return np.full((side, side, 1), value, np.uint8)


def distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(float) - second).mean())


@EVERY
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_keeps_its_shape_and_is_not_touched(name: str, channels: int) -> None:
    image = np.repeat(head(), channels, axis=-1)
    before = image.copy()
    for level in LEVELS:
        changed = corrupt(image, name, level)
        assert changed.dtype == np.uint8 and changed.shape == image.shape
        assert distance(changed, image) > 0
    np.testing.assert_array_equal(image, before)


@EVERY
def test_level_0_changes_nothing_and_more_changes_more(name: str) -> None:
    for seed in range(2):
        image = head(seed)
        distances = [distance(corrupt(image, name, level), image) for level in (0, *LEVELS)]
        assert distances[0] == 0
        assert all(low < high for low, high in pairwise(distances)), distances


@EVERY
def test_the_same_image_gets_the_same_change(name: str) -> None:
    image = head()
    np.testing.assert_array_equal(corrupt(image, name, 3), corrupt(image.copy(), name, 3))


@EVERY
def test_grey_stays_grey_and_becomes_what_it_would_with_one_channel(name: str) -> None:
    changed = corrupt(np.repeat(head(), 3, axis=-1), name, 2).astype(int)
    # What is random is drawn anew for an image of another shape; JPEG's colours are rounded.
    assert np.ptp(changed, axis=-1).max() <= (1 if name == "jpeg" else 0)


def test_other_images_get_other_noise_and_other_directions() -> None:
    def residual(value: int) -> np.ndarray:
        return corrupt(flat(value), "noise", 2).astype(float).ravel() - value

    assert abs(np.corrcoef(residual(100), residual(101))[0, 1]) < 0.05
    darker = [corrupt(head(seed), "gamma", 4).mean() < head(seed).mean() for seed in range(40)]
    assert 8 < sum(darker) < 32


@pytest.mark.parametrize(("name", "level"), [("snow", 1), ("noise", 6), ("noise", -1)])
def test_what_is_not_known_is_refused(name: str, level: int) -> None:
    with pytest.raises(ConfigError, match="noise, blur"):
        corrupt(head(), name, level)


@pytest.mark.parametrize("value", [0, 10, 130])
def test_noise_is_scipys_rice_distribution(value: int) -> None:
    sigma = CORRUPTIONS["noise"].strengths[2]
    found = corrupt(flat(value), "noise", 3) / 255
    mean, variance = rice.stats(value / 255 / sigma, scale=sigma, moments="mv")
    assert found.mean() == pytest.approx(mean, abs=0.002)
    assert found.var() == pytest.approx(variance, rel=0.04)


def test_blur_is_a_convolution_with_a_gaussian() -> None:
    image, level = head(), 5
    sigma = CORRUPTIONS["blur"].strengths[level - 1] * 200
    places = np.arange(-12, 13)
    kernel = np.exp(-(places**2) / (2 * sigma**2))
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    expected = convolve2d(np.pad(image[..., 0].astype(float), 12, "edge"), kernel, "valid")
    np.testing.assert_allclose(corrupt(image, "blur", level)[..., 0], expected, atol=0.6)


def test_gamma_is_a_power_or_its_inverse() -> None:
    image, exponent = head(3), CORRUPTIONS["gamma"].strengths[4]
    powers = [np.round(255 * (image / 255) ** power) for power in (exponent, 1 / exponent)]
    assert min(distance(corrupt(image, "gamma", 5), power) for power in powers) < 0.01


def test_a_bias_field_is_a_smooth_factor_of_the_stated_size() -> None:
    octaves = np.log2(corrupt(flat(100), "bias field", 3)[..., 0] / 100)
    places = np.linspace(-1, 1, 200)
    terms = [np.outer(places**i, places**j).ravel() for i in range(4) for j in range(4 - i)]
    fit = np.linalg.lstsq(np.stack(terms, axis=1), octaves.ravel(), rcond=None)[0] @ np.stack(terms)
    # What rounding to whole grey levels leaves.
    assert np.abs(fit - octaves.ravel()).max() < 0.02
    strength = CORRUPTIONS["bias field"].strengths[2]
    assert octaves.max() == pytest.approx(strength, abs=0.02) and octaves.min() == pytest.approx(-strength, abs=0.02)


def test_rotation_is_pillows() -> None:
    image = head()
    turned = corrupt(image, "rotation", 3)[..., 0]
    angle = CORRUPTIONS["rotation"].strengths[2]
    pillow = [
        np.asarray(Image.fromarray(image[..., 0]).rotate(side * angle, Image.Resampling.BILINEAR, fillcolor=4))
        for side in (-1, 1)
    ]
    near, far = sorted(distance(turned, one) for one in pillow)
    assert near < 0.5 < 5 < far
    # Not black: what the image's edge is.
    assert turned[0, 0] == turned[-1, -1] == 4


@pytest.mark.parametrize("level", LEVELS)
def test_jpeg_is_what_tensorflow_makes_of_the_same_quality(level: int) -> None:
    import tensorflow as tf

    image = head()
    encoded = tf.io.encode_jpeg(image, quality=int(CORRUPTIONS["jpeg"].strengths[level - 1]))
    decoded = tf.io.decode_jpeg(encoded, dct_method="INTEGER_ACCURATE").numpy()
    assert np.abs(corrupt(image, "jpeg", level).astype(int) - decoded).max() <= 1


def test_less_contrast_keeps_the_mean_and_shrinks_the_deviation() -> None:
    image = head()
    changed, part = corrupt(image, "contrast", 4), CORRUPTIONS["contrast"].strengths[3]
    assert changed.mean() == pytest.approx(image.mean(), abs=0.5)
    assert changed.std() == pytest.approx(part * image.std(), rel=0.01)


def test_fewer_pixels_keep_what_is_coarse_and_lose_what_is_fine() -> None:
    rows, columns = np.mgrid[:200, :200]
    fine = (100 + 100 * ((rows + columns) % 2)).astype(np.uint8)[..., None]
    assert corrupt(fine, "resolution", 5).std() < 3
    coarse = (100 + 100 * np.sin(2 * np.pi * rows / 200)).astype(np.uint8)[..., None]
    assert distance(corrupt(coarse, "resolution", 5), coarse) < 3


def test_inversion_blends_with_pillows_negative_up_to_the_whole_of_it() -> None:
    image = head()
    grey = Image.fromarray(image[..., 0])
    negative = ImageOps.invert(grey)
    for level, share in zip(LEVELS, CORRUPTIONS["inversion"].strengths, strict=True):
        blend = np.asarray(Image.blend(grey, negative, share), float)
        np.testing.assert_allclose(corrupt(image, "inversion", level)[..., 0], blend, atol=1)
    np.testing.assert_array_equal(corrupt(image, "inversion", 5)[..., 0], np.asarray(negative))
