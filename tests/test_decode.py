"""Pillow's decoding, which everything here uses, against the graph's, which an exported SavedModel carries along."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from btkeras.decisions import mri_check
from btkeras.errors import ImageError
from btkeras.preprocessing import decode
from btkeras.preprocessing import graph as image_graph
from btkeras.preprocessing.image_file import check_image
from btkeras.preprocessing.preprocessor import Preprocessor, decode_checked
from tests.images import (
    GREY,
    GREY_ALPHA,
    RGB,
    RGB_ALPHA,
    deep_scene,
    encode,
    mutations,
    png,
    png_with,
    scene,
    turned,
)
from tests.test_preprocess import ALPHA, IMAGES

INKS = np.random.default_rng(3).integers(0, 256, (45, 70, 4)).astype(np.uint8)
CMYK = encode(Image.fromarray(INKS, "CMYK"), "JPEG", quality=95)
DEEP_ALPHA = ALPHA.astype(np.uint16) * 900

MORE = IMAGES | {
    "CMYK JPEG with black": CMYK,
    # Their inks are not the inverse then.
    "CMYK JPEG that is not Adobe's": CMYK.replace(CMYK[CMYK.index(b"\xff\xee") :][:16], b"", 1),
    "JPEG in RGB": encode(scene(), "JPEG", keep_rgb=True, subsampling=0),
    "JPEG with restarts": encode(scene(), "JPEG", restart_marker_blocks=2),
    "JPEG without its last byte": encode(scene(), "JPEG")[:-1],
    "turned JPEG": turned(7),
    "turned PNG": turned(6, ">", "PNG"),
    "8-bit RGB PNG with alpha, interlaced": png(np.dstack([scene(), ALPHA]), 8, RGB_ALPHA, interlaced=True),
    **{
        f"16-bit PNG of colour type {color}{', interlaced' * interlaced}": png(pixels, 16, color, interlaced=interlaced)
        for interlaced in (False, True)
        for color, pixels in (
            (GREY, deep_scene()),
            (GREY_ALPHA, np.dstack([deep_scene(), DEEP_ALPHA])),
            (RGB, deep_scene(3)),
            (RGB_ALPHA, np.dstack([deep_scene(3), DEEP_ALPHA])),
        )
    },
}


@functools.cache
def graph() -> Callable[[bytes], NDArray[np.uint8] | None]:
    """The graph's pixels, None if it refuses them."""
    traced = tf.function(image_graph.decode, input_signature=[tf.TensorSpec([], tf.string)])

    def decoded(data: bytes) -> NDArray[np.uint8] | None:
        try:
            return traced(tf.constant(data)).numpy()
        except tf.errors.InvalidArgumentError:
            return None

    return decoded


def ours(data: bytes) -> NDArray[np.uint8] | None:
    try:
        return decode_checked(data)
    except ImageError:
        return None


@pytest.mark.parametrize("name", MORE)
def test_pillow_gives_the_graphs_pixels(name: str) -> None:
    expected = graph()(MORE[name])
    found = ours(MORE[name])
    if expected is None:
        assert found is None
    else:
        np.testing.assert_array_equal(found, expected)


def test_every_pair_of_inks_is_mixed_as_in_the_graph() -> None:
    # Blocks of one colour come out of a JPEG nearly as they went in; all levels are met.
    blocks = np.stack(np.meshgrid(np.arange(0, 256, 5), np.arange(0, 256, 5)), axis=-1).astype(np.uint8)
    inks = blocks[..., [0, 0, 0, 1]].repeat(8, axis=0).repeat(8, axis=1)
    data = encode(Image.fromarray(inks, "CMYK"), "JPEG", quality=100)
    np.testing.assert_array_equal(ours(data), graph()(data))


def outcomes(images: Iterator[bytes]) -> Counter[str]:
    found: Counter[str] = Counter()
    for data in images:
        try:
            check_image(data)
        except ImageError:
            # The same for both.
            continue
        expected, decoded = graph()(data), ours(data)
        if expected is None or decoded is None:
            found["both refuse" if expected is decoded else "one refuses"] += 1
        else:
            np.testing.assert_array_equal(decoded, expected)
            found["alike"] += 1
    return found


@pytest.mark.parametrize("name", ["grey JPEG", "JPEG", "progressive JPEG", "CMYK JPEG with black", "turned JPEG"])
def test_of_a_damaged_jpeg_pillow_makes_what_the_graph_makes(name: str) -> None:
    found = outcomes(mutations(MORE[name], 150, seed=7))
    assert found["alike"] > 20
    assert found["both refuse"] > 20
    assert found["one refuses"] <= 2


