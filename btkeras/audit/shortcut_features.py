"""Features of an image that do not show its tumour: size, border, histogram, outline, thumbnail."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from threadpoolctl import threadpool_limits

from btkeras.datasets.boxes import Box, box_in_crop, clip_box
from btkeras.datasets.classes import NO_TUMOR
from btkeras.datasets.dataset import Record
from btkeras.datasets.readers.images import to_png_or_jpeg
from btkeras.errors import ImageError
from btkeras.machine import map_in_threads
from btkeras.preprocessing.harmonize import foreground, head_box
from btkeras.preprocessing.image_file import read_image_bytes
from btkeras.preprocessing.resize import resize

Features = NDArray[np.float64]
Grey = NDArray[np.uint8]

SQUARE, THUMBNAIL = 64, 16
BORDER = 0.05
_LEVELS = 32
_PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
_MODES = ("L", "RGB", "RGBA", "LA", "P", "1", "CMYK")


@dataclass(frozen=True)
class ImageFeatures:
    """Features of one image; 5 kB, so that a dataset of 20,000 needs about 100 MB."""

    values: Mapping[str, Features]  # name of a kind of feature -> its numbers
    square: Grey  # the image in grey, stretched to uint8 ``[64, 64]``
    head: Box  # box of the head, as fractions of the image


def extract_features(paths: Sequence[Path]) -> Iterator[ImageFeatures | None]:
    """Reads PNG and JPEG files in threads; gives None for one that cannot be read."""
    # Matrix products that share the cores among themselves, in threads that share them already, wait for each other.
    with threadpool_limits(1):
        yield from map_in_threads(_try_features, paths)


def _try_features(path: Path) -> ImageFeatures | None:
    with suppress(ImageError):
        return image_features(path)
    return None


def image_features(path: Path) -> ImageFeatures:
    """Reads one image; raises ImageError if it cannot be read."""
    data = read_image_bytes(path)
    stored, _ = to_png_or_jpeg(data, str(path))
    with Image.open(io.BytesIO(data)) as image:
        mode = image.mode
    with Image.open(io.BytesIO(stored)) as image:
        grey = np.asarray(image.convert("L"))
    height, width = grey.shape
    head = head_box(grey)
    edges = Box(head.top / height, head.left / width, head.bottom / height, head.right / width)
    mask = silhouette(grey).astype(np.uint8) * 255
    values = {
        "size": np.array([width, height, width / height, *(mode == known for known in _MODES)], float),
        "file size": np.log([len(data), len(data) / (width * height)]),
        "border": _border(grey),
        "histogram": np.bincount(grey.ravel() // (256 // _LEVELS), minlength=_LEVELS) / grey.size,
        "thumbnail": thumbnail(grey),
        "outline": np.concatenate([thumbnail(mask), 255 * np.array(edges)]),
    }
    return ImageFeatures(values, resize(grey[..., None], SQUARE)[..., 0], edges)


def _border(grey: Grey) -> Features:
    """The outer 5 % on each side: percentiles, mean and deviation of all of it, mean of each side, share of black."""
    rows, columns = (max(1, round(BORDER * side)) for side in grey.shape)
    inner = np.zeros(grey.shape, bool)
    inner[rows:-rows, columns:-columns] = True
    ring = grey[~inner].astype(float)
    sides = [side.mean() for side in (grey[:rows], grey[-rows:], grey[:, :columns], grey[:, -columns:])]
    return np.array([*np.percentile(ring, _PERCENTILES), ring.mean(), ring.std(), *sides, (ring == 0).mean()])


def thumbnail(grey: Grey) -> Features:
    """The image in 16 x 16 pixels, flat."""
    return resize(grey[..., None], THUMBNAIL).ravel().astype(float)


def silhouette(grey: Grey) -> NDArray[np.bool_]:
    """The head as one piece: pixels with foreground on both sides, in their row and in their column."""
    found = foreground(grey)
    result = np.ones_like(found)
    for axis in (0, 1):
        result &= np.maximum.accumulate(found, axis=axis)
        result &= np.flip(np.maximum.accumulate(np.flip(found, axis), axis=axis), axis)
    return result


def boxes_to_hide(
    records: Sequence[Record], heads: Sequence[Box], subsets: Sequence[str], seed: int
) -> list[Box | None]:
    """The box of each image to hide: its tumour's; without a tumour, that of some tumour, in its own head.

    So whether a box is hidden, how large it is and where, says nothing of whether there was a tumour. A box is drawn
    from the same subset; otherwise a classifier would know the tested tumours' boxes from images without a tumour.
    Boxes, also of the heads, are fractions of the image; it is None for a tumour whose box is not known, and where
    there is none to draw.
    """
    boxes = [record.box if record.label != NO_TUMOR else None for record in records]
    known: dict[str, list[Box]] = {subset: [] for subset in subsets}
    for box, head, subset in zip(boxes, heads, subsets, strict=True):
        if box:
            known[subset].append(box_in_crop(box, head))
    rng = np.random.default_rng(seed)
    for i, (record, subset) in enumerate(zip(records, subsets, strict=True)):
        if record.label == NO_TUMOR and known[subset]:
            chosen, (start, end) = known[subset][rng.integers(len(known[subset]))], np.reshape(heads[i], (2, 2))
            boxes[i] = Box(*(start + np.reshape(chosen, (2, 2)) * (end - start)).ravel().tolist())
    return boxes


def box_pixels(box: Box, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns that a box touches; at least one of each."""
    inside = clip_box(box) or Box(0, 0, 0, 0)
    top, left = min(int(inside.top * height), height - 1), min(int(inside.left * width), width - 1)
    bottom, right = int(np.ceil(inside.bottom * height)), int(np.ceil(inside.right * width))
    return slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))


def hide(image: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """A copy of uint8 ``[height, width, ...]`` with the box filled with the mean of the pixels around it."""
    rows, columns = box_pixels(box, *image.shape[:2])
    wide = slice(max(rows.start - 2, 0), rows.stop + 2), slice(max(columns.start - 2, 0), columns.stop + 2)
    around = np.zeros(image.shape[:2], bool)
    around[wide] = True
    around[rows, columns] = False
    hidden = image.copy()
    hidden[rows, columns] = np.rint(image[around].mean()) if around.any() else 0
    return hidden
