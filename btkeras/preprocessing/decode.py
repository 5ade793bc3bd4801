"""Encoded bytes to pixels by Pillow, which loads in no time: what ``btkeras.preprocessing.graph.decode`` does in a graph.

Both give the same bytes, and refuse the same; a test holds them together. Pillow is handed only those parts of a file
that say what the pixels are: what it makes of the rest (text, colour profiles, EXIF directories, frames) costs time,
warns, or fails where there is nothing wrong with the image.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from btkeras.preprocessing.image_file import damaged, sniff


def to_uint8(pixels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Maps the lowest value of a slice to 0 and the highest to 255, linearly.

    Integer arithmetic, rounding half up, so that the TensorFlow graph for 16-bit PNG
    (``btkeras.preprocessing.graph``) gives the same bytes. A constant slice becomes black.

    Args:
        pixels: Integers of any width, whose range spans at most 2**31.

    Returns:
        uint8 of the same shape.
    """
    values = pixels.astype(np.int64)
    values -= values.min()
    span = max(int(values.max()), 1)
    return ((values * 510 + span) // (2 * span)).astype(np.uint8)


ImageArray = NDArray[np.uint8]

# Where the orientation may stand: EXIF is among an image's first segments, its first directory at its beginning.
HEAD = 4096
# Tag 0x0112, type SHORT, count 1, in both byte orders.
# Eight bytes do not turn up by chance, so the directory around them need not be parsed.
PATTERNS: Mapping[Literal["big", "little"], bytes] = MappingProxyType(
    {"big": bytes.fromhex("0112000300000001"), "little": bytes.fromhex("1201030001000000")}
)
_UPRIGHT = 1
_TURNED: Mapping[int, Callable[[ImageArray], ImageArray]] = MappingProxyType(
    {
        2: lambda image: image[:, ::-1],
        3: lambda image: image[::-1, ::-1],
        4: lambda image: image[::-1],
        5: lambda image: image.swapaxes(0, 1),
        6: lambda image: image.swapaxes(0, 1)[:, ::-1],
        7: lambda image: image.swapaxes(0, 1)[::-1, ::-1],
        8: lambda image: image.swapaxes(0, 1)[::-1],
    }
)


def orientation(data: bytes) -> int:
    """Reads the EXIF orientation (1..8) of JPEG or PNG bytes; 1, upright, where there is none."""
    head = data[:HEAD]
    for order, pattern in PATTERNS.items():
        _, found, behind = head.partition(pattern)
        code = int.from_bytes(behind[:2], order) if len(behind) > 1 else _UPRIGHT
        # 0 is no orientation: the other byte order may have one.
        if found and code:
            return code if code in _TURNED else _UPRIGHT
    return _UPRIGHT


def upright(image: ImageArray, data: bytes) -> ImageArray:
    """Turns a decoded image as its encoded bytes say.

    Args:
        image: ``[height, width, channels]``.
        data: The bytes it was decoded from.
    """
    code = orientation(data)
    return np.ascontiguousarray(_TURNED[code](image)) if code in _TURNED else image


_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_PARTS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
# Colour types of PNG.
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGB_ALPHA = 0, 2, 3, 4, 6
_CHANNELS = {_GREY: 1, _RGB: 3, _PALETTE: 1, _GREY_ALPHA: 2, _RGB_ALPHA: 4}
# Of a 16-bit image without colour, the 8-bit one with the same bytes: its channels are a value's two bytes.
_HALVES = {_GREY: _GREY_ALPHA, _GREY_ALPHA: _RGB_ALPHA}
# With colour, Pillow gives 8 of the 16 bits; which ones, its raw mode says.
_HIGH, _LOW = ";16B", ";16L"
# JPEG markers but those that stand alone, and the segments that decoders pass over: APP1 to APP13, APP15 and comments.
# (APP0 and APP14 say what the colours are.)
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")
_UNREAD = frozenset({*range(0xE1, 0xEE), 0xEF, 0xFE})
_END = b"\xff\xd9"
# The first with a length; beginning, end and scan of an image.
_FIRST, _STOPS = 0xC0, (0xD8, 0xD9, 0xDA)
# What Pillow raises on broken files; that list is nowhere promised.
_BROKEN = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, zlib.error)


def decode(data: bytes, name: str) -> ImageArray:
    """Decodes PNG (8 or 16 bits) or JPEG bytes that passed ``image_file.check_image``, turned upright.

    16-bit images are scaled from their own lowest..highest value to 0..255, as ``prepare`` does with raw slices.
    Transparency is ignored.

    Args:
        data: The bytes.
        name: What messages call them.

    Returns:
        uint8 ``[height, width, 1 (grey) or 3 (RGB)]``.

    Raises:
        ImageError: If they are damaged.
    """
    try:
        pixels = _decode_png(data) if sniff(data) == "PNG" else _decode_jpeg(data)
    except struct.error as error:
        raise damaged(name, "it breaks off") from error
    except _BROKEN as error:
        reason = " ".join(str(error).split())[:120].rstrip(". ")
        raise damaged(name, reason or type(error).__name__) from error
    return upright(pixels if pixels.ndim == 3 else pixels[..., None], data)


