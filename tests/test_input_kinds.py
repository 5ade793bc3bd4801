"""Every kind of image file gives the same pixels in ``predict``, in ``prepare`` and on the page, or the same error."""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import struct
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from btkeras import Predictor
from btkeras.config import PhantomConfig
from btkeras.datasets.phantom import draw_patient
from btkeras.datasets.readers.formats import open_slices
from btkeras.datasets.readers.images import decode_image
from btkeras.errors import DataError, ImageError
from btkeras.inference.client import Client
from btkeras.inference.inputs import SliceRef
from tests.dicom_files import dicom
from tests.images import RGB, RGB_ALPHA, animation, encode, mutations, png, scene, turned
from tests.prepare_files import pixels, put, records, run
from tests.serve_tools import quarters_backend, running
from tests.tiff_files import WHITE_IS_ZERO, tiff

# Pillow warns of damaged tags.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

# A slice, since `prepare` and `predict` look at what an image shows; its rows and columns differ in number.
GREY = draw_patient(PhantomConfig(image_size=96), 0)[0].image[:, 4:-4]
COLOR = scene(48, 64)
# A part of 12 bits, as scanners use it.
DEEP = GREY.astype(np.int64) * 13 + 300


def spread(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """From the lowest to the highest value, rounded half up."""
    low, high = float(values.min()), float(values.max())
    return np.floor((values.astype(float) - low) / (high - low) * 255 + 0.5).astype(np.uint8)


def rgb(grey: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.repeat(grey[..., None], 3, axis=-1)


def cmyk() -> bytes:
    """Grey as ink of the fourth color alone, at full quality."""
    inks = np.zeros((*GREY.shape, 4), np.uint8)
    inks[..., 3] = 255 - GREY
    return encode(Image.fromarray(inks, "CMYK"), "TIFF")


def turned_webp() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(np.rot90(rgb(GREY)).copy(), "WEBP", lossless=True, exif=exif)


_TURNED = np.ascontiguousarray(np.rot90(GREY))
_LEVELS = GREY // 16 * 17
# Encoded, and the grey that each must be: by name and ending, kind, bits and mode.
READ: dict[str, tuple[bytes, NDArray[np.uint8]]] = {
    "png-8-grey.png": (encode(GREY), GREY),
    "png-8-rgb.png": (encode(GREY, mode="RGB"), GREY),
    "png-8-alpha.png": (encode(GREY, mode="LA"), GREY),
    "png-16-grey.png": (encode(DEEP.astype(np.uint16)), spread(DEEP)),
    "png-16-rgb.png": (png(rgb(DEEP), 16, RGB), spread(DEEP)),
    "png-16-rgba.png": (png(np.dstack([rgb(DEEP), DEEP]), 16, RGB_ALPHA), spread(DEEP)),
    "bmp-8-grey.bmp": (encode(GREY, "BMP"), GREY),
    "bmp-8-palette.bmp": (encode(GREY, "BMP", "P"), GREY),
    "bmp-24.dib": (encode(GREY, "BMP", "RGB"), GREY),
    "bmp-32.BMP": (encode(GREY, "BMP", "RGBA"), GREY),
    "gif-grey.gif": (encode(GREY, "GIF"), GREY),
    "gif-palette.GIF": (encode(_LEVELS, "GIF", "P"), _LEVELS),
    "webp-8.webp": (encode(GREY, "WEBP", "RGB", lossless=True), GREY),
    "webp-alpha.webp": (encode(GREY, "WEBP", "RGBA", lossless=True), GREY),
    "webp-turned.webp": (turned_webp(), GREY),
    "tiff-8-lzw.tif": (encode(GREY, "TIFF", compression="tiff_lzw"), GREY),
    "tiff-8-deflate.tif": (encode(GREY, "TIFF", compression="tiff_adobe_deflate"), GREY),
    "tiff-8-rgb.tiff": (tiff(rgb(GREY), order=">"), GREY),
    "tiff-8-cmyk.tiff": (cmyk(), GREY),
    "tiff-8-inverse.tif": (tiff(255 - GREY, photometric=WHITE_IS_ZERO), GREY),
    "tiff-8-signed.tif": (tiff((GREY.astype(np.int16) - 128).astype(np.int8)), spread(GREY)),
    "tiff-8-turned.tif": (tiff(_TURNED, orientation=6), GREY),
    "tiff-16.tif": (tiff(DEEP.astype(np.uint16)), spread(DEEP)),
    "tiff-16-motorola.tif": (tiff(DEEP.astype(np.uint16), order=">"), spread(DEEP)),
    "tiff-16-deflate.tif": (
        encode(DEEP.astype(np.uint16), "TIFF", compression="tiff_adobe_deflate"),
        spread(DEEP),
    ),
    "tiff-16-inverse.tif": (tiff((9000 - DEEP).astype(np.uint16), photometric=WHITE_IS_ZERO), spread(DEEP)),
    "tiff-16-signed.tif": (tiff((DEEP - 2000).astype(np.int16)), spread(DEEP)),
    "tiff-16-turned.tif": (tiff(np.rot90(DEEP).astype(np.uint16).copy(), orientation=6), spread(DEEP)),
    "tiff-12.tif": (tiff(DEEP.astype(np.uint16), bits=12), spread(DEEP)),
    "tiff-big.tif": (encode(DEEP.astype(np.uint16), "TIFF", big_tiff=True), spread(DEEP)),
    "tiff-32.tif": (tiff((DEEP + 2**31 - 1700).astype(np.uint32)), spread(DEEP)),
    "tiff-32-signed.tif": (tiff((DEEP - 2000).astype(np.int32), order=">"), spread(DEEP)),
    "tiff-float.tif": (tiff((DEEP / 4096).astype(np.float32)), spread((DEEP / 4096).astype(np.float32))),
    "tiff-float-inverse.tif": (tiff((-DEEP).astype(np.float32), photometric=WHITE_IS_ZERO), spread(DEEP)),
    "dicom-in-tiff.tif": (b"II*\0" + dicom(GREY)[4:], GREY),
}
# What each must be, Pillow says only nearly, or not at all: the three places must agree.
AGREED = {
    "jpeg-8.jpg": encode(GREY, "JPEG"),
    "jpeg-turned.jpe": turned(6),
    "jpeg-cmyk.jfif": encode(Image.fromarray(rgb(GREY)), "JPEG", "CMYK"),
    "png-palette.apng": encode(COLOR, mode="P"),
    "webp-lossy.webp": encode(COLOR, "WEBP"),
    "gif-color.gif": encode(COLOR, "GIF"),
    "bmp-color.bmp": encode(COLOR, "BMP"),
    "tiff-color.tif": encode(COLOR, "TIFF", compression="jpeg"),
}
FILES = {**{name: data for name, (data, _) in READ.items()}, **AGREED}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with running(quarters_backend()) as (client, _):
        yield client


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NDArray[np.uint8]]:
    """What `prepare` stores of each file, by its name."""
    root = tmp_path_factory.mktemp("kinds")
    put(root / "source/glioma", FILES)
    put(root / "source/no", {"a.png": encode(GREY)})
    run(root / "source", out=root / "out")
    # Of DICOM no names are kept.
    names = {path: record.extra["original"] or "dicom-in-tiff.tif" for path, record in records(root / "out").items()}
    return {Path(name).name: pixels(root / "out" / path) for path, name in names.items()}


@pytest.mark.parametrize("name", FILES)
def test_the_same_pixels_everywhere(
    name: str, prepared: dict[str, NDArray[np.uint8]], client: httpx.Client, tmp_path: Path
) -> None:
    put(tmp_path, {name: FILES[name]})
    seen = open_slices(tmp_path / name).image(0)
    if name in READ:
        np.testing.assert_array_equal(seen[..., 0], READ[name][1])
        assert seen.shape[-1] == (3 if name in ("png-8-rgb.png", "png-16-rgb.png", "png-16-rgba.png") else 1)
    stored = prepared[name]
    np.testing.assert_array_equal(stored if stored.ndim == 3 else stored[..., None], seen)
    predictor = Predictor(quarters_backend())
    by_file, by_pixels = predictor.predict([tmp_path / name, seen]).probabilities
    np.testing.assert_array_equal(by_file, by_pixels)
    answer = client.post("/api/slices", content=FILES[name]).json()
    with Image.open(io.BytesIO(base64.b64decode(answer["image"]))) as shown:
        np.testing.assert_array_equal(np.asarray(shown.convert("RGB")), np.broadcast_to(seen, (*seen.shape[:2], 3)))
    assert list(answer["probabilities"].values()) == pytest.approx(by_file.tolist(), abs=1e-6)


def pages(*shapes: tuple[int, int]) -> bytes:
    first, *others = (Image.fromarray(np.resize(GREY, shape)) for shape in shapes)
    return encode(first, "TIFF", save_all=True, append_images=others)


# Where width stands in a TIFF that begins with its pixels; height follows in the next tag.
TIFF_WIDTH = 8 + GREY.size + 2 + 8


def with_size(data: bytes, place: int, size: bytes) -> bytes:
    """An image whose header announces 9,000 pixels a side."""
    return data[:place] + size + data[place + len(size) :]


REFUSED = {
    "moving.gif": (animation("GIF"), "one still image.*2 frames.*Save the frame"),
    "moving.webp": (animation("WEBP"), "one still image.*2 frames"),
    "moving.png": (animation("PNG"), "one still image.*2 frames"),
    "moving.mpo": (animation("MPO"), "one still image.*2 frames"),
    "pages.tif": (pages((96, 88), (96, 88), (96, 88)), "one still image.*3 frames"),
    "preview.tif": (pages((96, 88), (24, 22)), "one still image.*2 frames"),
    "color-16.tif": (
        tiff(rgb(DEEP).astype(np.uint16)),
        "CMYK with 8 bits a color, or grey with.*16 bits in mode RGB",
    ),
    "lab.tif": (encode(Image.new("LAB", (40, 40)), "TIFF"), "8 bits a color.*in mode LAB"),
    "double.tif": (tiff(DEEP.astype(np.float64)), "of a variant that is read.*unknown pixel mode.*8-bit PNG"),
    "half.tif": (tiff(DEEP.astype(np.float16)), "of a variant that is read"),
    "long.tif": (tiff(DEEP.astype(np.uint64)), "of a variant that is read"),
    "nan.tif": (tiff(np.where(GREY > 9, GREY, np.nan).astype(np.float32)), "finite numbers"),
    "inf.tif": (tiff(np.where(GREY > 9, GREY, np.inf).astype(np.float32)), "finite numbers"),
    "tiny.bmp": (encode(GREY[:8, :8], "BMP"), "at least 16 x 16"),
    "tiny.gif": (encode(GREY[:8, :8], "GIF"), "at least 16 x 16"),
    "bomb.bmp": (with_size(encode(GREY, "BMP"), 18, struct.pack("<ll", 9000, 9000)), "at most 25 million pixels"),
    "bomb.gif": (with_size(encode(GREY, "GIF"), 6, struct.pack("<HH", 9000, 9000)), "at most 25 million pixels"),
    "bomb.webp": (
        with_size(encode(rgb(GREY), "WEBP", lossless=True), 21, struct.pack("<L", 8999 | 8999 << 14)),
        "at most 25 million pixels",
    ),
    "bomb.tif": (
        with_size(with_size(tiff(GREY), TIFF_WIDTH, struct.pack("<L", 9000)), TIFF_WIDTH + 12, struct.pack("<L", 9000)),
        "at most 25 million pixels",
    ),
    "short.bmp": (encode(GREY, "BMP")[:-900], "damaged"),
    "short.gif": (encode(GREY, "GIF")[:-900], "damaged"),
    "short.webp": (encode(rgb(GREY), "WEBP", lossless=True)[:-900], "damaged|of a variant"),
    "short.tif": (tiff(GREY)[:5000], "of a variant|damaged"),
    "wave.webp": (b"RIFF\x24\0\0\0WAVEfmt " + bytes(400), "of an unknown format"),
    "weight.bmp": (b"BMI,age\n23,61\n" * 30, "which is text"),
    "packed.dcm": (gzip.compress(bytes(128) + b"DICM"), "which is gzip. Unpack it first"),
    "x.jp2": (encode(GREY, "JPEG2000"), "which is JPEG 2000. Convert it to PNG first"),
    "x.heif": (bytes(4) + b"ftypheic" + bytes(90), "which is HEIC. Convert it to PNG first"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_same_error_everywhere(name: str, client: httpx.Client, tmp_path: Path) -> None:
    data, message = REFUSED[name]
    ending = Path(name).suffix if name != "x.jp2" and name != "x.heif" else ".png"
    put(tmp_path / "source/glioma", {f"a{ending}": data, "b.png": encode(GREY)})
    with pytest.raises(ImageError, match=message):
        open_slices(tmp_path / "source/glioma" / f"a{ending}").image(0)
    with pytest.raises(DataError, match=f"(?s)1 broken of 2.*({message})"):
        run(tmp_path / "source", out=tmp_path / "out")
    answer = client.post("/api/slices", content=data)
    assert answer.status_code == 400
    with pytest.raises(ImageError, match=message):
        raise ImageError(answer.json()["error"])


def test_a_server_is_sent_what_it_reads(client: httpx.Client, tmp_path: Path) -> None:
    """PNG and JPEG as they are, of all others the pixels as PNG."""
    put(tmp_path, FILES)
    files = [SliceRef(str(tmp_path / name)) for name in FILES]
    _, answers = Client(str(client.base_url), "quarters").predict_files(files)
    for answer, local in zip(answers, Predictor(quarters_backend()).predict_files(files), strict=True):
        assert not answer.error and answer.probabilities == pytest.approx(local.probabilities, abs=1e-6)


def test_one_bit_is_black_and_white() -> None:
    """``prepare`` takes it for a mask."""
    for kind in ("PNG", "BMP", "TIFF", "GIF"):
        found = decode_image(encode(GREY > 90, kind))
        np.testing.assert_array_equal(found[..., 0], (GREY > 90) * np.uint8(255))


def test_the_server_s_limit_of_pixels_holds_for_every_kind(client: httpx.Client) -> None:
    large = np.zeros((4000, 3000), np.uint8)
    for kind in ("PNG", "BMP", "GIF", "TIFF", "WEBP"):
        answer = client.post("/api/slices", content=encode(large, kind))
        assert answer.status_code == 400 and "at most 10000000 pixels" in answer.json()["error"], kind


def test_tags_of_other_types_are_one_error_or_harmless() -> None:
    """Each tag's type, count and value changed in turn, in a file of the kind whose tags matter."""
    data = tiff(DEEP.astype(np.uint16), photometric=WHITE_IS_ZERO)
    start = struct.unpack_from("<L", data, 4)[0] + 2
    for place in range(start, start + 12 * 11):
        for value in (0, 2, 255):
            with contextlib.suppress(ImageError):
                decode_image(data[:place] + bytes([value]) + data[place + 1 :])


@pytest.mark.parametrize("kind", ["BMP", "GIF", "WEBP", "TIFF", "deflated TIFF", "deep TIFF"])
def test_a_damaged_file_is_an_image_or_one_error(kind: str) -> None:
    whole = {
        "deflated TIFF": encode(GREY, "TIFF", compression="tiff_adobe_deflate"),
        "deep TIFF": tiff(DEEP.astype(np.uint16)),
    }
    data = whole.get(kind) or encode(GREY, kind.rpartition(" ")[2])
    outcomes = set()
    for changed in mutations(data, 150, 0):
        try:
            found = decode_image(changed)
            assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[-1] in (1, 3)
            outcomes.add("image")
        except ImageError as error:
            outcomes.add("error")
            assert "\n" not in str(error)
    assert outcomes == {"image", "error"}
