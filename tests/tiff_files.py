"""TIFF files of every kind of numbers, by TIFF 6.0, which Pillow cannot write."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
_FORMATS = {"u": 1, "i": 2, "f": 3}
_SHORT, _LONG = 3, 4


def tiff(
    pixels: NDArray[Any], *, photometric: int | None = None, order: str = "<", orientation: int = 1, bits: int = 0
) -> bytes:
    """Encodes ``[height, width]`` or ``[height, width, channels]`` of any type, uncompressed, in one strip.

    ``bits``, 9 to 15, packs uint16 values into fewer.
    """
    height, width, *channels = pixels.shape
    count = channels[0] if channels else 1
    photometric = photometric if photometric is not None else RGB if count > 2 else BLACK_IS_ZERO
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    if bits:
        rows = np.unpackbits(pixels.astype(">u2").view(np.uint8).reshape(height, width, 2), axis=-1)[..., 16 - bits :]
        data = np.packbits(rows.reshape(height, -1), axis=1).tobytes()
    entries = {
        256: (_LONG, [width]),
        257: (_LONG, [height]),
        258: (_SHORT, [bits or 8 * pixels.itemsize] * count),
        259: (_SHORT, [1]),
        262: (_SHORT, [photometric]),
        273: (_LONG, [8]),
        274: (_SHORT, [orientation]),
        277: (_SHORT, [count]),
        278: (_LONG, [height]),
        279: (_LONG, [len(data)]),
        339: (_SHORT, [_FORMATS[pixels.dtype.kind]] * count),
    }
    data += bytes(len(data) % 2)
    start = 8 + len(data)
    outside = start + 2 + 12 * len(entries) + 4
    lines, extra = b"", b""
    for tag, (kind, values) in entries.items():
        packed = struct.pack(f"{order}{len(values)}{'H' if kind == _SHORT else 'L'}", *values)
        if len(packed) > 4:
            packed, extra = struct.pack(f"{order}L", outside + len(extra)), extra + packed
        lines += struct.pack(f"{order}HHL", tag, kind, len(values)) + packed.ljust(4, b"\0")
    head = struct.pack(f"{order}2sHL", b"II" if order == "<" else b"MM", 42, start)
    return head + data + struct.pack(f"{order}H", len(entries)) + lines + bytes(4) + extra
