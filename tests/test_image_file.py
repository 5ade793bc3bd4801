"""What is rejected before anything is decoded, and with which message."""

from __future__ import annotations

import re
import struct
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from btkeras.errors import ImageError
from btkeras.preprocessing import image_file
from btkeras.preprocessing.image_file import check_image, read_image_bytes, sniff
from tests.images import GREY, animation, chunk, encode, mutations, png_header, scene, turned

# Pillow warns of damaged EXIF, and of multi-image files whose index is damaged.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

JPEG = encode(scene(), "JPEG")
PNG = encode(scene())
# A whole PNG may hold any chunk before its image data.
EMPTY_PNG = chunk(b"IDAT", b"") + chunk(b"IEND")


@pytest.mark.parametrize("data", [PNG, JPEG, encode(scene(), "JPEG", progressive=True), turned(6)])
def test_an_image_passes_with_its_width_and_height(data: bytes) -> None:
    assert check_image(data) == (70, 45)


@pytest.mark.parametrize("size", [(16, 16), (16, 90), (5000, 5000)])
def test_the_smallest_and_the_largest_image_pass(size: tuple[int, int]) -> None:
    assert check_image(png_header(*size) + EMPTY_PNG) == size


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "an empty file"),
        (b"Patient: 17\n", "text"),
        (animation("GIF"), "GIF"),
        (encode(scene(), "BMP"), "BMP"),
        (encode(scene(), "TIFF"), "TIFF"),
        (encode(scene(), "WEBP"), "WebP"),
        (b"\x89HDF\r\n\x1a\n", "HDF5 (MATLAB v7.3)"),
        (b"MATLAB 5.0 MAT-file", "MATLAB v5"),
        (b"PK\x03\x04", "zip"),
        (b"%PDF-1.7", "PDF"),
        (bytes(128) + b"DICM" + bytes(9), "DICOM"),
        (bytes(300), "of an unknown format"),
        ("größer".encode(), "of an unknown format"),
    ],
)
def test_another_format_is_named(data: bytes, kind: str) -> None:
    assert sniff(data) == kind
    with pytest.raises(ImageError, match=f"must be a PNG or JPEG file. Received: scan.jpg, which is {re.escape(kind)}"):
        check_image(data, "scan.jpg")


def test_the_content_counts_and_not_the_ending(tmp_path: Path) -> None:
    (tmp_path / "really_a_png.jpg").write_bytes(PNG)
    assert read_image_bytes(tmp_path / "really_a_png.jpg") == PNG


@pytest.mark.parametrize(
    "size", [(1, 1), (15, 400), (20_000, 20_000), (5001, 5000), (2**32 - 1, 2**32 - 1), (1_600_000, 16)]
)
def test_too_small_and_too_large_images_are_rejected_by_their_header(size: tuple[int, int]) -> None:
    rule = "at least 16 x 16 pixels" if min(size) < 16 else "at most 25 million pixels"
    with pytest.raises(ImageError, match=f"{rule}. Received: x.png with {size[0]} x {size[1]}"):
        check_image(png_header(*size) + EMPTY_PNG, "x.png")


@pytest.mark.parametrize("kind", ["PNG", "MPO"])
def test_several_frames_are_rejected(kind: str) -> None:
    with pytest.raises(ImageError, match=r"one still image\. Received: x with 2 frames"):
        check_image(animation(kind), "x")


def test_an_animation_of_one_frame_is_an_image() -> None:
    frame = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 70, 45, 0, 0, 1, 1, 0, 0))
    one = png_header(70, 45) + chunk(b"acTL", struct.pack(">II", 1, 0)) + frame + EMPTY_PNG
    assert check_image(one) == (70, 45)


def test_a_phones_gain_map_is_no_second_image() -> None:
    note = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta hdrgm:Version="1.0"/>'
    data = animation("MPO")
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(note)) + note + data[2:]
    assert check_image(data) == (70, 45)


@pytest.mark.parametrize(
    "data",
    [
        PNG[:10],
        PNG[:20],
        PNG[:33],
        JPEG[:3],
        JPEG[:30],
        JPEG[:2] + b"\xff\xff\xff\xd9",
        JPEG[:2] + JPEG[JPEG.index(b"\xff\xda") :],
        PNG[:8] + chunk(b"gAMA", b"abcd") + PNG[8:],
        png_header(0, 0) + EMPTY_PNG,
    ],
)
def test_a_broken_header_is_damage(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"must be whole. Received: x, which is damaged \(.+\). Get it again"):
        check_image(data, "x")


def test_fill_bytes_and_stray_bytes_between_segments_are_skipped() -> None:
    assert check_image(JPEG[:2] + b"\xff\xff" + JPEG[2:]) == (70, 45)
    # JFIF's own segment ends at byte 20.
    assert check_image(JPEG[:20] + b"abc\xff\x00" + JPEG[20:]) == (70, 45)


@pytest.mark.parametrize("seed", [PNG, JPEG, animation("PNG"), animation("MPO"), turned(6)])
def test_damage_is_an_image_error_or_nothing(seed: bytes) -> None:
    for data in mutations(seed, 100, seed=1):
        try:
            width, height = check_image(data)
        except ImageError:
            continue
        assert width >= 16
        assert height >= 16


def test_a_folder_a_missing_file_and_an_impossible_name_are_rejected_by_name(tmp_path: Path) -> None:
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "no.png", "No such file"), ("a\0b", "null")):
        with pytest.raises(ImageError, match=f"must be a readable file. Received: .*{reason}"):
            read_image_bytes(path)


def test_a_file_without_end_is_not_read_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_file, "MAX_BYTES", 2**20)
    with pytest.raises(ImageError, match=r"at most 1 MiB\. Received: more in /dev/zero"):
        read_image_bytes("/dev/zero")


def test_every_message_names_the_file(tmp_path: Path) -> None:
    for number, data in enumerate((b"", PNG[:20], png_header(1, 1) + EMPTY_PNG, animation("PNG"))):
        path = tmp_path / f"{number}.png"
        path.write_bytes(data)
        with pytest.raises(ImageError, match=re.escape(str(path))):
            read_image_bytes(path)


def test_many_threads_leave_the_warning_filters_alone() -> None:
    # Beyond this size Pillow warns of decompression bombs.
    large = png_header(10_000, 10_000, color=GREY) + EMPTY_PNG
    before, switch = list(warnings.filters), sys.getswitchinterval()

    def rejected(_: int) -> bool:
        with pytest.raises(ImageError):
            check_image(large)
        return True

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(rejected, range(200)))
    finally:
        sys.setswitchinterval(switch)
    assert list(warnings.filters) == before


def test_pillow_agrees_about_width_and_height() -> None:
    rng = np.random.default_rng(0)
    for width, height in rng.integers(16, 300, (20, 2)).tolist():
        image = Image.new("L", (width, height))
        assert check_image(encode(image)) == check_image(encode(image, "JPEG")) == (width, height)
