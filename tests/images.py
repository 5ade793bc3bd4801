"""Encoded images of every kind, made on the spot, and what Pillow and NumPy read from them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from btkeras.preprocessing.resize import resize

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
_ORIENTATION = 0x0112


def scene(height: int = 45, width: int = 70, seed: int = 0) -> NDArray[np.uint8]:
    """Waves of three colours with noise, uint8 ``[height, width, 3]``: no two rows, columns or channels are alike."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 9 + y / 17), np.cos(x / 11 - y / 5), np.sin(y / 7)]
    noise = np.random.default_rng(seed).integers(-20, 21, (height, width, 3))
    return np.clip(127 + 100 * np.stack(waves, axis=-1) + noise, 0, 255).astype(np.uint8)


def head(seed: int = 0, height: int = 72, width: int = 64) -> NDArray[np.uint8]:
    """Something that the MRI check takes for a slice of a head: a skull around tissue on black, uint8."""
    y, x = np.mgrid[:height, :width]
    distance = np.hypot((y - height / 2) / (0.44 * height), (x - width / 2) / (0.4 * width))
    tissue = 110 + 50 * np.sin(x / 4 + seed) * np.cos(y / 5 - seed)
    grey = np.where(distance < 0.85, tissue, np.where(distance < 1, 210, 3))
    return np.clip(grey + np.random.default_rng(seed).integers(-6, 7, grey.shape), 0, 255).astype(np.uint8)


def deep_scene(channels: int = 1) -> NDArray[np.uint16]:
    """A 16-bit image that uses a part of its range, as scanners do; ``[45, 70]`` or ``[45, 70, channels]``."""
    grey = scene()[..., :channels].astype(np.uint16) * 13 + np.arange(70, dtype=np.uint16)[:, None] + 300
    return grey[..., 0] if channels == 1 else grey


def encode(image: NDArray[Any] | Image.Image, kind: str = "PNG", mode: str = "", **options: Any) -> bytes:
    """Encodes with Pillow."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_header(width: int, height: int, depth: int = 8, color: int = GREY, interlaced: bool = False) -> bytes:
    """Signature and first chunk of a PNG."""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced))


def png(pixels: NDArray[Any], depth: int, color: int, *, interlaced: bool = False) -> bytes:
    """Encodes a PNG that Pillow cannot write: 16 bits a colour, 1 to 4 bits of grey, interlaced.

    Args:
        pixels: ``[height, width]`` or ``[height, width, channels]``, below ``2**depth``.
        depth: Bits of each value.
        color: ``GREY``, ``RGB``, ``GREY_ALPHA`` or ``RGB_ALPHA``.
        interlaced: Whether to write seven coarse to fine passes; needs a depth of 8 or 16.
    """
    passes = [pixels[y::dy, x::dx] for y, x, dy, dx in _ADAM7] if interlaced else [pixels]
    lines = b"".join(b"\0" + _packed(line, depth) for part in passes for line in part if line.size)
    header = png_header(pixels.shape[1], pixels.shape[0], depth, color, interlaced)
    return header + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND")


def _packed(line: NDArray[Any], depth: int) -> bytes:
    if depth == 16:
        return line.astype(">u2").tobytes()
    bits = np.unpackbits(line.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
    return np.packbits(bits).tobytes()


def turned(code: int, endian: str = "<", kind: str = "JPEG", **options: Any) -> bytes:
    """An image with an EXIF orientation, in Intel's (``<``) or Motorola's (``>``) byte order."""
    exif = Image.Exif()
    exif.endian = endian
    exif[_ORIENTATION] = code
    return encode(scene(), kind, exif=exif, **options)


def animation(kind: str) -> bytes:
    """Two frames as GIF, PNG (APNG) or MPO."""
    first, second = Image.fromarray(scene()), Image.fromarray(scene(seed=1))
    return encode(first, kind, save_all=True, append_images=[second])


def read(data: bytes, channels: int) -> NDArray[np.uint8]:
    """Pillow's reading: upright, as uint8 ``[height, width, channels]``."""
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)
        grey = upright.mode in ("1", "L", "LA")
        pixels = np.asarray(upright.convert("L" if grey else "RGB").convert("L" if channels == 1 else "RGB"))
    return pixels[..., None] if channels == 1 else pixels


def twin(data: bytes, size: int, channels: int) -> NDArray[np.uint8]:
    """What the preprocessing must give, from Pillow and NumPy alone."""
    return resize(read(data, channels), size)


def mutations(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Damaged copies: bytes changed, removed, put in, or the end cut off; the first three bytes are kept."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        changed = bytearray(data)
        for _ in range(rng.integers(1, 5)):
            # Headers are short and worth half of the damage.
            end = len(changed) if rng.random() < 0.5 else min(len(changed), 200)
            place, length = int(rng.integers(3, max(end, 4))), int(rng.integers(1, 20))
            match rng.integers(7):
                case 0 | 1 | 2:
                    changed[place : place + 1] = rng.bytes(1)
                case 3 | 4:
                    del changed[place : place + length]
                case 5:
                    changed[place:place] = rng.bytes(length)
                case _:
                    del changed[len(changed) - length :]
        yield bytes(changed)


def png_with(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """PNGs with one chunk changed, cut off, left out or put in, or with other lines, each with the right sums."""
    rng = np.random.default_rng(seed)
    original = list(png_chunks(data))
    for _ in range(count):
        chunks = [(kind, bytearray(content)) for kind, content in original]
        place = int(rng.integers(len(chunks) - 1))
        content = chunks[place][1]
        match rng.integers(6):
            case 0 | 1 if content:
                content[int(rng.integers(len(content)))] = int(rng.integers(256))
            case 2 if content:
                del content[int(rng.integers(len(content))) :]
            case 3:
                packed = b"".join(bytes(content) for kind, content in chunks if kind == b"IDAT")
                lines = _changed_lines(bytearray(zlib.decompress(packed)), rng)
                chunks = [one for one in chunks if one[0] != b"IDAT"]
                chunks.insert(-1, (b"IDAT", bytearray(zlib.compress(lines))))
            case 4:
                del chunks[place]
            case _:
                names = [b"tEXt", b"PLTE", b"tRNS", b"abCd", b"IDAT", b"ABCD", b"iCCP", b"IHDR"]
                extra = names[int(rng.integers(len(names)))], bytearray(rng.bytes(int(rng.integers(40))))
                chunks.insert(int(rng.integers(1, len(chunks) + 1)), extra)
        yield data[:8] + b"".join(chunk(kind, bytes(content)) for kind, content in chunks)


def _changed_lines(lines: bytearray, rng: np.random.Generator) -> bytes:
    match rng.integers(3):
        case 0:
            lines[int(rng.integers(len(lines)))] = int(rng.integers(256))
        case 1:
            del lines[-int(rng.integers(1, 200)) :]
        case _:
            lines += rng.bytes(int(rng.integers(1, 300)))
    return bytes(lines)


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of a PNG's chunks."""
    position, kind = 8, b""
    while kind != b"IEND":
        (length,) = struct.unpack_from(">I", data, position)
        kind = data[position + 4 : position + 8]
        yield kind, data[position + 8 : position + 8 + length]
        position += 12 + length
