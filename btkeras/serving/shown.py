"""A slice and its map as a web page shows them: two PNGs of one size, the map transparent where it says little."""

from __future__ import annotations

import functools
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from btkeras.serving.overlay import COLOURS, OUTLINE, SOFTWARE, Window

# Longer sides are shown smaller: screens have no more room, and slices are 256 to 512 pixels.
LONGEST = 1024
# The map's levels are palette entries; the last one is the outline.
_LEVELS = 255
_LINE = 255


def picture_png(picture: NDArray[np.uint8]) -> bytes:
    """Encodes a picture, uint8 ``[height, width, 1 or 3]``, as PNG of at most ``LONGEST`` pixels a side."""
    image = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
    image.thumbnail((LONGEST, LONGEST))
    return _png(image)


def map_png(heat: NDArray[np.float32], window: Window, shape: tuple[int, int]) -> bytes:
    """Draws a map as a transparent PNG to be laid over ``picture_png``.

    Colours and outline are those of ``predict --explain``; the opacity is the root of the map, so that what matters
    little lets the slice through, and the page lessens it further.

    Args:
        heat: float32 ``[rows, columns]`` in 0..1, stretched over the window.
        window: What the network saw of the picture, pixels.
        shape: The picture's height and width before it was made smaller.
    """
    part = min(1.0, LONGEST / max(shape))
    height, width = (max(1, round(side * part)) for side in shape)
    top, left, bottom, right = (round(edge * part) for edge in window)
    size = max(1, right - left), max(1, bottom - top)
    values = np.asarray(Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    levels = np.round(np.clip(values, 0, 1) * (_LEVELS - 1)).astype(np.uint8)
    levels[_outline(values >= OUTLINE)] = _LINE
    canvas = np.zeros((height, width), np.uint8)
    canvas[top : top + size[1], left : left + size[0]] = levels[: height - top, : width - left]
    image = Image.fromarray(canvas).convert("P")
    palette, opacities = _palette()
    image.putpalette(palette)
    return _png(image, transparency=opacities)


def _outline(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of a region that touch what is outside it; the picture's edge is no outside."""
    padded = np.pad(inside, 1, mode="edge")
    neighbours = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inside & ~neighbours


@functools.cache
def _palette() -> tuple[bytes, bytes]:
    """Colours and opacities of the levels, and last of the outline."""
    import matplotlib as mpl

    values = np.linspace(0, 1, _LEVELS)
    colours = np.round(mpl.colormaps[COLOURS](values)[:, :3] * 255)
    opacities = np.round(values * 255)
    whole = np.vstack([colours, [255, 255, 255]]), np.append(opacities, 255)
    return whole[0].astype(np.uint8).tobytes(), whole[1].astype(np.uint8).tobytes()


def _png(image: Image.Image, **settings: object) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    info, buffer = PngInfo(), io.BytesIO()
    info.add_text("Software", SOFTWARE)
    image.save(buffer, "PNG", pnginfo=info, **settings)
    return buffer.getvalue()
