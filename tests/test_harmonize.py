"""Harmonized input: the head is found, its intensity normalized, and every engine gives the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from btkeras import Predictor
from btkeras.config import PhantomConfig
from btkeras.config_io import dump_config, load_config
from btkeras.datasets import load_dataset
from btkeras.datasets.boxes import Box, box_in_crop, clip_box
from btkeras.datasets.phantom import draw_patient
from btkeras.export.export import export
from btkeras.inference.model_folder import MANIFEST
from btkeras.preprocessing.cache import build_cache
from btkeras.preprocessing.graph import harmonize as harmonize_in_graph
from btkeras.preprocessing.harmonize import MIDDLE, HeadBox, harmonize, head_box
from btkeras.preprocessing.preprocessor import Preprocessor
from btkeras.preprocessing.resize import resize
from btkeras.runs import open_run
from btkeras.training.trainer import train
from tests.conftest import TINY
from tests.images import encode, read, scene

Grey = NDArray[np.uint8]

GRAPH = tf.function(harmonize_in_graph, input_signature=[tf.TensorSpec([None, None, 1], tf.uint8)])
HEAD = HeadBox(30, 50, 130, 130)


def head(box: HeadBox = HEAD, shape: tuple[int, int] = (160, 200), noise: int = 8, gain: float = 1.0) -> Grey:
    """An ellipse of brain (90) with structure, in a bright rim (220), on noise; gain scales all of it."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    dy = (y - (box.top + box.bottom) / 2) / ((box.bottom - box.top) / 2)
    dx = (x - (box.left + box.right) / 2) / ((box.right - box.left) / 2)
    radius = np.hypot(dy, dx)
    pixels = rng.integers(0, noise + 1, shape).astype(float)
    pixels[radius <= 1] = 220
    brain = radius < 0.9
    pixels[brain] = 90 + 15 * np.sin(x / 5)[brain]
    return np.clip(np.rint(pixels * gain), 0, 255).astype(np.uint8)


