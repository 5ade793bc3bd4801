"""What an image shows besides its tumour, as a few numbers: its size, its border, its histogram, its outline.

Each kind of feature is a shortcut that a network could take, see ``btkeras.audit.shortcuts``. Images are read
once and kept as squares of 64 x 64, so that a dataset of 20,000 needs about 100 MB.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from threadpoolctl import threadpool_limits

from btkeras.datasets.boxes import NO_TUMOR, Box, box_in_crop, clip_box
from btkeras.datasets.dataset import Record
from btkeras.datasets.readers.images import to_png_or_jpeg
from btkeras.errors import ImageError
from btkeras.machine import threads
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
    """What is kept of one image.

    Attributes:
        values: Name of a kind of feature -> its numbers.
        square: The image in grey, stretched to uint8 ``[64, 64]``.
        head: Where the head is, as fractions of the image.
    """

    values: Mapping[str, Features]
    square: Grey
    head: Box


def extract_features(
    paths: Sequence[Path],
    progress: Callable[[Iterable[ImageFeatures | ImageError]], Iterable[ImageFeatures | ImageError]],
) -> list[ImageFeatures | ImageError]:
    """Reads images in threads, a few at a time; one that cannot be read is its error.

    Args:
        paths: PNG or JPEG files.
        progress: Wraps the iteration, to show it.
    """
    return list(progress(_looks(paths)))


def _looks(paths: Sequence[Path]) -> Iterator[ImageFeatures | ImageError]:
    window: deque[Future[ImageFeatures | ImageError]] = deque()
    # Matrix products that share the cores among themselves, in threads that share them already, wait for each other.
    with threadpool_limits(1), ThreadPoolExecutor(threads()) as pool:
        for path in paths:
            window.append(pool.submit(_try_look, path))
            if len(window) > 4 * threads():
                yield window.popleft().result()
        while window:
            yield window.popleft().result()


def _try_look(path: Path) -> ImageFeatures | ImageError:
    try:
        return image_features(path)
    except ImageError as error:
        return error


def image_features(path: Path) -> ImageFeatures:
    """Reads one image.

    Raises:
        ImageError: If it cannot be read.
    """
    data = read_image_bytes(path)
    stored, _ = to_png_or_jpeg(data, str(path))
    with Image.open(io.BytesIO(data)) as image:
        mode = image.mode
    with Image.open(io.BytesIO(stored)) as image:
        grey = np.asarray(image.convert("L"))
    height, width = grey.shape
    head = head_box(grey)
    edges = Box(head.top / height, head.left / width, head.bottom / height, head.right / width)
    values = {
        "size": np.array([width, height, width / height, *(mode == known for known in _MODES)], float),
        "file size": np.log([len(data), len(data) / (width * height)]),
        "border": border_features(grey),
        "histogram": np.bincount(grey.ravel() // (256 // _LEVELS), minlength=_LEVELS) / grey.size,
        "thumbnail": thumbnail(grey),
        "outline": _outline(grey, edges),
    }
    return ImageFeatures(values, resize(grey[..., None], SQUARE)[..., 0], edges)


def border_features(grey: Grey) -> Features:
    """The outer 5 % on each side: percentiles, mean and deviation of all of it, mean of each side, share of black."""
    rows, columns = (max(1, round(BORDER * side)) for side in grey.shape)
    inner = np.zeros(grey.shape, bool)
    inner[rows:-rows, columns:-columns] = True
    ring = grey[~inner].astype(float)
    sides = [part.mean() for part in (grey[:rows], grey[-rows:], grey[:, :columns], grey[:, -columns:])]
    return np.array([*np.percentile(ring, _PERCENTILES), ring.mean(), ring.std(), *sides, (ring == 0).mean()])


def thumbnail(grey: Grey) -> Features:
    """The image in 16 x 16 pixels."""
    return resize(grey[..., None], THUMBNAIL).ravel().astype(float)


def silhouette(grey: Grey) -> NDArray[np.bool_]:
    """The head as one piece: what has foreground on both sides, in its row and in its column."""
    found = foreground(grey)

    def between(mask: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
        before = np.maximum.accumulate(mask, axis=axis)
        return before & np.flip(np.maximum.accumulate(np.flip(mask, axis), axis=axis), axis)

    return between(found, 0) & between(found, 1)


def _outline(grey: Grey, head: Box) -> Features:
    mask = silhouette(grey).astype(np.uint8) * 255
    return np.concatenate([thumbnail(mask), 255 * np.array(head)])


def boxes_to_hide(records: Sequence[Record], heads: Sequence[Box], parts: Sequence[str], seed: int) -> list[Box | None]:
    """The part of each image to hide: its tumour's box; without a tumour, the box of some tumour, in its own head.

    So whether a part is hidden, how large it is and where, says nothing of whether there was a tumour.

    Args:
        records: The images.
        heads: Where their heads are, as fractions.
        parts: What each is used for. A box is drawn from the same part, else a classifier knew the tested tumours'
            boxes from images without a tumour.
        seed: Of the choice of boxes.

    Returns:
        Boxes as fractions of the image; None for a tumour whose box is not known, and where there is none to draw.
    """
    own = [record.box if record.label != NO_TUMOR else None for record in records]
    known: dict[str, list[Box]] = {part: [] for part in parts}
    for box, head, part in zip(own, heads, parts, strict=True):
        if box:
            known[part].append(box_in_crop(box, head))
    rng = np.random.default_rng(seed)
    boxes = list(own)
    for i, (record, part) in enumerate(zip(records, parts, strict=True)):
        if record.label == NO_TUMOR and known[part]:
            boxes[i] = _in_image(known[part][rng.integers(len(known[part]))], heads[i])
    return boxes


def _in_image(box: Box, head: Box) -> Box:
    height, width = head.bottom - head.top, head.right - head.left
    return Box(
        head.top + box.top * height,
        head.left + box.left * width,
        head.top + box.bottom * height,
        head.left + box.right * width,
    )


def pixels_of(box: Box, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns that a box touches; at least one of each."""
    part = clip_box(box) or Box(0, 0, 0, 0)
    top, left = min(int(part.top * height), height - 1), min(int(part.left * width), width - 1)
    bottom, right = int(np.ceil(part.bottom * height)), int(np.ceil(part.right * width))
    return slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))


def hide(image: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """A copy whose box is filled with the mean of what surrounds it.

    Args:
        image: uint8 ``[height, width]`` or ``[height, width, channels]``.
        box: Fractions of the image.
    """
    rows, columns = pixels_of(box, *image.shape[:2])
    wide = slice(max(rows.start - 2, 0), rows.stop + 2), slice(max(columns.start - 2, 0), columns.stop + 2)
    around = np.zeros(image.shape[:2], bool)
    around[wide] = True
    around[rows, columns] = False
    hidden = image.copy()
    hidden[rows, columns] = np.rint(image[around].mean()) if around.any() else 0
    return hidden
