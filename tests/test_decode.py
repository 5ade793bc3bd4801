"""Pillow's decoding, which Python uses, against TensorFlow's, which an exported SavedModel embeds."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from btkeras.errors import ImageError
from btkeras.preprocessing import graph as image_graph
from btkeras.preprocessing.decode import PATTERNS, decode, orientation
from btkeras.preprocessing.preprocessor import Preprocessor
from tests.images import (
    GREY,
    GREY_ALPHA,
    RGB,
    RGB_ALPHA,
    chunk,
    deep_scene,
    encode,
    mutations,
    png,
    png_chunks,
    png_with,
    scene,
    turned,
)
from tests.test_preprocess import ALPHA, IMAGES, graph_decode

INKS = np.random.default_rng(3).integers(0, 256, (45, 70, 4)).astype(np.uint8)
CMYK = encode(Image.fromarray(INKS, "CMYK"), "JPEG", quality=95)
DEEP_ALPHA = ALPHA.astype(np.uint16) * 900

MORE = IMAGES | {
    "CMYK JPEG with black": CMYK,
    # Their inks are not the inverse then.
    "CMYK JPEG that is not Adobe's": CMYK.replace(CMYK[CMYK.index(b"\xff\xee") :][:16], b"", 1),
    "JPEG in RGB": encode(scene(), "JPEG", keep_rgb=True, subsampling=0),
    "JPEG with restarts": encode(scene(), "JPEG", restart_marker_blocks=2),
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


def graph(data: bytes) -> NDArray[np.uint8] | None:
    """The graph's pixels, None if it raises."""
    try:
        return graph_decode()(data)
    except tf.errors.InvalidArgumentError:
        return None


def ours(data: bytes) -> NDArray[np.uint8] | None:
    try:
        return decode(data)
    except ImageError:
        return None


@pytest.mark.parametrize("name", MORE)
def test_pillow_gives_the_graphs_pixels(name: str) -> None:
    expected = graph(MORE[name])
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
    np.testing.assert_array_equal(ours(data), graph(data))


def flipped(data: bytes, place: int, bits: int = 1) -> bytes:
    return data[:place] + bytes([data[place] ^ bits]) + data[place + 1 :]


