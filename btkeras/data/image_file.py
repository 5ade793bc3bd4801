"""What may be read as a picture: checks on an encoded image's header, before anything is decoded."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

from PIL import Image

from btkeras.errors import ImageError

FORMATS = ("PNG", "JPEG")
MIN_SIDE = 16
MAX_PIXELS = 25_000_000

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
    b"%PDF": "PDF",
}


def read_image_bytes(path: str | Path) -> bytes:
    """Returns a file's content after ``check_image``; every failure names the file.

    Raises:
        ImageError: If the file cannot be read or is no PNG or JPEG that may be decoded.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ImageError("An image must be a readable file", received=f"{path} ({error.strerror})") from error
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
        remedy = "Save it again" if kind == "an empty file" else "Convert it to PNG first"
        raise ImageError("An image must be a PNG or JPEG file", received=f"{name}, which is {kind}", remedy=remedy)
    width, height, frames = _header(data, name)
    if frames > 1:
        raise ImageError(
            "An image must be one still picture",
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


def sniff(data: bytes) -> str:
    """Names the format that a file's first bytes announce."""
    if not data:
        return "an empty file"
    for magic, kind in _MAGIC.items():
        if data.startswith(magic):
            return kind
    return "text" if data[:256].isascii() else "of an unknown format"


def _header(data: bytes, name: str) -> tuple[int, int, int]:
    try:
        with warnings.catch_warnings():
            # Pillow warns of large pictures; the limit here is lower and an error.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return image.width, image.height, getattr(image, "n_frames", 1)
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"An image must have at most {MAX_PIXELS / 1e6:.0f} million pixels", received=f"{name} ({error})"
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise damaged(name, error) from error


def damaged(name: str, reason: object) -> ImageError:
    """The error for a picture whose content is broken."""
    return ImageError("An image must be whole", received=f"{name}, which is damaged ({reason})", remedy="Get it again")
