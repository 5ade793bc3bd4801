"""Random crop, flips and brightness, held against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf
from numpy.typing import NDArray

from btkeras.augmentation.geometry import NUMBERS, augment, random_numbers
from btkeras.config import AugmentConfig
from btkeras.preprocessing.resize import resize
from tests.images import scene

SIDE, TOP, LEFT, MIRROR, OVER, BRIGHTNESS, TURN, ASPECT = range(NUMBERS)
STILL = AugmentConfig(crop=(1.0, 1.0), horizontal_flip=False, vertical_flip=False, brightness=0.0)
FLIPS = AugmentConfig(crop=(1.0, 1.0), brightness=0.0)
WILD = AugmentConfig(crop=(0.5, 1.5), brightness=0.5)


def numbers(count: int = 1, **given: float) -> NDArray[np.float32]:
    """Numbers that crop in the middle, flip nothing and leave the brightness, unless given."""
    values = np.tile(np.array([0.5, 0.5, 0.5, 0.9, 0.9, 0.5, 0.5, 0.5], np.float32), (count, 1))
    for name, value in given.items():
        values[:, globals()[name.upper()]] = value
    return values


def run(
    images: NDArray[np.uint8], uniform: NDArray[np.float32], size: int, config: AugmentConfig
) -> NDArray[np.float32]:
    return augment(tf.constant(images), tf.constant(uniform), size, config).numpy()


def sample_images(side: int, count: int = 4) -> NDArray[np.uint8]:
    return np.stack([scene(side, side, seed) for seed in range(count)])


def plain(
    image: NDArray[np.uint8], uniform: NDArray[np.float32], size: int, config: AugmentConfig
) -> NDArray[np.float64]:
    """One image, pixel by pixel, in float64 and without any trick."""
    low, high = config.crop
    side = low + (high - low) * float(uniform[SIDE])
    source = image.shape[0]
    places = []
    for number, wanted, flip in ((TOP, config.vertical_flip, OVER), (LEFT, config.horizontal_flip, MIRROR)):
        start = float(uniform[number]) * (1 - side)
        centers = (start + side * (np.arange(size) + 0.5) / size) * source - 0.5
        places.append(centers[::-1] if wanted and uniform[flip] < 0.5 else centers)
    result = np.zeros((size, size, image.shape[-1]))
    for y, row in enumerate(places[0]):
        for x, column in enumerate(places[1]):
            if 0 <= row <= source - 1 and 0 <= column <= source - 1:
                result[y, x] = _between(image, row, column)
    return np.clip(result + (2 * float(uniform[BRIGHTNESS]) - 1) * 255 * config.brightness, 0, 255)


def _between(image: NDArray[np.uint8], row: float, column: float) -> NDArray[np.float64]:
    y, x = int(row), int(column)
    below, right = min(y + 1, image.shape[0] - 1), min(x + 1, image.shape[1] - 1)
    down, across = row - y, column - x
    upper = image[y, x] * (1 - across) + image[y, right] * across
    lower = image[below, x] * (1 - across) + image[below, right] * across
    return upper * (1 - down) + lower * down


@pytest.mark.parametrize(
    "config", [AugmentConfig(), WILD, AugmentConfig(crop=(0.8, 1.2))], ids=["paper", "wild", "1.2"]
)
def test_it_is_bilinear_sampling_of_the_crop(config: AugmentConfig) -> None:
    images = sample_images(40)
    uniform = random_numbers(4, 5, tf.constant(0, tf.int64)).numpy()
    expected = [plain(image, row, 32, config) for image, row in zip(images, uniform, strict=True)]
    np.testing.assert_allclose(run(images, uniform, 32, config), expected, atol=1e-3)


def turned(
    image: NDArray[np.uint8], uniform: NDArray[np.float32], size: int, config: AugmentConfig
) -> NDArray[np.float64]:
    """The same with rotation and aspect ratio, by SciPy's interpolation: turned about the crop's centre."""
    low, high = config.crop
    crop, source = low + (high - low) * float(uniform[SIDE]), image.shape[0]
    angle = np.deg2rad((2 * float(uniform[TURN]) - 1) * config.rotation)
    aspect_ratio = 2 ** ((float(uniform[ASPECT]) - 0.5) * config.aspect_ratio)
    v, u = (np.indices((size, size)) - (size - 1) / 2) * crop * source / size
    across = -1 if config.horizontal_flip and uniform[MIRROR] < 0.5 else 1
    down = -1 if config.vertical_flip and uniform[OVER] < 0.5 else 1
    center = [(float(uniform[place]) * (1 - crop) + crop / 2) * source - 0.5 for place in (TOP, LEFT)]
    row = center[0] + down * (np.sin(angle) * u + np.cos(angle) * v) / aspect_ratio
    column = center[1] + across * (np.cos(angle) * u - np.sin(angle) * v) * aspect_ratio
    planes = [
        scipy.ndimage.map_coordinates(plane.astype(float), [row, column], order=1, mode="grid-constant")
        for plane in np.moveaxis(image, -1, 0)
    ]
    shift = (2 * float(uniform[BRIGHTNESS]) - 1) * 255 * config.brightness
    return np.clip(np.stack(planes, axis=-1) + shift, 0, 255)


@pytest.mark.parametrize(
    "changes", [{"rotation": 30.0}, {"aspect_ratio": 0.5}, {"rotation": 180.0, "aspect_ratio": 1.0}]
)
def test_rotation_and_aspect_ratio_are_bilinear_sampling_about_the_crops_center(changes: dict[str, float]) -> None:
    config = AugmentConfig(crop=(0.5, 1.5), brightness=0.1, **changes)
    images = sample_images(40, 6)
    uniform = random_numbers(6, 5, tf.constant(0, tf.int64)).numpy()
    expected = [turned(image, row, 32, config) for image, row in zip(images, uniform, strict=True)]
    np.testing.assert_allclose(run(images, uniform, 32, config), expected, atol=0.02)


def test_a_quarter_turn_is_exact() -> None:
    images = sample_images(32)
    config = AugmentConfig(crop=(1.0, 1.0), brightness=0.0, rotation=180.0)
    quarter = run(images, numbers(4, turn=0.75), 32, config)
    np.testing.assert_allclose(quarter[:, 1:-1, 1:-1], np.rot90(images, 1, (1, 2))[:, 1:-1, 1:-1], atol=0.01)


@pytest.mark.parametrize("side", [16, 33, 97])
def test_nothing_to_do_changes_nothing_to_the_last_bit(side: int) -> None:
    images = sample_images(side, 2)
    uniform = random_numbers(2, 0, tf.constant(0, tf.int64)).numpy()
    np.testing.assert_array_equal(run(images, uniform, side, STILL), images)


@pytest.mark.parametrize(
    ("given", "axes"), [({"mirror": 0.1}, (2,)), ({"over": 0.1}, (1,)), ({"mirror": 0, "over": 0}, (1, 2))]
)
@pytest.mark.parametrize("side", [47])
def test_flips_are_exact_mirror_images(given: dict[str, float], axes: tuple[int, ...], side: int) -> None:
    images = sample_images(side)
    np.testing.assert_array_equal(run(images, numbers(4, **given), side, FLIPS), np.flip(images, axes))


def test_flips_that_are_switched_off_do_not_happen() -> None:
    images = sample_images(32)
    np.testing.assert_array_equal(run(images, numbers(4, mirror=0.1, over=0.1), 32, STILL), images)


def test_each_image_is_changed_on_its_own() -> None:
    images = sample_images(40)
    uniform = random_numbers(4, 1, tf.constant(3, tf.int64)).numpy()
    together = run(images, uniform, 32, WILD)
    for number in range(4):
        alone = run(images[number : number + 1], uniform[number : number + 1], 32, WILD)
        np.testing.assert_array_equal(together[number], alone[0])
    assert len({image.tobytes() for image in run(np.stack([images[0]] * 4), uniform, 32, WILD)}) == 4


def test_inside_tf_data_it_is_the_same() -> None:
    images, uniform = sample_images(40), random_numbers(4, 2, tf.constant(0, tf.int64)).numpy()
    traced = tf.data.Dataset.from_tensors((images, uniform)).map(lambda x, u: augment(x, u, 32, WILD))
    np.testing.assert_array_equal(next(iter(traced)).numpy(), run(images, uniform, 32, WILD))


@pytest.mark.parametrize(("number", "shift"), [(0.0, -51.0), (0.25, -25.5), (0.5, 0.0), (0.999999, 51.0)])
def test_brightness_shifts_by_at_most_its_fraction_of_the_range(number: float, shift: float) -> None:
    config = AugmentConfig(crop=(1.0, 1.0), horizontal_flip=False, vertical_flip=False, brightness=0.2)
    grey = np.full((1, 32, 32, 1), 100, np.uint8)
    np.testing.assert_allclose(run(grey, numbers(brightness=number), 32, config), 100 + shift, atol=1e-3)


def test_brightness_stays_within_black_and_white() -> None:
    config = AugmentConfig(crop=(1.0, 1.0), brightness=1.0)
    images = sample_images(32)
    assert (run(images, numbers(4, brightness=0), 32, config) == 0).all()
    assert run(images, numbers(4, brightness=0.9), 32, config).max() == 255


def test_a_crop_larger_than_the_image_is_surrounded_by_black() -> None:
    white = np.full((1, 40, 40, 1), 255, np.uint8)
    config = AugmentConfig(crop=(1.0, 2.0), brightness=0.0)
    wide = run(white, numbers(side=0.99999), 40, config)[0, ..., 0]
    assert (wide[10:30, 10:30] == 255).all()
    wide[10:30, 10:30] = 0
    assert (wide == 0).all()


@pytest.mark.parametrize("corner", [0.0, 0.01, 0.99, 0.99999994])
def test_an_enlarged_crop_at_the_edge_has_no_black_line(corner: float) -> None:
    white = np.full((1, 48, 48, 1), 255, np.uint8)
    config = AugmentConfig(crop=(0.3, 1.0), brightness=0.0)
    for side in np.linspace(0, 0.99999994, 12):
        for flip in (0.1, 0.9):
            uniform = numbers(side=side, top=corner, left=1 - corner, mirror=flip, over=flip)
            assert run(white, np.minimum(uniform, 0.99999994), 32, config).min() > 254.9


def disk(side: int, fraction: float) -> NDArray[np.uint8]:
    """A white disk whose diameter is a fraction of the image's side, with soft edges."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side - 0.5
    edge = (fraction / 2 - np.hypot(x, y)) * side + 0.5
    return (np.clip(edge, 0, 1) * 255).astype(np.uint8)[None, ..., None]


