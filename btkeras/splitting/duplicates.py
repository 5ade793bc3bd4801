"""Duplicates among images, exact or nearly so, and groups of them.

Exact duplicates have equal grey pixels. Near-duplicates are found by perceptual hash (``duplicate_hashes``) and
confirmed by correlation after alignment (``duplicate_alignment``): the same image stored anew, at another size,
brighter or darker, flipped, rotated by a multiple of 90 degrees, or with up to 5 % of each side cut off.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from btkeras.datasets.readers.images import DAMAGE
from btkeras.errors import ImageError
from btkeras.files import digest
from btkeras.machine import map_in_threads, threads
from btkeras.preprocessing.decode import to_uint8
from btkeras.preprocessing.image_file import damaged, read_image_bytes, sniff
from btkeras.splitting.duplicate_alignment import THRESHOLD, Aligner
from btkeras.splitting.duplicate_hashes import ORIENTATION_NAMES, SIDE, candidates, hashes

Progress = Callable[[Sequence[Path]], Iterable[Path]]
UInt8 = NDArray[np.uint8]

VERSION = 1  # raised with every change of what is found, so that no cache holds old groups

_BATCH = 256
_BLANK = 2.0  # standard deviation below which an image resembles every other blank one


@dataclass(frozen=True)
class ImageStats:
    """Statistics of an image that could be read."""

    thumbnail: UInt8  # uint8 ``[SIDE, SIDE]``, grey, upright, stretched to a square
    digest: str  # of its size and grey pixels: equal for equal images, however they are stored
    width: int  # in pixels, upright
    height: int  # in pixels, upright
    mode: str  # pillow's name of its pixels: ``L``, ``RGB``,
    mean: float  # of its grey levels, 0..255
    deviation: float  # their standard deviation
    border: float  # mean grey level of the outermost 2 % of its pixels, 0..255


def scan_images(paths: Sequence[Path], progress: Progress = lambda paths: paths) -> Iterator[ImageStats | str]:
    """Reads PNG and JPEG files in threads; yields the reason for one that cannot be read."""
    return map_in_threads(_try_stats, progress(paths))


def _try_stats(path: Path) -> ImageStats | str:
    try:
        data = read_image_bytes(path)
        with Image.open(io.BytesIO(data), formats=(sniff(data),)) as image:
            return _stats(image)
    except ImageError as error:
        return str(error)
    except DAMAGE as error:
        return str(damaged(str(path), error))


def _stats(image: Image.Image) -> ImageStats:
    mode = image.mode
    grey = _grey(ImageOps.exif_transpose(image))
    pixels = np.asarray(grey)
    # LANCZOS keeps the detail by which a duplicate is told from a neighbouring slice.
    small = grey.resize((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    inner = np.zeros(pixels.shape, bool)
    y, x = (max(1, side // 50) for side in pixels.shape)
    inner[y:-y, x:-x] = True
    return ImageStats(
        thumbnail=np.asarray(small),
        digest=digest([f"{grey.width} {grey.height}", pixels.tobytes()]),
        width=grey.width,
        height=grey.height,
        mode=mode,
        mean=float(pixels.mean()),
        deviation=float(pixels.std()),
        border=float(pixels[~inner].mean()),
    )


def _grey(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return Image.fromarray(to_uint8(np.asarray(image)))
    if image.mode == "P":
        image = image.convert("RGBA")
    # Alpha is dropped, as the network's own preprocessing drops it.
    return image.convert("L") if image.mode in ("1", "L", "LA") else image.convert("RGB").convert("L")


@dataclass(frozen=True)
class DuplicatePair:
    """Two images, one of which is a duplicate of the other."""

    first: int  # index of an image
    second: int  # of another, higher
    correlation: float  # of the aligned images, ``THRESHOLD``..1
    exact: bool  # whether their pixels are equal
    orientation: str  # what makes the second look like the first, one of ``duplicate_hashes.ORIENTATION_NAMES``


@dataclass(frozen=True)
class Duplicates:
    """Duplicates among images; the pairs are as many as it takes to connect each group."""

    paths: tuple[Path, ...]  # of the images
    pairs: tuple[DuplicatePair, ...]
    unreadable: dict[int, str]  # why, by index, for those that could not be read

    def groups(self) -> list[list[Path]]:
        """Images that pairs connect, directly or through others: groups of two and more."""
        return [[self.paths[i] for i in group] for group in self.index_groups()]

    def index_groups(self) -> list[list[int]]:
        """As ``groups``, with the images' indices; sorted."""
        return connected_groups(len(self.paths), [(pair.first, pair.second) for pair in self.pairs])


