"""One picture under every corruption, so that a person can see what the strengths mean."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from btkeras.data.corruptions import CORRUPTIONS, LEVELS, Picture, corrupt

_CELL = 160
_MARGIN = 96
_LINE = 16


def contact_sheet(image: Picture, cell: int = _CELL) -> NDArray[np.uint8]:
    """A row per corruption: its name, the picture as it is, and the five strengths with their values above.

    Args:
        image: uint8 ``[height, width, 1 or 3]``, shown as it would reach the preprocessing.
        cell: Side of each small picture, pixels.

    Returns:
        uint8 ``[rows, columns, 3]``.
    """
    columns, height = len(LEVELS) + 1, cell + _LINE
    sheet = Image.new("RGB", (_MARGIN + columns * cell, len(CORRUPTIONS) * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for row, (name, corruption) in enumerate(CORRUPTIONS.items()):
        top = row * height
        draw.text((6, top + _LINE), name, "black", font)
        for column, value in enumerate(("as it is", *(f"{strength:g}" for strength in corruption.strengths))):
            left = _MARGIN + column * cell
            draw.text((left + 4, top + 3), value, "black", font)
            sheet.paste(_small(corrupt(image, name, column), cell), (left, top + _LINE))
    return np.asarray(sheet)


def _small(image: Picture, side: int) -> Image.Image:
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    return picture.resize((side, side), Image.Resampling.BOX if min(picture.size) > side else Image.Resampling.BILINEAR)
