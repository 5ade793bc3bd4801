"""Ordinary image files (PNG, JPEG, BMP, TIFF) as a dataset stores them."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from btkeras.datasets.dataset import IMAGE_SUFFIXES
from btkeras.datasets.readers import check
from btkeras.preprocessing.decode import ImageArray, to_uint8
from btkeras.preprocessing.image_file import MAX_PIXELS, check_image, damaged, sniff

# GIF and WebP are among them to be rejected by name instead of passed over.
READABLE_SUFFIXES = (*IMAGE_SUFFIXES, ".bmp", ".tif", ".tiff", ".gif", ".webp")
# What Pillow's decoders raise on broken content.
DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, OverflowError, RuntimeError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)

_UNCHANGED = {"PNG": ".png", "JPEG": ".jpg"}
_CONVERTED = ("BMP", "TIFF")
# Pillow's modes and what they are written as. Alpha is dropped, as in preprocessing.
_WRITTEN_AS = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}
_DEEP_GREY = ("I", "I;16", "I;16L", "I;16B")
_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 258
# Level 6 takes twice as long and makes MRI slices 1.5 % smaller.
_COMPRESSION = 4


def to_png_or_jpeg(data: bytes, name: str = "the image") -> tuple[bytes, str]:
    """Turns an encoded image into the bytes to store and their file ending.

    PNG and JPEG that are upright 8-bit grey or RGB are returned unchanged. Other PNG and JPEG, BMP and TIFF become PNG:
    grey or RGB without alpha, 16-bit grey through ``to_uint8``, EXIF-turned images upright.

    Raises:
        ImageError: If it is something else, broken, animated, too small or too large, or has more than 8 bits a color.
    """
    kind = sniff(data)
    if kind not in _CONVERTED:
        check_image(data, name)
    try:
        with Image.open(io.BytesIO(data), formats=(kind,)) as image:
            pixels, frames = image.width * image.height, getattr(image, "n_frames", 1)
            check(
                kind in _UNCHANGED or (frames == 1 and pixels <= MAX_PIXELS),
                f"An image must be one still image of at most {MAX_PIXELS / 1e6:.0f} million pixels",
                f"{name} with {frames} frames of {pixels / 1e6:.1f} million pixels",
                "Save the frame you mean as PNG, smaller if need be",
            )
            image.load()
            if kind in _UNCHANGED and _is_plain(image, data):
                return data, _UNCHANGED[kind]
            stored = encode_png(_pixels(image, data, name))
    except DAMAGE as error:
        raise damaged(name, error) from error
    check_image(stored, name)
    return stored, ".png"


def encode_png(pixels: ImageArray) -> bytes:
    """Encodes uint8 ``[h, w]``, ``[h, w, 1]`` or ``[h, w, 3]`` as PNG, without metadata."""
    grey = pixels.ndim == 3 and pixels.shape[-1] == 1
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if grey else pixels).save(buffer, "PNG", compress_level=_COMPRESSION)
    return buffer.getvalue()


def _is_plain(image: Image.Image, data: bytes) -> bool:
    turned = image.getexif().get(_ORIENTATION, 1) in range(2, 9)
    return image.mode in ("L", "RGB") and _bits(image, data) == 8 and not turned and "transparency" not in image.info


def _bits(image: Image.Image, data: bytes) -> int:
    """Bits per color in the file: Pillow's mode tells them for grey images only."""
    if image.format == "PNG":
        return data[24]
    tags: Any = getattr(image, "tag_v2", {})
    return int(max(tags.get(_BITS_PER_SAMPLE, (8,))))


def _pixels(image: Image.Image, data: bytes, name: str) -> ImageArray:
    upright = ImageOps.exif_transpose(image)
    if upright.mode in _DEEP_GREY:
        return to_uint8(np.asarray(upright))
    check(
        upright.mode in _WRITTEN_AS and _bits(image, data) <= 8,
        "An image must have 8 bits a color, or be grey with up to 32",
        f"{name} with {_bits(image, data)} bits and Pillow's mode {upright.mode}",
        "Save it as 8-bit PNG",
    )
    return np.asarray(upright.convert(_WRITTEN_AS[upright.mode]))
