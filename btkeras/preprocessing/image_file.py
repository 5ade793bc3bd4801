"""What may be read as an image: checks on an encoded image's header, before anything is decoded."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import jpeg_factory
from PIL.PngImagePlugin import PngImageFile

from btkeras.errors import ImageError

FORMATS = ("PNG", "JPEG")
MIN_SIDE = 16
MAX_PIXELS = 25_000_000
# More than the largest image takes without any compression, at 16 bits and with alpha.
MAX_BYTES = 256 * 2**20

_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    # The last two are BigTIFF.
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "TIFF"),
    b"\x89HDF": "HDF5 (MATLAB v7.3)",
    b"MATLAB 5": "MATLAB v5",
    b"PK\x03\x04": "zip",
    b"\x1f\x8b": "gzip",
    b"%PDF": "PDF",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"8BPS": "Photoshop",
    b"NRRD": "NRRD",
}
# Boxes of ISO's file format, whose brand stands at byte 8.
_BRANDS = {b"avif": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC"}
# Sizes of a BMP's second header; two letters alone begin many a text.
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
_REMEDIES = {
    "an empty file": "Save it again",
    "text": "Name the image itself",
    **dict.fromkeys(("gzip", "zip"), "Unpack it first"),
}
# NIfTI-1 has its magic at byte 344, NIfTI-2 at byte 4; "i": the header of a pair of files.
_NIFTI = (b"n+1\0", b"ni1\0", b"n+2\0", b"ni2\0")
# The length of its header in either byte order, with which NIfTI-1 begins too.
_ANALYZE = (b"\x5c\x01\0\0", b"\0\0\x01\x5c")
# What Pillow raises on damaged files; that list is nowhere promised.
BROKEN = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, struct.error, zlib.error)


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
    """Returns a file's content after ``check_image``; every failure is an ImageError that names the file."""
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
    try:
        image = open_image(data)
    except BROKEN as error:
        raise damaged(name, str(error).rstrip(". ")) from error
    return check_header(image, name)


def check_header(image: ImageFile, name: str) -> tuple[int, int]:
    """The same for an image that Pillow has opened, of whatever format."""
    (width, height), frames = image.size, getattr(image, "n_frames", 1)
    size, smallest, largest = f"{width} x {height}", f"{MIN_SIDE} x {MIN_SIDE}", f"{MAX_PIXELS / 1e6:.0f} million"
    for met, rule, found, remedy in (
        (frames <= 1, "be one still image", f"{frames} frames", "Save the frame you mean as PNG"),
        (min(width, height) >= MIN_SIDE, f"be at least {smallest} pixels", size, ""),
        (width * height <= MAX_PIXELS, f"have at most {largest} pixels", size, "Make it smaller first"),
    ):
        if not met:
            raise ImageError(f"An image must {rule}", received=f"{name} with {found}", remedy=remedy)
    return width, height


def remedy_for(kind: str) -> str:
    """What to do about a file that ``sniff`` finds to be no image."""
    if kind.startswith("ANALYZE"):
        return "Convert it to NIfTI by software that knows its orientation"
    return _REMEDIES.get(kind, "Convert it to PNG first")


def sniff(data: bytes) -> str:
    """Names the format that a file's first bytes announce."""
    if not data:
        return "an empty file"
    kind = next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), "")
    # The preamble of DICOM may be the beginning of a TIFF (PS3.10, 7.1).
    if kind not in FORMATS and data[128:132] == b"DICM":
        return "DICOM"
    if kind:
        return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if data[344:348] in _NIFTI or data[4:8] in _NIFTI:
        return "NIfTI"
    if data[4:8] == b"ftyp" and data[8:12] in _BRANDS:
        return _BRANDS[data[8:12]]
    if data[:4] in _ANALYZE:
        return "ANALYZE 7.5 or NIfTI without its magic"
    return "text" if data[:256].isascii() and b"\0" not in data[:256] else "of an unknown format"


def open_image(data: bytes) -> ImageFile:
    """Opens a PNG or JPEG in Pillow, which reads its header.

    Raises:
        One of ``BROKEN``: If the header is damaged.
    """
    if sniff(data) != "PNG":
        return jpeg_factory(io.BytesIO(data))
    if data[12:16] != b"IHDR":
        raise ValueError("it does not begin with its size")
    return PngImageFile(io.BytesIO(data))


def damaged(name: str, reason: object) -> ImageError:
    """The error for an image whose content is broken."""
    return ImageError("An image must be whole", received=f"{name}, which is damaged ({reason})", remedy="Get it again")
