"""Encoded bytes to pixels by Pillow: the same bytes as ``btkeras.preprocessing.graph.decode`` gives in TensorFlow."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngImageFile

from btkeras.preprocessing.image_file import BROKEN, check_image, damaged, open_image, read_bytes, sniff

ImageArray = NDArray[np.uint8]

# Where the EXIF orientation is looked for: EXIF is among an image's first segments.
HEAD = 4096
# Tag 0x0112, type SHORT, count 1. Eight bytes do not turn up by chance, so the directory around them is not parsed.
PATTERNS: dict[Literal["big", "little"], bytes] = {
    "big": bytes.fromhex("0112000300000001"),
    "little": bytes.fromhex("1201030001000000"),
}
# By EXIF orientation: whether rows and columns are exchanged, then the steps through both.
_STEPS = ((1, 1), (1, -1), (-1, -1), (-1, 1), (1, 1), (1, -1), (-1, -1), (-1, 1))
ORIENTATIONS = {code: (code > 4, *steps) for code, steps in enumerate(_STEPS, 1)}
_UPRIGHT = 1
# PNG color types, and how many channels each has.
_GREY, _PALETTE, _GREY_ALPHA, _RGB_ALPHA = 0, 3, 4, 6
_CHANNELS = {_GREY: 1, 2: 3, _PALETTE: 1, _GREY_ALPHA: 2, _RGB_ALPHA: 4}
# First row and column of each pass of an interlaced PNG, and the steps to the next ones.
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
# The last bytes of a whole file; others may follow.
_ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}
_JPEG_SCAN = b"\xff\xda"


def to_uint8(pixels: NDArray[np.integer | np.floating]) -> NDArray[np.uint8]:
    """Maps the lowest value of a slice to 0 and the highest to 255, linearly; a constant slice becomes black.

    Args:
        pixels: Integers of up to 32 bits, or finite floating-point numbers; whole ones give what integers give.

    Returns:
        uint8 of the same shape, rounded half up.
    """
    values = pixels.astype(np.float64 if pixels.dtype.kind == "f" else np.int64)
    values -= values.min()
    span = values.max() or 1
    return ((values * 510 + span) // (2 * span)).astype(np.uint8)


def orientation(data: bytes) -> int:
    """Reads the EXIF orientation (1..8) of JPEG or PNG bytes; 1, upright, where there is none."""
    head = data[:HEAD]
    for order, pattern in PATTERNS.items():
        _, found, behind = head.partition(pattern)
        code = int.from_bytes(behind[:2], order) if len(behind) > 1 else _UPRIGHT
        # 0 is no orientation: the other byte order may have one.
        if found and code:
            return code if code in ORIENTATIONS else _UPRIGHT
    return _UPRIGHT


def upright(image: ImageArray, data: bytes) -> ImageArray:
    """Turns a decoded image ``[height, width, channels]`` as its encoded bytes say."""
    exchanged, down, across = ORIENTATIONS[orientation(data)]
    return np.ascontiguousarray((image.swapaxes(0, 1) if exchanged else image)[::down, ::across])


def decode(data: bytes, name: str = "the image") -> ImageArray:
    """Decodes PNG (8 or 16 bits) or JPEG bytes, turned upright.

    16-bit images are scaled from their own lowest..highest value to 0..255. Transparency is ignored.

    Returns:
        uint8 ``[height, width, 1 (grey) or 3 (RGB)]``.

    Raises:
        ImageError: If they are no PNG or JPEG that may be decoded (``image_file.check_image``), or damaged.
    """
    check_image(data, name)
    kind = sniff(data)
    # An EXIF thumbnail has an end of its own, before the first scan.
    if data.rfind(_ENDS[kind]) < data.rfind(_JPEG_SCAN if kind == "JPEG" else data[:1]):
        raise damaged(name, "it breaks off")
    try:
        pixels = _decode_png(data) if kind == "PNG" else _decode_jpeg(data)
    except BROKEN as error:
        reason = " ".join(str(error).split())[:120].rstrip(". ")
        raise damaged(name, reason or type(error).__name__) from error
    return upright(pixels if pixels.ndim == 3 else pixels[..., None], data)


def decode_file(path: str | Path) -> ImageArray:
    """Decodes a file, as ``decode``; a file that cannot be read is an ImageError too."""
    return decode(read_bytes(path), str(path))


def pixel_digest(image: ImageArray) -> str:
    """BLAKE2 of a decoded image, 32 hexadecimal digits: the same for other encodings of the same pixels."""
    sha = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    sha.update(np.ascontiguousarray(image).data)
    return sha.hexdigest()


def _decode_png(data: bytes) -> ImageArray:
    with open_image(data) as image:
        # Loading looks at no checksum of pixels.
        image.verify()
    depth, color, interlaced = data[24], data[25], data[28]
    with open_image(data) as image:
        if color == _PALETTE and not (image.palette and len(image.palette.palette) in range(3, 769, 3)):
            raise ValueError("its palette is wrong")
        pixels = to_uint8(_deep_png(data, image.size)) if depth == 16 else _grey_or_rgb(image)
    # Pillow leaves rows that are missing 0.
    if interlaced or color == _PALETTE or not pixels[-1].any():
        _check_rows(data)
    return pixels


def _packed(data: bytes) -> bytes:
    """The compressed rows of a PNG."""
    with PngImageFile(io.BytesIO(data)) as image:
        image.load_prepare()
        return b"".join(iter(lambda: image.load_read(2**20), b""))


def _check_rows(data: bytes) -> None:
    width, height, depth, color = struct.unpack_from(">IIBB", data, 16)
    needed = 0
    for row, column, down, across in _PASSES if data[28] else ((0, 0, 1, 1),):
        bits = len(range(column, width, across)) * depth * _CHANNELS[color]
        # Each row begins with a byte that names its filter.
        needed += len(range(row, height, down)) * (1 + (bits + 7) // 8)
    if len(zlib.decompressobj().decompress(_packed(data), needed)) < needed:
        raise ValueError("rows are missing")


def _deep_png(data: bytes, size: tuple[int, int]) -> NDArray[np.uint16]:
    """The 16-bit values, from high and low bytes, since Pillow keeps only one of both where there is color or alpha."""
    packed, color, interlaced = _packed(data), data[25], data[28]

    def read(mode: str, raw_mode: str) -> ImageArray:
        return np.asarray(Image.frombytes(mode, size, packed, "zip", raw_mode, interlaced))

    if color in (_GREY, _GREY_ALPHA):
        # As if each byte were a channel.
        mode = "LA" if color == _GREY else "RGBA"
        high, low = np.moveaxis(read(mode, mode)[..., :2], -1, 0)
    else:
        mode = "RGBA" if color == _RGB_ALPHA else "RGB"
        high, low = (read(mode, mode + half)[..., :3] for half in (";16B", ";16L"))
    return high.astype(np.uint16) << 8 | low


def _decode_jpeg(data: bytes) -> ImageArray:
    with open_image(data) as image:
        if image.mode != "CMYK":
            return _grey_or_rgb(image)
        pixels = np.asarray(image).astype(np.int32)
        # Pillow takes all for Adobe's, who store the inverse; and it rounds, where TensorFlow cuts off.
        inks = 255 - pixels if "adobe" in image.info else pixels
        return (inks[..., :3] * inks[..., 3:] // 255).astype(np.uint8)


def _grey_or_rgb(image: ImageFile.ImageFile) -> ImageArray:
    # RGB of the transparent pixels too.
    image.info.pop("transparency", None)
    return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
