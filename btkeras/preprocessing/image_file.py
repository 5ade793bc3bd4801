"""What may be read as an image: checks on an encoded image's header, before anything is decoded.

The headers are read here and not by Pillow, whose warnings about damaged ones cannot be silenced from one thread
without touching the others.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Literal

from btkeras.errors import ImageError

FORMATS = ("PNG", "JPEG")
MIN_SIDE = 16
MAX_PIXELS = 25_000_000
# More than the largest image takes without any compression, at 16 bits and with alpha.
MAX_BYTES = 256 * 2**20

_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"RIFF": "WebP",
    b"\x89HDF": "HDF5 (MATLAB v7.3)",
    b"MATLAB 5": "MATLAB v5",
    b"PK\x03\x04": "zip",
    b"\x1f\x8b": "gzip",
    b"%PDF": "PDF",
}
# NIfTI-1 has its magic at byte 344, NIfTI-2 at byte 4; "i": the header of a pair of files.
_NIFTI = (b"n+1\0", b"ni1\0", b"n+2\0", b"ni2\0")
# JPEG markers: start of a frame, of a scan, end of the image, and those that stand alone.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SCAN, _END = 0xDA, 0xD9
_WITHOUT_LENGTH = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})
_GAIN_MAP = b"hdrgm:Version"
# The number of images in an MPO segment: tag 0xB001, type LONG, count 1, in big- and little-endian.
_MPO_COUNTS: dict[bytes, Literal["big", "little"]] = {
    bytes.fromhex("b001000400000001"): "big",
    bytes.fromhex("01b0040001000000"): "little",
}


def read_bytes(path: str | Path) -> bytes:
    """Returns a file's content.

    Raises:
        ImageError: If it cannot be read, or has more than ``MAX_BYTES``.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        # A name with a NUL in it is a ValueError.
        reason = getattr(error, "strerror", None) or error
        raise ImageError("An image must be a readable file", received=f"{path} ({reason})") from error
    if len(data) > MAX_BYTES:
        raise ImageError(f"An image's file must have at most {MAX_BYTES // 2**20} MiB", received=f"more in {path}")
    return data


def read_image_bytes(path: str | Path) -> bytes:
    """Returns a file's content after ``check_image``; every failure names the file.

    Raises:
        ImageError: If the file cannot be read, has more than ``MAX_BYTES``, or is no PNG or JPEG that may be decoded.
    """
    data = read_bytes(path)
    check_image(data, str(path))
    return data


def check_image(data: bytes, name: str = "the image") -> tuple[int, int]:
    """Checks an encoded image by its header and returns its width and height in pixels.

    Raises:
        ImageError: If it is not PNG or JPEG, is animated, smaller than ``MIN_SIDE`` pixels on a side, or larger
            than ``MAX_PIXELS`` pixels (a decompression bomb).
    """
    kind = sniff(data)
    if kind not in FORMATS:
        raise ImageError(
            "An image must be a PNG or JPEG file", received=f"{name}, which is {kind}", remedy=remedy_for(kind)
        )
    width, height, frames = _header(data, name)
    if frames > 1:
        raise ImageError(
            "An image must be one still image",
            received=f"{name} with {frames} frames",
            remedy="Save the frame you mean as PNG",
        )
    if min(width, height) < MIN_SIDE:
        raise ImageError(
            f"An image must be at least {MIN_SIDE} x {MIN_SIDE} pixels", received=f"{name} with {width} x {height}"
        )
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"An image must have at most {MAX_PIXELS / 1e6:.0f} million pixels",
            received=f"{name} with {width} x {height}",
            remedy="Make it smaller first",
        )
    return width, height


def remedy_for(kind: str) -> str:
    """What to do about a file that ``sniff`` finds to be no image."""
    return {"an empty file": "Save it again", "text": "Name the image itself"}.get(kind, "Convert it to PNG first")


def sniff(data: bytes) -> str:
    """Names the format that a file's first bytes announce."""
    if not data:
        return "an empty file"
    for magic, kind in _MAGIC.items():
        if data.startswith(magic):
            return kind
    if data[128:132] == b"DICM":
        return "DICOM"
    if data[344:348] in _NIFTI or data[4:8] in _NIFTI:
        return "NIfTI"
    return "text" if data[:256].isascii() and b"\0" not in data[:256] else "of an unknown format"


def _header(data: bytes, name: str) -> tuple[int, int, int]:
    """Width, height and number of frames."""
    try:
        return _png_header(data) if sniff(data) == "PNG" else _jpeg_header(data)
    except (struct.error, IndexError) as error:
        raise damaged(name, "it ends in its header") from error
    except ValueError as error:
        raise damaged(name, error) from error


def _png_header(data: bytes) -> tuple[int, int, int]:
    if data[12:16] != b"IHDR":
        raise ValueError("it does not begin with its size")
    width, height = struct.unpack_from(">II", data, 16)
    position, frames = 8, 1
    # An animation is announced before the first image data, and the chunk says how many frames it has.
    while (kind := data[position + 4 : position + 8]) != b"IDAT":
        (length,) = struct.unpack_from(">I", data, position)
        if kind == b"acTL":
            (frames,) = struct.unpack_from(">I", data, position + 8)
        position += 12 + length
    return width, height, frames


def _jpeg_header(data: bytes) -> tuple[int, int, int]:
    position, frames = 2, 1
    while True:
        position = data.find(b"\xff", position) + 1
        marker = data[position] if position else _END
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, position + 4)
            # What a phone adds to show a photograph brighter (Ultra HDR) is no second image.
            return width, height, 1 if _GAIN_MAP in data[:position] else frames
        if marker in (_SCAN, _END):
            raise ValueError("it has no frame header")
        if marker == 0xFF or marker in _WITHOUT_LENGTH:
            continue
        (length,) = struct.unpack_from(">H", data, position + 1)
        frames = max(frames, _images(data[position + 3 : position + 1 + length]))
        position += 1 + length


def _images(segment: bytes) -> int:
    """Number of images that a multi-image (MPO) segment announces, 1 for any other segment."""
    if segment.startswith(b"MPF\0"):
        for count, order in _MPO_COUNTS.items():
            position = segment.find(count)
            if position >= 0:
                return int.from_bytes(segment[position + len(count) :][:4], order)
    return 1


def damaged(name: str, reason: object) -> ImageError:
    """The error for an image whose content is broken."""
    return ImageError("An image must be whole", received=f"{name}, which is damaged ({reason})", remedy="Get it again")