def with_chunk(data: bytes, kind: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """A PNG whose chunks of one kind are changed, with the right checksums."""
    chunks = ((name, change(bytes(content)) if name == kind else content) for name, content in png_chunks(data))
    return data[:8] + b"".join(chunk(name, bytes(content)) for name, content in chunks)


def with_rows(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    return with_chunk(data, b"IDAT", lambda packed: zlib.compress(change(zlib.decompress(packed))))


PNG, PALETTE, DEEP = IMAGES["RGB PNG"], IMAGES["palette PNG"], png(deep_scene(), 16, GREY)
INTERLACED, JPEG, PROGRESSIVE = IMAGES["interlaced PNG"], IMAGES["JPEG"], IMAGES["progressive JPEG"]
PIXELS, FRAME, CODES, SCAN = PNG.index(b"IDAT"), *(JPEG.index(mark) for mark in (b"\xff\xc0", b"\xff\xc4", b"\xff\xda"))

DAMAGED = {
    "PNG cut in its header": PNG[:30],
    "PNG cut in half": PNG[: len(PNG) // 2],
    "PNG without its end": PNG[:-12],
    "PNG without its last byte": PNG[:-1],
    "PNG with a wrong checksum in its header": flipped(PNG, 30),
    "PNG with a wrong checksum in its pixels": flipped(PNG, len(PNG) - 13),
    "PNG with a wrong checksum in its palette": flipped(PALETTE, PALETTE.index(b"PLTE") + 20),
    "PNG with another pixel": flipped(PNG, PIXELS + 500),
    "PNG with another width": flipped(PNG, 19),
    "PNG with a wrong length": flipped(PNG, PIXELS - 1),
    "PNG with bytes left out": PNG[: PIXELS + 300] + PNG[PIXELS + 310 :],
    "PNG with bytes put in": PNG[: PIXELS + 300] + b"abc" + PNG[PIXELS + 300 :],
    "PNG with zeros in it": PNG[: PIXELS + 300] + bytes(200) + PNG[PIXELS + 500 :],
    "PNG without pixels": with_chunk(PNG, b"IDAT", lambda _: b""),
    "PNG with a row missing": with_rows(PNG, lambda rows: rows[:-211]),
    "palette PNG with a row missing": with_rows(PALETTE, lambda rows: rows[:-71]),
    "16-bit PNG with a row missing": with_rows(DEEP, lambda rows: rows[:-141]),
    "interlaced PNG with a row missing": with_rows(INTERLACED, lambda rows: rows[:-211]),
    "PNG with a row of no filter": with_rows(PNG, lambda rows: b"\x09" + rows[1:]),
    "PNG without its palette": with_chunk(PALETTE, b"PLTE", lambda _: b""),
    "PNG with a broken palette": with_chunk(PALETTE, b"PLTE", lambda colors: colors[:-1]),
    "PNG with a palette that is too long": with_chunk(PALETTE, b"PLTE", lambda colors: 20 * colors),
    "PNG of no color type": with_chunk(PNG, b"IHDR", lambda header: header[:9] + b"\x05" + header[10:]),
    "16-bit PNG cut in half": DEEP[: len(DEEP) // 2],
    "16-bit PNG with another pixel": flipped(DEEP, DEEP.index(b"IDAT") + 300),
    "JPEG cut in half": JPEG[: len(JPEG) // 2],
    "JPEG without its end": JPEG[:-2],
    "grey JPEG without its end": IMAGES["grey JPEG"][:-50],
    "progressive JPEG cut in half": PROGRESSIVE[: len(PROGRESSIVE) // 2],
    "JPEG with a wrong length": flipped(JPEG, CODES + 3, 64),
    "JPEG of 9 bits": flipped(JPEG, FRAME + 4),
    "JPEG of 4 channels that has 3": flipped(JPEG, FRAME + 9, 7),
    "JPEG with a broken code table": flipped(JPEG, CODES + 6, 255),
    "JPEG without its size": JPEG[:FRAME] + JPEG[SCAN:],
    "JPEG without its scan": JPEG[:SCAN] + b"\xff\xd9",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_image_is_an_error_in_both(name: str) -> None:
    assert graph(DAMAGED[name]) is None
    with pytest.raises(ImageError, match=r"must be whole.*damaged"):
        decode(DAMAGED[name])


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", ["grey JPEG", "progressive JPEG", "CMYK JPEG with black", "palette PNG", "1-bit PNG"])
def test_no_damage_gives_different_pixels(name: str) -> None:
    # JPEG has no checksums: what a changed scan still shows is the same in both.
    changed = mutations(MORE[name], 60, seed=7) if "JPEG" in name else png_with(MORE[name], 60, seed=7)
    for data in changed:
        found, expected = ours(data), graph(data)
        if found is not None and expected is not None:
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("code", [0, *range(1, 10), 258])
def test_orientation_is_the_graphs(code: int, endian: str) -> None:
    data = turned(code, endian)
    pattern = PATTERNS["little" if endian == "<" else "big"]
    for end in (len(data), *(data.index(pattern) + cut for cut in range(11))):
        assert orientation(data[:end]) == image_graph.orientation(tf.constant(data[:end])).numpy()


@pytest.mark.parametrize(("channels", "harmonize"), [(1, True), (3, False)])
def test_the_networks_input_is_the_graphs(channels: int, harmonize: bool) -> None:
    traced = tf.function(
        lambda data: image_graph.preprocess(data, 56, channels, harmonize),
        input_signature=[tf.TensorSpec([], tf.string)],
    )
    preprocessor = Preprocessor(56, channels, harmonize)
    for number in range(8):
        height, width = np.random.default_rng(number).integers(16, 200, 2).tolist()
        data = encode(scene(height, width, number), "PNG" if number % 2 else "JPEG", mode="L" if number % 3 else "RGB")
        np.testing.assert_array_equal(preprocessor.bytes(data), traced(tf.constant(data)).numpy())


@pytest.mark.data
@pytest.mark.parametrize("harmonize", [False, True])
def test_real_slices_are_read_as_by_the_graph(real_slices: Path, harmonize: bool) -> None:
    traced = tf.function(
        lambda data: image_graph.preprocess(data, 112, 1, harmonize), input_signature=[tf.TensorSpec([], tf.string)]
    )
    preprocessor = Preprocessor(112, 1, harmonize)
    files = sorted(real_slices.glob("*/*.*"))[::10]
    assert len(files) > 100
    for file in files:
        expected = traced(tf.constant(file.read_bytes())).numpy()
        np.testing.assert_array_equal(preprocessor.file(file), expected, err_msg=str(file))


def test_reading_images_loads_neither_tensorflow_nor_scipy(tmp_path: Path) -> None:
    for kind in ("PNG", "JPEG"):
        (tmp_path / kind).write_bytes(encode(scene(), kind))
    script = (
        "import sys; from btkeras.preprocessing.preprocessor import Preprocessor; "
        "from btkeras.preprocessing.mri_check import rejection_reason;"
        "from btkeras.datasets.readers.formats import open_slices;"
        "[Preprocessor(32, 1, True).file(path) for path in sys.argv[1:]];"
        "[rejection_reason(open_slices(path).image(0)) for path in sys.argv[1:]];"
        "sys.exit(bool({'tensorflow', 'keras', 'scipy', 'sklearn', 'matplotlib'} & sys.modules.keys()))"
    )
    files = [str(tmp_path / "PNG"), str(tmp_path / "JPEG")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, "-c", script, *files], check=True, env=environment, timeout=60)
