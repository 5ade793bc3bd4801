"""The MRI check: on what is no slice, on synthetic slices, and on real ones as other collections show them."""

from __future__ import annotations

import io
import runpy
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from btkeras.config import PhantomConfig
from btkeras.datasets.phantom import draw_patient
from btkeras.preprocessing import mri_check
from btkeras.preprocessing.mri_check import rejection_reason

ImageArray = NDArray[np.uint8]
MAKER = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "make_non_mri.py"))
RNG = np.random.default_rng(0)


def tight(image: ImageArray) -> ImageArray:
    rows, columns = np.nonzero(image > 40)
    return image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def jpeg(image: ImageArray) -> ImageArray:
    """A small JPEG of low quality, saved in colour."""
    buffer = io.BytesIO()
    Image.fromarray(image).resize((150, 150)).convert("RGB").save(buffer, "JPEG", quality=40)
    return np.asarray(Image.open(buffer))


def annotated(image: ImageArray) -> ImageArray:
    """A caption in one corner and a coloured mark in the middle."""
    rgb = np.repeat(image[..., None], 3, axis=2)
    side = len(image)
    rgb[2 : side // 20 + 3, 2 : side // 4] = 255
    rgb[side // 2 : side // 2 + side // 8, side // 2 : side // 2 + side // 8] = (255, 40, 0)
    return rgb


APPEARANCES: dict[str, Callable[[ImageArray], ImageArray]] = {
    "as it is": lambda image: image,
    "RGB": lambda image: np.repeat(image[..., None], 3, axis=2),
    "one channel": lambda image: image[..., None],
    "tight": tight,
    "128 pixels": lambda image: np.asarray(Image.fromarray(image).resize((128, 128))),
    "noise": lambda image: np.clip(image + RNG.normal(0, 20, image.shape), 0, 255).astype(np.uint8),
    "gamma 0.6": lambda image: (255 * (image / 255) ** 0.6).astype(np.uint8),
    "gamma 1.6": lambda image: (255 * (image / 255) ** 1.6).astype(np.uint8),
    "turned by 20 degrees": lambda image: np.asarray(Image.fromarray(image).rotate(20)),
    "on its side": lambda image: np.rot90(image),
    "levels 20..180": lambda image: (20 + image.astype(float) * 160 / 255).astype(np.uint8),
    "small JPEG": jpeg,
    "white frame": lambda image: np.pad(image, len(image) // 10, constant_values=255),
    "wide black margin": lambda image: np.pad(image, len(image) // 2),
    "annotated": annotated,
}


@pytest.fixture(scope="module")
def phantoms() -> list[ImageArray]:
    config = PhantomConfig(slices=1, image_size=160)
    return [drawn.image for patient in range(5) for drawn in draw_patient(config, patient)]


def rejected(images: list[ImageArray]) -> list[str]:
    return [reason for image in images if (reason := rejection_reason(image)) is not None]


def test_95_percent_of_other_images_are_rejected_and_most_of_each_kind() -> None:
    made = list(MAKER["make"](56, seed=0))
    found = Counter(kind for kind, image in made if rejection_reason(image) is not None)
    assert sum(found.values()) > 0.95 * len(made)
    assert min(found[kind] / count for kind, count in Counter(kind for kind, _ in made).items()) >= 0.7


@pytest.mark.parametrize("appearance", APPEARANCES)
def test_synthetic_slices_pass_however_they_are_shown(phantoms: list[ImageArray], appearance: str) -> None:
    assert rejected([APPEARANCES[appearance](image) for image in phantoms]) == []


def test_inverted_slices_are_rejected_for_their_background(phantoms: list[ImageArray]) -> None:
    reasons = rejected([255 - image for image in phantoms])
    assert len(reasons) == len(phantoms) and set(reasons) == {"its background is bright: inverted, or a document"}


@pytest.mark.parametrize(
    ("image", "word"),
    [
        (np.zeros((200, 200), np.uint8), "black"),
        (np.full((200, 300, 3), (10, 200, 90), np.uint8), "blank"),
        (np.indices((200, 200)).sum(0).astype(np.uint8) // 40 * 40, "grey levels"),
        (RNG.integers(0, 256, (200, 200, 3)).astype(np.uint8), "colour"),
        (RNG.integers(0, 256, (200, 200)).astype(np.uint8), "noise"),
        (np.linspace(0, 255, 40_000).reshape(200, 200).astype(np.uint8), "gradient"),
    ],
)
def test_the_reason_says_what_the_image_is(image: ImageArray, word: str) -> None:
    assert word in str(rejection_reason(image))


@pytest.mark.parametrize("shape", [(16, 16), (16, 900), (3000, 17, 3), (1, 1), (2, 400)])
def test_any_size_is_measured(shape: tuple[int, ...]) -> None:
    assert rejection_reason(RNG.integers(0, 256, shape).astype(np.uint8))


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
def test_photographs_are_rejected_in_color_and_the_landscape_in_grey_too(name: str) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    photo = np.asarray(datasets.load_sample_image(name))
    assert rejection_reason(photo) == "it is in colour"
    if name == "china.jpg":
        assert rejection_reason(np.asarray(Image.fromarray(photo).convert("L")))


def test_the_same_seed_makes_the_same_images(tmp_path: Path) -> None:
    first, second = (list(MAKER["make"](7, seed=3)) for _ in range(2))
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(first, second, strict=True))
    assert not np.array_equal(first[6][1], list(MAKER["make"](7, seed=4))[6][1])


def test_regions_are_scipys() -> None:
    rng = np.random.default_rng(0)
    for number in range(100):
        mask = rng.random(rng.integers(1, 50, 2)) < rng.random()
        mask = ndimage.binary_dilation(mask) if number % 3 == 0 else mask
        np.testing.assert_array_equal(mri_check.labelled(mask), ndimage.label(mask)[0])
        np.testing.assert_array_equal(mri_check.filled(mask), ndimage.binary_fill_holes(mask))
        np.testing.assert_array_equal(mri_check.dilated(mask), ndimage.binary_dilation(mask))
        np.testing.assert_array_equal(mri_check.eroded(mask), ndimage.binary_erosion(mask))


@pytest.mark.data
@pytest.mark.parametrize(
    "appearance", ["as it is", "tight", "128 pixels", "noise", "gamma 0.6", "gamma 1.6", "small JPEG"]
)
def test_of_real_slices_at_most_half_a_percent_are_rejected(real_slices: Path, appearance: str) -> None:
    paths = sorted(real_slices.glob("*/*.jpg"))[:: 5 if appearance == "as it is" else 30]
    images = [APPEARANCES[appearance](np.asarray(Image.open(path).convert("L"))) for path in paths]
    assert len(rejected(images)) <= max(1, len(paths) // 200), appearance