def diameter(image: NDArray[np.float32]) -> float:
    """Of the disk that has the image's white area, as a fraction of its side."""
    return float(2 * np.sqrt((image / 255).mean() / np.pi))


def test_without_crop_an_object_is_as_large_as_in_evaluation() -> None:
    image = disk(280, 0.4)
    evaluated = diameter(resize(image[0], 224).astype(np.float32))
    assert diameter(run(image, numbers(), 224, STILL)) == pytest.approx(evaluated, rel=2e-3)
    assert evaluated == pytest.approx(0.4, rel=2e-3)


@pytest.mark.parametrize("crop", [(0.8, 1.0), (0.8, 1.25), (1.0, 1.4)])
def test_an_objects_size_follows_the_crop(crop: tuple[float, float]) -> None:
    config = AugmentConfig(crop=crop, brightness=0.0)
    image = disk(140, 0.4)
    for number in (0.0, 0.5, 0.99999):
        side = crop[0] + (crop[1] - crop[0]) * number
        assert diameter(run(image, numbers(side=number), 112, config)) == pytest.approx(0.4 / side, rel=0.01)


def test_crops_lie_evenly_over_the_image() -> None:
    row, column = np.indices((100, 100))
    places = np.stack([row, column], axis=-1).astype(np.uint8)[None].repeat(500, 0)
    config = AugmentConfig(crop=(0.5, 1.0), brightness=0.0)
    uniform = random_numbers(500, 0, tf.constant(0, tf.int64)).numpy()
    centers = run(places, uniform, 32, config).mean(axis=(1, 2))
    np.testing.assert_allclose(centers.mean(axis=0), 49.5, atol=1.5)
    assert centers.min() > 24
    assert centers.max() < 75


def test_the_first_numbers_are_those_of_the_first_release() -> None:
    before = tf.random.stateless_uniform([8, 6], tf.constant([3, 7], tf.int64)).numpy()
    np.testing.assert_array_equal(random_numbers(8, 3, tf.constant(7, tf.int64)).numpy()[:, :6], before)


def test_random_numbers_depend_on_seed_and_counter_alone() -> None:
    first, again, other_seed, other_step = (
        random_numbers(8, seed, tf.constant(step, tf.int64)).numpy() for seed, step in ((0, 1), (0, 1), (1, 1), (0, 2))
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other_seed).all()
    assert (first != other_step).all()
    assert first.shape == (8, NUMBERS)
    assert first.min() >= 0
    assert first.max() < 1