def _decode_png(data: bytes) -> ImageArray:
    parts = list(_png_parts(data))
    depth, color, *methods = struct.unpack(">8x5B", parts[0][1])
    if methods not in ([0, 0, 0], [0, 0, 1]):
        raise ValueError("its header is wrong")
    if color == _PALETTE:
        _check_palette(parts)
    if depth == 16:
        pixels = to_uint8(_deep_png(parts, color))
    else:
        with PngImageFile(io.BytesIO(_png(parts))) as image:
            pixels = _grey_or_rgb(image)
    # Rows that are missing stay 0. (Missing passes of interlaced ones are found by Pillow.)
    if methods[-1] == 0 and (color == _PALETTE or not pixels[-1].any()):
        _check_rows(parts)
    return pixels


def _check_rows(parts: list[tuple[bytes, bytes]]) -> None:
    width, height, depth, color = struct.unpack(">IIBB3x", parts[0][1])
    # Each row begins with a byte that says how it is written.
    needed = height * (1 + (width * depth * _CHANNELS[color] + 7) // 8)
    packed = b"".join(content for kind, content in parts if kind == b"IDAT")
    if len(zlib.decompressobj().decompress(packed, needed)) < needed:
        raise ValueError("rows are missing")


def _check_palette(parts: list[tuple[bytes, bytes]]) -> None:
    sizes = [len(content) for kind, content in parts if kind == b"PLTE"]
    if len(sizes) != 1 or parts[1][0] != b"PLTE" or sizes[0] not in range(3, 769, 3):
        raise ValueError("its palette is wrong")


def _deep_png(parts: list[tuple[bytes, bytes]], color: int) -> NDArray[np.uint16]:
    if color in _HALVES:
        (kind, header), *rest = parts
        shallow = header[:8] + bytes([8, _HALVES[color]]) + header[10:]
        with PngImageFile(io.BytesIO(_png([(kind, shallow), *rest]))) as image:
            high, low = np.moveaxis(np.asarray(image)[..., :2], -1, 0)
    else:
        high, low = (_half(_png(parts), half)[..., :3] for half in (_HIGH, _LOW))
    return high.astype(np.uint16) << 8 | low


def _half(data: bytes, half: str) -> ImageArray:
    with PngImageFile(io.BytesIO(data)) as image:
        (tile,) = image.tile
        image.tile = [tile._replace(args=image.mode + half)]
        return np.asarray(image)


def _png_parts(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks that make the pixels, checked: Pillow looks at the sums of some only."""
    position, kind = len(_PNG_SIGNATURE), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, position)
        content = data[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack_from(">I", data, position + 8 + length)
        position += 12 + length
        # Those with a small first letter may be left out.
        if kind[:1].isupper():
            if zlib.crc32(content, zlib.crc32(kind)) != checksum:
                raise ValueError("a checksum is wrong")
            if kind not in _PNG_PARTS:
                raise ValueError("it has an unknown part")
            yield kind, content


def _png(parts: list[tuple[bytes, bytes]]) -> bytes:
    chunks = (
        struct.pack(">I4s", len(content), kind) + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))
        for kind, content in parts
    )
    return _PNG_SIGNATURE + b"".join(chunks)


def _decode_jpeg(data: bytes) -> ImageArray:
    with JpegImageFile(io.BytesIO(_without_unread(data))) as image:
        if image.mode != "CMYK":
            return _grey_or_rgb(image)
        pixels = np.asarray(image).astype(np.int32)
        # Pillow takes all for Adobe's, who store the inverse; and it rounds, where TensorFlow cuts off.
        inks = 255 - pixels if "adobe" in image.info else pixels
        return (inks[..., :3] * inks[..., 3:] // 255).astype(np.uint8)


def _without_unread(data: bytes) -> bytes:
    """A JPEG without what stands before its first scan and no decoder reads: such segments, and bytes between them."""
    kept, position = [data[:2]], 2
    while found := _MARKER.search(data, position):
        position, (marker,) = found.start(1) - 1, found[1]
        if marker in _STOPS or marker < _FIRST:
            break
        (length,) = struct.unpack_from(">H", data, position + 2)
        if marker not in _UNREAD:
            kept.append(data[position : position + 2 + length])
        position += 2 + length
    # Of an image that is cut off, Pillow at times gives what there is. The last byte alone is not missed.
    if data.find(_END, position) < 0 and not data.endswith(_END[:1]):
        raise ValueError("it ends before its end")
    return b"".join([*kept, data[position:]])


def _grey_or_rgb(image: ImageFile.ImageFile) -> ImageArray:
    grey = image.mode in ("1", "L", "LA")
    # RGB of the transparent pixels too.
    return np.asarray(image.convert("L" if grey else "RGB"))