@pytest.mark.parametrize("name", ["grey PNG", "palette PNG", "PNG with alpha", "interlaced PNG", "1-bit PNG"])
def test_of_a_damaged_png_pillow_makes_what_the_graph_makes(name: str) -> None:
    # With sums that are right, so that more than these is looked at.
    found = outcomes(png_with(MORE[name], 150, seed=7))
    assert found["alike"] > 10
    assert found["both refuse"] > 20
    assert found["one refuses"] <= 2


@pytest.mark.parametrize("end", [1, 2, 12, 13, 20, 60])
@pytest.mark.parametrize("name", MORE)
def test_what_is_cut_off_is_refused_or_whole(name: str, end: int) -> None:
    found = ours(MORE[name][:-end])
    if found is not None:
        np.testing.assert_array_equal(found, ours(MORE[name]))


def test_missing_rows_are_no_black_rows() -> None:
    whole = png(np.zeros((45, 70), np.uint8), 8, GREY)
    assert ours(whole) is not None
    taller = png(np.zeros((60, 70), np.uint8), 8, GREY)
    header = slice(0, 33)
    assert ours(taller[header] + whole[33:]) is None


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("code", [0, *range(1, 10), 258])
def test_orientation_is_the_graphs(code: int, endian: str) -> None:
    data = turned(code, endian)
    pattern = decode.PATTERNS["little" if endian == "<" else "big"]
    for end in (len(data), *(data.index(pattern) + cut for cut in range(11))):
        assert decode.orientation(data[:end]) == image_graph.orientation(tf.constant(data[:end])).numpy()


@pytest.mark.parametrize("harmonize", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_networks_input_is_the_graphs(channels: int, harmonize: bool) -> None:
    traced = tf.function(
        lambda data: image_graph.preprocess(data, 56, channels, harmonize),
        input_signature=[tf.TensorSpec([], tf.string)],
    )
    decoder = Preprocessor(56, channels, harmonize)
    for number in range(20):
        height, width = np.random.default_rng(number).integers(16, 200, 2).tolist()
        data = encode(scene(height, width, number), "PNG" if number % 2 else "JPEG", mode="L" if number % 3 else "RGB")
        np.testing.assert_array_equal(decoder.bytes(data), traced(tf.constant(data)).numpy())


@pytest.mark.data
@pytest.mark.parametrize("harmonize", [False, True])
def test_real_slices_are_read_as_by_the_graph(real_slices: Path, harmonize: bool) -> None:
    traced = tf.function(
        lambda data: image_graph.preprocess(data, 112, 1, harmonize), input_signature=[tf.TensorSpec([], tf.string)]
    )
    decoder = Preprocessor(112, 1, harmonize)
    files = sorted(real_slices.glob("*/*.*"))[::10]
    assert len(files) > 100
    for file in files:
        expected = traced(tf.constant(file.read_bytes())).numpy()
        np.testing.assert_array_equal(decoder.file(file), expected, err_msg=str(file))


def test_regions_are_scipys() -> None:
    rng = np.random.default_rng(0)
    for number in range(300):
        mask = rng.random(rng.integers(1, 50, 2)) < rng.random()
        mask = ndimage.binary_dilation(mask) if number % 3 == 0 else mask
        np.testing.assert_array_equal(mri_check.labelled(mask), ndimage.label(mask)[0])
        np.testing.assert_array_equal(mri_check.filled(mask), ndimage.binary_fill_holes(mask))
        np.testing.assert_array_equal(mri_check.dilated(mask), ndimage.binary_dilation(mask))
        np.testing.assert_array_equal(mri_check.eroded(mask), ndimage.binary_erosion(mask))


def test_reading_images_loads_neither_tensorflow_nor_scipy(tmp_path: Path) -> None:
    for kind in ("PNG", "JPEG"):
        (tmp_path / kind).write_bytes(encode(scene(), kind))
    script = (
        "import sys; from btkeras.preprocessing.preprocessor import Preprocessor; "
        "from btkeras.decisions.mri_check import rejection_reason;"
        "from btkeras.datasets.readers.images import open_slices;"
        "[Preprocessor(32, 1, True).file(path) for path in sys.argv[1:]];"
        "[rejection_reason(open_slices(path).image(0)) for path in sys.argv[1:]];"
        "sys.exit(bool({'tensorflow', 'keras', 'scipy', 'sklearn', 'matplotlib'} & sys.modules.keys()))"
    )
    files = [str(tmp_path / "PNG"), str(tmp_path / "JPEG")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, "-c", script, *files], check=True, env=environment, timeout=60)