def connected_groups(count: int, pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Connected components of two and more among ``count`` things, sorted."""
    if not pairs:
        return []
    graph = coo_array((np.ones(len(pairs)), tuple(np.array(pairs).T)), shape=(count, count))
    _, numbers = connected_components(graph, directed=False)
    order = np.argsort(numbers, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
    return sorted(group.tolist() for group in groups if len(group) > 1)


def find_near_duplicates(paths: Sequence[Path], progress: Progress = lambda paths: paths) -> Duplicates:
    """Finds exact and near-duplicates among PNG and JPEG files; those that cannot be read are listed, not raised.

    ``progress`` wraps the paths while they are read. Time and memory (14 kB an image) grow about linearly.
    """
    return match_duplicates(paths, list(scan_images(paths, progress)))


def match_duplicates(
    paths: Sequence[Path], images: Sequence[ImageStats | str], known: Duplicates | None = None
) -> Duplicates:
    """As ``find_near_duplicates``, for images that ``scan_images`` has read.

    ``known`` are those of the first images. Then near-duplicates are only sought between one of them and a later image.
    """
    first: dict[str, int] = {}
    exact: list[DuplicatePair] = []
    for i, image in enumerate(images):
        if isinstance(image, ImageStats) and first.setdefault(image.digest, i) != i:
            exact.append(DuplicatePair(first[image.digest], i, 1.0, True, ORIENTATION_NAMES[0]))
    unreadable = {i: image for i, image in enumerate(images) if isinstance(image, str)}
    distinct = {i: image.thumbnail for i in first.values() if isinstance(image := images[i], ImageStats)}
    shown = {i: thumbnail for i, thumbnail in distinct.items() if thumbnail.std() > _BLANK}
    near = _near_pairs(shown, len(known.paths) if known else 0)
    near += [pair for pair in (known.pairs if known else ()) if not pair.exact]
    return Duplicates(tuple(paths), (*exact, *near), unreadable)


def _near_pairs(images: dict[int, UInt8], known: int) -> list[DuplicatePair]:
    """Pairs of near-duplicates among thumbnails by index; if any are ``known``, the first, each has one of them."""
    if len(images) < 2:
        return []
    indices, thumbnails = list(images), np.stack(list(images.values()))
    found = candidates(*hashes(thumbnails))
    if known:
        first = np.array(indices) < known
        found = found[first[found[:, 0]] != first[found[:, 2]]]
    aligner = Aligner(thumbnails)
    component = np.arange(len(indices))
    pairs = []
    with ThreadPoolExecutor(threads()) as pool:
        size = _BATCH * threads()
        for start in range(0, len(found), size):
            batch = found[start : start + size]
            # What is in one group already need not be compared: an image stored 100 times has 4,950 pairs.
            batch = batch[component[batch[:, 0]] != component[batch[:, 2]]]
            chunks = [batch[i : i + _BATCH] for i in range(0, len(batch), _BATCH)]
            correlations = [value for chunk in pool.map(aligner.correlations, chunks) for value in chunk.tolist()]
            for (i, _, j, orientation), correlation in zip(batch.tolist(), correlations, strict=True):
                if correlation >= THRESHOLD and component[i] != component[j]:
                    pairs.append(_pair(indices[i], indices[j], orientation, correlation))
                    component[component == component[j]] = component[i]
    return pairs


def _pair(i: int, j: int, orientation: int, correlation: float) -> DuplicatePair:
    if i > j:
        # The two rotations by 90 degrees undo each other; every other orientation undoes itself.
        i, j, orientation = j, i, {5: 6, 6: 5}.get(orientation, orientation)
    return DuplicatePair(i, j, min(correlation, 1.0), False, ORIENTATION_NAMES[orientation])
