"""Ordinary image files to pixels: PNG and JPEG as in training, BMP, TIFF, WebP and GIF through Pillow.

What has 8 bits stays as it is; grey of more bits, also of floating-point numbers, spans its lowest to highest value.
Images of several frames or pages are errors: pages may be slices, channels or a preview, and no file says which.
"""

from __future__ import annotations

import importlib
import io
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile

from btkeras.datasets.readers import check
from btkeras.errors import ImageError
from btkeras.preprocessing.decode import ImageArray, decode, orientation, to_uint8
from btkeras.preprocessing.image_file import FORMATS, check_header, check_image, damaged, open_image, remedy_for, sniff

# What Pillow's decoders raise on broken content.
DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, OverflowError, RuntimeError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)

# Pillow's classes of what a dataset does not store; each is imported when a file asks for it.
_PLUGINS = {
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "WebP": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
}
KINDS = (*FORMATS, *_PLUGINS)
_UNCHANGED = {"PNG": ".png", "JPEG": ".jpg"}
# Pillow's modes and what they become. Alpha is dropped, as in PNG.
_EIGHT_BITS = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}
_DEEP_GREY = ("I", "I;16", "I;16L", "I;16B", "F")
# Tags of TIFF, and values of theirs.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO, _UNSIGNED, _SIGNED = 0, 1, 2
_KINDS_RULE = "An image must be PNG, JPEG, BMP, TIFF, WebP or GIF, or DICOM, or NIfTI"
# Level 6 takes twice as long and makes MRI slices 1.5 % smaller.
_COMPRESSION = 4


def image_size(data: bytes, name: str = "the image") -> tuple[int, int]:
    """Checks an encoded image by its header and returns its width and height in pixels.

    Raises:
        ImageError: If it is of no kind in ``KINDS``, its header is broken, it has several frames or pages, or is
            smaller than ``MIN_SIDE`` pixels on a side or larger than ``MAX_PIXELS`` pixels (a decompression bomb).
    """
    kind = sniff(data)
    if kind in FORMATS:
        return check_image(data, name)
    with _open(data, kind, name) as image:
        return image.size


def decode_image(data: bytes, name: str = "the image") -> ImageArray:
    """Decodes an image of a kind in ``KINDS``, turned upright; transparency is ignored.

    Returns:
        uint8 ``[height, width, 1 (grey) or 3 (RGB)]``.

    Raises:
        ImageError: As ``image_size``, or if it is damaged, has more than 8 bits a color, or values that are no numbers.
    """
    kind = sniff(data)
    if kind in FORMATS:
        return decode(data, name)
    with _open(data, kind, name) as image:
        try:
            tags = dict(getattr(image, "tag_v2", {}))
            image.load()
            return _pixels(ImageOps.exif_transpose(image), tags, name)
        except DAMAGE as error:
            raise damaged(name, error) from error


def to_png_or_jpeg(data: bytes, name: str = "the image") -> tuple[bytes, str]:
    """Turns an encoded image into the bytes to store and their file ending; errors as ``decode_image``.

    PNG and JPEG that are upright 8-bit grey or RGB without transparency are returned unchanged, all else as PNG of the
    same pixels as ``decode_image`` gives.
    """
    return stored_form(data, decode_image(data, name))


def stored_form(data: bytes, pixels: ImageArray) -> tuple[bytes, str]:
    """As ``to_png_or_jpeg``, of an image that ``decode_image`` has decoded."""
    kind = sniff(data)
    unchanged = kind in _UNCHANGED and _is_plain(data)
    return (data, _UNCHANGED[kind]) if unchanged else (encode_png(pixels), ".png")


def encode_png(pixels: ImageArray) -> bytes:
    """Encodes uint8 ``[h, w]``, ``[h, w, 1]`` or ``[h, w, 3]`` as PNG, without metadata."""
    grey = pixels.ndim == 3 and pixels.shape[-1] == 1
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if grey else pixels).save(buffer, "PNG", compress_level=_COMPRESSION)
    return buffer.getvalue()


def _is_plain(data: bytes) -> bool:
    with open_image(data) as image:
        deep = image.format == "PNG" and data[24] != 8
        return image.mode in ("L", "RGB") and "transparency" not in image.info and not deep and orientation(data) == 1


def _open(data: bytes, kind: str, name: str) -> ImageFile:
    """An image of a kind in ``_PLUGINS`` whose header was checked."""
    check(kind in KINDS, _KINDS_RULE, f"{name}, which is {kind}", remedy_for(kind))
    module, plugin = _PLUGINS[kind]
    try:
        opened: ImageFile = getattr(importlib.import_module(module), plugin)(io.BytesIO(data))
        check_header(opened, name)
    except DAMAGE as error:
        rule = "An image must be whole, and of a variant that is read"
        raise ImageError(rule, received=f"{name}, {kind} ({error})", remedy="Save it as 8-bit PNG") from error
    return opened


def _pixels(image: Image.Image, tags: Mapping[int, Any], name: str) -> ImageArray:
    deep = _deep_grey(image, tags)
    if deep is None:
        return _grey_or_rgb(image, max(tags.get(_BITS_PER_SAMPLE, (8,))), name)
    check(np.isfinite(deep).all(), "An image's values must be finite numbers", f"{name} with others", "Replace them")
    return to_uint8(deep)[..., None]


def _deep_grey(image: Image.Image, tags: Mapping[int, Any]) -> NDArray[Any] | None:
    """Grey of more than 8 bits, or with signs, as a TIFF means it; None for other images."""
    sample, values = tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0], np.asarray(image)
    if image.mode == "L" and sample == _SIGNED:
        return values.view(np.int8)
    if image.mode not in _DEEP_GREY:
        return None
    if image.mode == "I" and sample == _UNSIGNED:
        # Pillow reads them as signed.
        values = values.view(np.uint32)
    # Pillow inverts 8 bits only.
    white_is_zero = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    return -values.astype(np.float64) if white_is_zero else values


def _grey_or_rgb(image: Image.Image, bits: int, name: str) -> ImageArray:
    """An image of 8 bits; one whose channels are all equal becomes grey, since GIF and WebP cannot be it."""
    rule = "An image must be grey, RGB or CMYK with 8 bits a color, or grey with up to 32 bits"
    found = f"{bits} bits in mode {image.mode}"
    check(image.mode in _EIGHT_BITS and bits <= 8, rule, f"{name} with {found}", "Save it as 8-bit PNG")
    image.info.pop("transparency", None)
    pixels = np.asarray(image.convert(_EIGHT_BITS[image.mode]))
    if pixels.ndim == 2:
        return pixels[..., None]
    return pixels[..., :1] if (pixels == pixels[..., :1]).all() else pixels
