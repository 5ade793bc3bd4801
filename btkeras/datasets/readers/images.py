"""One image of any usual kind to what a dataset stores: upright 8-bit grey or RGB, as PNG or JPEG."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from btkeras.datasets.dataset import IMAGE_SUFFIXES
from btkeras.errors import ImageError
from btkeras.preprocessing.decode import to_uint8
from btkeras.preprocessing.image_file import MAX_PIXELS, check_image, damaged, sniff

# Endings that announce an image. GIF and WebP are among them to be refused by name instead of passed over.
READABLE_SUFFIXES = (*IMAGE_SUFFIXES, ".bmp", ".tif", ".tiff", ".gif", ".webp")

_KEPT = {"PNG": ".png", "JPEG": ".jpg"}
_CONVERTED = ("BMP", "TIFF")
# Pillow's modes and what they are written as. Alpha is dropped, as the network's own preprocessing drops it.
_WRITTEN_AS = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}
_DEEP_GREY = ("I", "I;16", "I;16L", "I;16B")
_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 258
# Most of what is gained is gained here: level 6 takes twice as long for 1.5 % on MRI slices.
_COMPRESSION = 4
# What Pillow's decoders raise on broken content.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    LookupError,
    OverflowError,
    RuntimeError,
    struct.error,
    zlib.error,
)
# Silencing a warning changes the whole process, so two threads must not do it at once.
_HEADER_LOCK = threading.Lock()


def to_png_or_jpeg(data: bytes, name: str = "the image") -> tuple[bytes, str]:
    """Turns an encoded image into the bytes to store and their file ending.

    A PNG or JPEG that already is upright 8-bit grey or RGB is returned unchanged. Everything else becomes PNG:
    other modes as grey or RGB without alpha, 16-bit grey through ``to_uint8``, EXIF-turned images upright.

    Args:
        data: PNG, JPEG, BMP or TIFF.
        name: What error messages call it.

    Raises:
        ImageError: If it is something else, broken, animated, too small or too large, or has more than 8 bits a
            colour.
    """
    kind = _check_header(data, name)
    try:
        with Image.open(io.BytesIO(data), formats=(kind,)) as image:
            image.load()
            if kind in _KEPT and _is_plain(image, data):
                return data, _KEPT[kind]
            stored = encode_png(_pixels(image, data, name))
    except DAMAGE as error:
        raise damaged(name, error) from error
    check_header(stored, name)
    return stored, ".png"


def check_header(data: bytes, name: str) -> tuple[int, int]:
    """As ``check_image``, for use in threads."""
    with _HEADER_LOCK:
        return check_image(data, name)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encodes (height, width) or (height, width, 3) uint8 as PNG, without metadata."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=_COMPRESSION)
    return buffer.getvalue()


def _check_header(data: bytes, name: str) -> str:
    kind = sniff(data)
    if kind not in _CONVERTED:
        check_header(data, name)
        return kind
    try:
        with _HEADER_LOCK, warnings.catch_warnings():
            # Pillow warns of large images; the limit here is lower and an error.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=(kind,)) as image:
                pixels, frames = image.width * image.height, getattr(image, "n_frames", 1)
    except (*DAMAGE, Image.DecompressionBombError) as error:
        raise damaged(name, error) from error
    if frames > 1 or pixels > MAX_PIXELS:
        raise ImageError(
            f"An image must be one still image of at most {MAX_PIXELS / 1e6:.0f} million pixels",
            received=f"{name} with {frames} frames of {pixels / 1e6:.1f} million pixels",
            remedy="Save the part you mean as PNG",
        )
    return kind


def _is_plain(image: Image.Image, data: bytes) -> bool:
    turned = image.getexif().get(_ORIENTATION, 1) in range(2, 9)
    return image.mode in ("L", "RGB") and _bits(image, data) == 8 and not turned and "transparency" not in image.info


def _bits(image: Image.Image, data: bytes) -> int:
    """Bits per colour in the file: Pillow's mode tells them for grey images only."""
    if image.format == "PNG":
        return data[24]
    if image.format == "TIFF":
        tags: Any = getattr(image, "tag_v2", {})
        return int(max(tags.get(_BITS_PER_SAMPLE, (8,))))
    return 8


def _pixels(image: Image.Image, data: bytes, name: str) -> NDArray[np.uint8]:
    upright = ImageOps.exif_transpose(image)
    if upright.mode in _DEEP_GREY:
        return to_uint8(np.asarray(upright))
    if upright.mode not in _WRITTEN_AS or _bits(image, data) > 8:
        raise ImageError(
            "An image must have 8 bits a colour, or be grey with up to 32",
            received=f"{name} with {_bits(image, data)} bits and Pillow's mode {upright.mode}",
            remedy="Save it as 8-bit PNG",
        )
    return np.asarray(upright.convert(_WRITTEN_AS[upright.mode]))
