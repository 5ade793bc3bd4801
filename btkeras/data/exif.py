"""EXIF orientation: how a picture was held when it was taken, and turning it upright.

Only the orientation's own bytes are looked for, so that the exported model's graph (``btkeras.data.exif_graph``) can do
the same, and no damaged EXIF directory can be in the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

# Where the orientation may stand: EXIF is among a picture's first segments, its first directory at its beginning.
HEAD = 4096
# Tag 0x0112, type SHORT, count 1, in both byte orders.
# Eight bytes do not turn up by chance, so the directory around them need not be parsed.
PATTERNS: Mapping[Literal["big", "little"], bytes] = MappingProxyType(
    {"big": bytes.fromhex("0112000300000001"), "little": bytes.fromhex("1201030001000000")}
)
_UPRIGHT = 1
_TURNED: Mapping[int, Callable[[Picture], Picture]] = MappingProxyType(
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


def upright(image: Picture, data: bytes) -> Picture:
    """Turns a decoded picture as its encoded bytes say.

    Args:
        image: ``[height, width, channels]``.
        data: The bytes it was decoded from.
    """
    code = orientation(data)
    return np.ascontiguousarray(_TURNED[code](image)) if code in _TURNED else image