@st.composite
def odd_images(draw: st.DrawFn) -> Grey:
    """Blocks of any levels on any background, from one pixel to a few hundred."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    height, width = draw(st.integers(1, 200)), draw(st.integers(1, 200))
    low = draw(st.integers(0, 255))
    image = rng.integers(low, draw(st.integers(low, 255)) + 1, (height, width))
    for _ in range(draw(st.integers(0, 3))):
        top, left = rng.integers(height), rng.integers(width)
        image[top : top + rng.integers(1, 200), left : left + rng.integers(1, 200)] += rng.integers(0, 256)
    return np.clip(image, 0, 255).astype(np.uint8)


def assert_same_bytes(image: Grey) -> None:
    np.testing.assert_array_equal(GRAPH(image[..., None]).numpy(), harmonize(image[..., None]))


@settings(max_examples=60, derandomize=True)
@given(odd_images())
def test_the_graph_and_numpy_give_the_same_bytes(image: Grey) -> None:
    assert_same_bytes(image)


def test_so_they_do_for_heads_and_the_phantom() -> None:
    phantom = PhantomConfig(slices=1, image_size=128)
    for image in (head(), head(gain=0.4), *(draw_patient(phantom, patient)[0].image for patient in range(4))):
        assert head_box(image) != HeadBox(0, 0, *image.shape)
        assert_same_bytes(image)


@pytest.mark.parametrize("gain", [0.3, 1.0])
@pytest.mark.parametrize("noise", [0, 8, 20])
@pytest.mark.parametrize("box", [HEAD, HeadBox(0, 0, 160, 130), HeadBox(2, 3, 158, 199), HeadBox(60, 80, 120, 130)])
def test_the_box_is_the_heads(box: HeadBox, noise: int, gain: float) -> None:
    np.testing.assert_allclose(head_box(head(box, noise=noise, gain=gain)), box, atol=1)


def test_frames_letters_and_specks_are_no_head() -> None:
    image = head()
    expected = head_box(image)
    image[[0, 1, -1]] = 255
    image[:, [0, -1]] = 255
    image[8:14, 60:66] = 255
    image[140:150, 180:190] = 255
    image[::9, ::11] = np.maximum(image[::9, ::11], 200)
    assert head_box(image) == expected


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((64, 48), np.uint8),
        np.full((64, 48), 255, np.uint8),
        np.random.default_rng(0).integers(0, 256, (64, 48)).astype(np.uint8),
        np.pad(np.full((12, 30), 200, np.uint8), ((20, 32), (10, 8))),
        np.tile(np.arange(48, dtype=np.uint8) * 5, (64, 1)),
    ],
    ids=["black", "white", "noise", "a line of text", "a ramp"],
)
def test_what_shows_no_head_is_kept_whole(image: Grey) -> None:
    # Of the ramp only the darkest columns are background.
    top, left, bottom, right = head_box(image)
    assert (top, bottom, right) == (0, 64, 48)
    assert left <= 12


def test_a_constant_image_becomes_black() -> None:
    for value in (0, 7, 255):
        assert not harmonize(np.full((40, 40, 1), value, np.uint8)).any()


def test_background_median_and_white_come_to_their_places() -> None:
    image, box = head(), head_box(head())
    crop = image[box.top : box.bottom, box.left : box.right]
    result = harmonize(image[..., None])[..., 0]
    assert result.shape == crop.shape
    assert (result[crop <= 8] == 0).all()
    assert np.median(result[crop > 50]) == MIDDLE
    assert (result[crop >= 220] == 255).all()
    # Darker stays darker.
    assert (np.diff(result.ravel()[np.argsort(crop, axis=None)].astype(int)) >= 0).all()


@pytest.mark.parametrize(("gain", "offset"), [(0.5, 0), (0.8, 30), (0.6, 60)])
def test_another_scale_of_intensity_makes_no_difference(gain: float, offset: int) -> None:
    image = head(noise=0)
    other = (np.rint(image * gain) + offset).astype(np.uint8)
    difference = np.abs(harmonize(other[..., None]).astype(int) - harmonize(image[..., None]))
    # A level of the darker image is 1 / gain levels, and the steepest part of the table adds a half.
    assert difference.max() <= 4


def test_more_black_around_it_makes_no_difference() -> None:
    image = head(noise=0)
    wide = np.pad(image, ((5, 60), (80, 3)))
    np.testing.assert_array_equal(harmonize(wide[..., None]), harmonize(image[..., None]))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("image", [head(), scene(90, 130)], ids=["grey", "color"])
def test_files_and_arrays_are_harmonized_alike(channels: int, image: Grey) -> None:
    data = encode(image)
    expected = np.repeat(resize(harmonize(read(data, 1)), 48), channels, axis=-1)
    preprocessor = Preprocessor(48, channels, harmonize=True)
    np.testing.assert_array_equal(preprocessor.bytes(data), expected)
    np.testing.assert_array_equal(preprocessor.array(image.reshape(*image.shape[:2], -1)), expected)
    assert not np.array_equal(Preprocessor(48, channels).bytes(data), expected)


def test_caches_on_disk_do_not_mix_them_up(tmp_path: Path) -> None:
    path = tmp_path / "head.png"
    path.write_bytes(encode(head()))
    for preprocessor in (Preprocessor(32, 1), Preprocessor(32, 1, harmonize=True), Preprocessor(32, 1)):
        cached = build_cache([path], preprocessor, cache="disk", folder=tmp_path / "cache")
        np.testing.assert_array_equal(cached.take(np.array([0]))[0], preprocessor.file(path))


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (Box(0.375, 0.4, 0.625, 0.5), Box(0.3, 0.375, 0.7, 0.625)),
        (Box(0, 0.15, 1, 0.35), Box(0, 0, 1, 0.25)),
        (Box(0.45, 0.85, 0.55, 0.95), None),
    ],
    ids=["inside", "cut off on three sides", "outside"],
)
def test_boxes_follow_the_crop(box: Box, expected: Box | None) -> None:
    # The middle 80 columns and 100 rows of 200 x 160.
    found = clip_box(box_in_crop(box, HEAD, 160, 200))
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes whose heads differ in their rim only, each image with its own frame of black."""
    root = tmp_path_factory.mktemp("heads")
    rng = np.random.default_rng(0)
    for label in ("glioma", "no_tumor"):
        (root / label).mkdir()
        for number in range(10):
            image = head(gain=0.5 + 0.05 * number)
            image[60:100, 80:100] //= 1 if label == "glioma" else 2
            image = np.pad(image, rng.integers(0, 40, (2, 2)))
            Image.fromarray(image).save(root / label / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def harmonized_run(heads: Path, tmp_path_factory: pytest.TempPathFactory, _tiny_model: None) -> Path:
    out = tmp_path_factory.mktemp("runs") / "harmonized"
    train(
        load_config(None, (*TINY, "model.name=tiny_plain", "data.harmonize=true", "train.epochs=1")),
        load_dataset(heads),
        out,
    )
    return out


def test_a_harmonized_run_predicts_and_is_exported_harmonized(
    heads: Path, harmonized_run: Path, tmp_path: Path
) -> None:
    exported = export(open_run(harmonized_run), tmp_path / "model", formats=("onnx",))
    assert json.loads((exported / MANIFEST).read_text())["harmonize"] is True
    paths = sorted(heads.glob("*/*.png"))[::4]
    arrays = [np.asarray(Image.open(path)) for path in paths]
    expected = Predictor(harmonized_run).predict(paths).probabilities
    for model, images in ((harmonized_run, arrays), (exported, paths), (exported, arrays)):
        np.testing.assert_allclose(Predictor(model).predict(images).probabilities, expected, atol=1e-5)


def test_a_harmonized_run_is_served_harmonized(heads: Path, harmonized_run: Path, tmp_path: Path) -> None:
    served = tf.saved_model.load(str(export(open_run(harmonized_run), tmp_path / "model"))).signatures
    path = min(heads.glob("*/*.png"))
    expected = Predictor(harmonized_run).predict([path]).probabilities
    by_bytes = served["serving_default"](image_bytes=tf.constant([path.read_bytes()]))
    by_pixels = served["serving_pixels"](images=tf.constant(np.asarray(Image.open(path))[None, ..., None]))
    np.testing.assert_allclose(by_bytes["probabilities"], expected, atol=1e-5)
    np.testing.assert_allclose(by_pixels["probabilities"], expected, atol=1e-5)


def test_a_harmonized_run_does_not_see_the_frame_of_black(heads: Path, harmonized_run: Path) -> None:
    predictor = Predictor(harmonized_run)
    image = head(noise=0)
    plain, framed, dark = predictor.predict([image, np.pad(image, 30), image // 2]).probabilities
    np.testing.assert_allclose(framed, plain, atol=1e-6)
    np.testing.assert_allclose(dark, plain, atol=0.05)


def test_runs_from_before_there_was_a_choice_are_not_harmonized(tmp_path: Path) -> None:
    lines = dump_config(load_config(None, TINY)).splitlines()
    without = [line for line in lines if "harmonize" not in line]
    assert len(without) == len(lines) - 1
    (tmp_path / "old.yaml").write_text("\n".join(without))
    assert load_config(tmp_path / "old.yaml").data.harmonize is False
