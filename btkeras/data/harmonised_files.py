"""A stored picture with its mask and box, harmonised: what ``btkeras prepare --harmonise`` writes."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from btkeras.data.boxes import in_head, parse_box, visible
from btkeras.data.harmonise import HeadBox, harmonise, head_box
from btkeras.data.layouts import box_text
from btkeras.data.pictures import encode_png
from btkeras.data.resize import resize

# The manifest's column: the side, in pixels. A picture that has it is not harmonised a second time.
COLUMN = "harmonised"


def harmonise_files(
    data: bytes, mask: bytes | None, extra: Mapping[str, str], size: int
) -> tuple[bytes, bytes | None, dict[str, str]]:
    """Crops to the head, puts the picture on one scale of intensity and stretches it to a square.

    Args:
        data: Upright 8-bit PNG or JPEG.
        mask: PNG of the tumour, as large as the picture.
        extra: The manifest's further columns; ``box`` is moved with the picture.
        size: Side of the square, pixels.

    Returns:
        The picture and its mask as grey PNG, and the columns with ``harmonised``.
    """
    grey = _grey(data)
    whole = HeadBox(0, 0, *grey.shape)
    known = bool(extra.get(COLUMN))
    head = whole if known else head_box(grey)
    picture = grey[..., None] if known else harmonise(grey[..., None])
    columns = {**extra, COLUMN: str(size)}
    if box := parse_box(extra.get("box", "")):
        box = visible(in_head(box, head, *grey.shape))
        columns["box"] = box_text(_centred(*box)) if box else ""
    return encode_png(resize(picture, size)[..., 0]), _mask(mask, head, size), columns


def _mask(mask: bytes | None, head: HeadBox, size: int) -> bytes | None:
    if mask is None:
        return None
    crop = _grey(mask)[head.top : head.bottom, head.left : head.right, None]
    # As pixels of the tumour are those that it fills at least half of.
    return encode_png(np.where(resize(crop, size)[..., 0] >= 128, np.uint8(255), np.uint8(0)))


def _grey(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("L"))


def _centred(top: float, left: float, bottom: float, right: float) -> tuple[float, float, float, float]:
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
