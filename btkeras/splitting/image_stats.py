"""What an audit keeps of each image: a thumbnail, a digest of the pixels, and what can be counted."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from btkeras.datasets.readers.images import DAMAGE
from btkeras.errors import ImageError
from btkeras.files import digest
from btkeras.machine import threads
from btkeras.preprocessing.decode import to_uint8
from btkeras.preprocessing.image_file import damaged, read_image_bytes, sniff
from btkeras.splitting.duplicate_hashes import SIDE

Progress = Callable[[Sequence[Path]], Iterable[Path]]
UInt8 = NDArray[np.uint8]

_AHEAD = 64  # images that are read before they are asked for


@dataclass(frozen=True)
class ImageStats:
    """What is kept of an image that could be read.

    Attributes:
        thumbnail: uint8 ``[SIDE, SIDE]``, grey, upright, stretched to a square.
        digest: Of its size and grey pixels: equal for equal images, however they are stored.
        width: In pixels, upright.
        height: In pixels, upright.
        mode: Pillow's name of its pixels: ``L``, ``RGB``, ...
        mean: Of its grey levels, 0..255.
        deviation: Their standard deviation.
        border: Mean grey level of the outermost 2 % of its pixels, 0..255.
    """

    thumbnail: UInt8
    digest: str
    width: int
    height: int
    mode: str
    mean: float
    deviation: float
    border: float


def scan_images(paths: Sequence[Path], progress: Progress = lambda paths: paths) -> Iterator[ImageStats | ImageError]:
    """Reads images, some at a time; one that cannot be read gives its error.

    Args:
        paths: PNG or JPEG files.
        progress: Wraps the paths while they are read.
    """
    with ThreadPoolExecutor(threads()) as pool:
        waiting: deque[Future[ImageStats | ImageError]] = deque()
        ahead = iter(paths)
        for _, path in zip(range(_AHEAD), ahead, strict=False):
            waiting.append(pool.submit(_facts, path))
        for _ in progress(paths):
            yield waiting.popleft().result()
            waiting.extend(pool.submit(_facts, path) for path in _next(ahead))


def _next(paths: Iterator[Path]) -> Iterator[Path]:
    for path in paths:
        yield path
        return


def _facts(path: Path) -> ImageStats | ImageError:
    try:
        data = read_image_bytes(path)
        try:
            with Image.open(io.BytesIO(data), formats=(sniff(data),)) as image:
                return _facts_of(image)
        except DAMAGE as error:
            raise damaged(str(path), error) from error
    except ImageError as error:
        return error


def _facts_of(image: Image.Image) -> ImageStats:
    mode = image.mode
    grey = _grey(ImageOps.exif_transpose(image))
    pixels = np.asarray(grey)
    # LANCZOS keeps the detail by which a copy is told from a neighbouring slice.
    small = grey.resize((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    histogram = np.bincount(pixels.ravel(), minlength=256) / pixels.size
    levels = np.arange(256)
    mean = float(histogram @ levels)
    return ImageStats(
        thumbnail=np.asarray(small),
        digest=digest([f"{grey.width} {grey.height}", pixels.tobytes()]),
        width=grey.width,
        height=grey.height,
        mode=mode,
        mean=mean,
        deviation=float(np.sqrt(histogram @ (levels - mean) ** 2)),
        border=_border(pixels),
    )


def _grey(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return Image.fromarray(to_uint8(np.asarray(image)))
    if image.mode == "P":
        image = image.convert("RGBA")
    # Alpha is dropped, as the network's own preprocessing drops it.
    return image.convert("L") if image.mode in ("1", "L", "LA") else image.convert("RGB").convert("L")


def _border(pixels: UInt8) -> float:
    height, width = pixels.shape
    y, x = max(1, height // 50), max(1, width // 50)
    sides = (pixels[:y], pixels[-y:], pixels[y:-y, :x], pixels[y:-y, -x:])
    return float(np.concatenate([side.ravel() for side in sides]).mean())
