"""Encoded bytes to the network's input, held against Pillow and NumPy to the last bit."""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from btkeras.errors import ImageError
from btkeras.preprocessing import graph as image_graph
from btkeras.preprocessing.decode import to_uint8
from btkeras.preprocessing.graph import orientation
from btkeras.preprocessing.mri_check import rejection_reason
from btkeras.preprocessing.preprocessor import Preprocessor, without_equal_channels
from btkeras.preprocessing.resize import resize
from btkeras.splitting.known_slices import slice_hashes
from tests.images import (
    GREY,
    GREY_ALPHA,
    RGB,
    RGB_ALPHA,
    animation,
    chunk,
    deep_scene,
    encode,
    png,
    png_header,
    scene,
    turned,
    twin,
)

# Tracing takes longer than all images together.
preprocessor = functools.cache(Preprocessor)
BITS = np.random.default_rng(0).integers(0, 16, (45, 70))
ALPHA = np.arange(70, dtype=np.uint8)[None, :, None].repeat(45, 0)

IMAGES = {
    "grey PNG": encode(scene(), mode="L"),
    "RGB PNG": encode(scene()),
    "PNG with alpha": encode(np.dstack([scene(), ALPHA])),
    "grey PNG with alpha": encode(np.dstack([scene()[..., :1], ALPHA])),
    "PNG with a transparent colour": encode(scene(), transparency=(127, 0, 3)),
    "grey PNG with a transparent value": encode(scene(), mode="L", transparency=100),
    "palette PNG": encode(Image.fromarray(scene()).quantize(64)),
    "palette PNG of 4 bits": encode(Image.fromarray(scene()).quantize(16), bits=4),
    "palette PNG with a transparent entry": encode(Image.fromarray(scene()).quantize(64), transparency=3),
    "1-bit PNG": encode(scene(), mode="1"),
    "2-bit PNG": png(BITS % 4, 2, GREY),
    "4-bit PNG": png(BITS, 4, GREY),
    "interlaced PNG": png(scene(), 8, RGB, interlaced=True),
    "interlaced grey PNG": png(scene()[..., 0], 8, GREY, interlaced=True),
    "PNG with rubbish behind its end": encode(scene()) + b"rubbish",
    "grey JPEG": encode(scene(), "JPEG", mode="L"),
    "JPEG": encode(scene(), "JPEG", subsampling=0, quality=100),
    "JPEG with halved colours": encode(scene(), "JPEG", subsampling=1),
    "JPEG with quartered colours": encode(scene(), "JPEG", subsampling=2, quality=60),
    "progressive JPEG": encode(scene(), "JPEG", progressive=True),
    "progressive grey JPEG": encode(scene(), "JPEG", mode="L", progressive=True),
    # Measured over qualities 75, 95 and 100: no difference, although two programs turn CMYK into RGB.
    "CMYK JPEG": encode(scene(), "JPEG", mode="CMYK"),
    "JPEG with rubbish behind its end": encode(scene(), "JPEG") + b"rubbish",
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_what_pillow_and_numpy_make_of_it(name: str, channels: int) -> None:
    data = IMAGES[name]
    np.testing.assert_array_equal(preprocessor(40, channels).bytes(data), twin(data, 40, channels))


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("code", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_turns_an_image_upright(kind: str, code: int, endian: str) -> None:
    data = turned(code, endian, kind)
    np.testing.assert_array_equal(preprocessor(40, 3).bytes(data), twin(data, 40, 3))


def test_exif_behind_another_segment_is_found() -> None:
    data = turned(8)
    comment = b"\xff\xfe" + struct.pack(">H", 2 + 3000) + bytes(3000)
    data = data[:2] + comment + data[2:]
    np.testing.assert_array_equal(preprocessor(40, 3).bytes(data), twin(data, 40, 3))


def test_a_turned_grey_jpeg_is_turned_too() -> None:
    data = turned(5, mode="L")
    np.testing.assert_array_equal(preprocessor(40, 3).bytes(data), twin(data, 40, 3))


@pytest.mark.parametrize(("code", "read"), [(0, 1), (9, 1), (258, 1), (3, 3)])
def test_an_orientation_that_does_not_exist_is_upright(code: int, read: int) -> None:
    assert orientation(tf.constant(turned(code))).numpy() == read


def test_exif_that_breaks_off_is_upright() -> None:
    data = turned(6)
    pattern = bytes.fromhex("1201030001000000")
    for end in range(9):
        assert orientation(tf.constant(data[: data.index(pattern) + end])).numpy() == 1


def test_luma_rounds_as_pillow_does_for_every_color_it_could_get_wrong() -> None:
    steps = np.array([0, 1, 2, 3, 63, 64, 127, 128, 129, 190, 253, 254, 255], np.uint8)
    colors = np.stack(np.meshgrid(steps, steps, np.arange(256, dtype=np.uint8)), axis=-1).reshape(-1, 256, 3)
    expected = np.asarray(Image.fromarray(colors).convert("L"))
    np.testing.assert_array_equal(image_graph.to_channels(tf.constant(colors), 1).numpy()[..., 0], expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_given_as_grey_and_as_rgb_is_the_same(channels: int) -> None:
    grey = scene()[..., :1]
    once, thrice = (preprocessor(40, channels).array(image) for image in (grey, grey.repeat(3, axis=-1)))
    np.testing.assert_array_equal(once, thrice)


def test_equal_channels_are_one_and_others_stay() -> None:
    grey = scene()[..., :1]
    color = grey.repeat(3, axis=-1)
    np.testing.assert_array_equal(without_equal_channels(color), grey)
    # What looks at the decoded image finds the same in both.
    assert rejection_reason(color) == rejection_reason(grey)
    np.testing.assert_array_equal(slice_hashes(color), slice_hashes(grey))
    color[-1, -1, 2] ^= 1
    for image in (color, grey):
        assert without_equal_channels(image) is image


@pytest.mark.parametrize(
    ("pixels", "color"),
    [
        (deep_scene(), GREY),
        (deep_scene(3), RGB),
        (np.dstack([deep_scene(3), ALPHA.astype(np.uint16) * 900]), RGB_ALPHA),
        (np.dstack([deep_scene(), ALPHA.astype(np.uint16) * 900]), GREY_ALPHA),
        (np.full((45, 70), 5000, np.uint16), GREY),
        (np.arange(45 * 70, dtype=np.uint16).reshape(45, 70) % 2 * 65535, GREY),
    ],
    ids=["grey", "RGB", "RGB with alpha", "grey with alpha", "constant", "full range"],
)
def test_16_bits_are_scaled_from_lowest_to_highest_and_not_cut_off(pixels: NDArray[np.uint16], color: int) -> None:
    visible = pixels.reshape(45, 70, -1)[..., : 3 if color in (RGB, RGB_ALPHA) else 1]
    expected = resize(to_uint8(visible), 40)
    for interlaced in (False, True):
        data = png(pixels, 16, color, interlaced=interlaced)
        np.testing.assert_array_equal(preprocessor(40, 3).bytes(data), np.broadcast_to(expected, (40, 40, 3)))


@functools.cache
def graph_decode() -> Callable[[bytes], NDArray[np.uint8]]:
    """The graph's decoding, traced once."""
    traced = tf.function(image_graph.decode, input_signature=[tf.TensorSpec([], tf.string)])
    return lambda data: traced(tf.constant(data)).numpy()


def test_16_bit_scaling_agrees_for_every_span() -> None:
    rng = np.random.default_rng(0)
    for low, high in np.sort(rng.integers(0, 65536, (60, 2))).tolist():
        pixels = rng.integers(low, high + 1, (16, 16), np.uint16)
        np.testing.assert_array_equal(graph_decode()(png(pixels, 16, GREY))[..., 0], to_uint8(pixels))


def test_to_uint8_is_linear_from_black_to_white() -> None:
    np.testing.assert_array_equal(to_uint8(np.array([-1000, -500, 0, 1000], np.int16)), [0, 64, 128, 255])
    np.testing.assert_array_equal(to_uint8(np.full((2, 2), 7, np.int32)), np.zeros((2, 2)))


GREY_JPEG, COLOUR_JPEG, COLOUR_PNG = (IMAGES[name] for name in ("grey JPEG", "JPEG", "RGB PNG"))


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"", "an empty file"),
        (b"no image at all", "text"),
        (COLOUR_JPEG[: len(COLOUR_JPEG) // 2], "damaged"),
        (COLOUR_JPEG[:-50], "damaged"),
        (GREY_JPEG[:-50], "damaged"),
        (COLOUR_PNG[: len(COLOUR_PNG) // 2], "damaged"),
        (COLOUR_PNG[:-12], "damaged"),
        (COLOUR_PNG[:-30] + bytes([COLOUR_PNG[-30] ^ 1]) + COLOUR_PNG[-29:], "damaged"),
        (png(scene()[:1, :1], 8, RGB), "at least 16 x 16"),
        (png_header(20_000, 20_000) + chunk(b"IDAT", b"") + chunk(b"IEND"), "at most 25 million pixels"),
        (animation("PNG"), "2 frames"),
        (animation("MPO"), "2 frames"),
        (animation("GIF"), "GIF"),
    ],
)
def test_what_cannot_be_read_is_an_image_error_that_names_the_file(data: bytes, rule: str, tmp_path: Path) -> None:
    path = tmp_path / "slice.jpg"
    path.write_bytes(data)
    error = preprocessor(40, 3).try_file(path)
    assert isinstance(error, ImageError)
    assert rule in str(error)
    assert str(path) in str(error)


def test_the_reason_of_damage_is_named() -> None:
    with pytest.raises(ImageError) as caught:
        preprocessor(40, 3).bytes(COLOUR_PNG[:-20], "slice.png")
    assert re.search(r"slice.png, which is damaged \(it breaks off\)\. Get it again", str(caught.value))


def test_many_files_come_in_order_with_errors_among_them(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(300)]
    for number, path in enumerate(paths):
        if number % 7:
            path.write_bytes(encode(np.full((16, 16), number % 256, np.uint8)))
    for number, image in enumerate(preprocessor(40, 1).files(paths)):
        if number % 7:
            assert isinstance(image, np.ndarray)
            assert (image == number % 256).all()
        else:
            assert isinstance(image, ImageError)


REJECTED_BY_THE_GRAPH = {
    "nothing": b"",
    "text": b"hello",
    "PNG signature": COLOUR_PNG[:8],
    "PNG header cut off": COLOUR_PNG[:30],
    "JPEG signature": COLOUR_JPEG[:3],
    "bomb": png_header(20_000, 20_000, 16, RGB_ALPHA) + chunk(b"IDAT", b"") + chunk(b"IEND"),
    "bomb of negative size": png_header(2**32 - 20_000, 2**32 - 20_000) + chunk(b"IDAT", b""),
    "bomb behind a small image's size": COLOUR_PNG[:8]
    + chunk(b"abCd", struct.pack(">II", 20, 20) + bytes(5))
    + png_header(20_000, 20_000)[8:]
    + chunk(b"IDAT", b""),
    "JPEG bomb": COLOUR_JPEG.replace(struct.pack(">HH", 45, 70), struct.pack(">HH", 20_000, 20_000), 1),
    "one pixel": png(scene()[:1, :1], 8, RGB),
    "one row": png(scene()[:1], 8, RGB),
}


@pytest.mark.parametrize("name", REJECTED_BY_THE_GRAPH)
def test_the_graph_itself_rejects_before_it_decodes(name: str) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        served()(tf.constant(REJECTED_BY_THE_GRAPH[name]))
    assert "image" in str(caught.value) or "JPEG" in str(caught.value)


@functools.cache
def served() -> Callable[[tf.Tensor], NDArray[np.uint8]]:
    """Without the checks in Python: a SavedModel runs where btkeras is not."""
    signature = [tf.TensorSpec([], tf.string)]
    traced = tf.function(lambda data: image_graph.preprocess(data, 40, 3), input_signature=signature)
    return lambda data: traced(data).numpy()
