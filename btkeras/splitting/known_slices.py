"""Slices that a model was trained or validated on, recognized in other files by perceptual hashes.

Each slice has two, of the whole image and of the head in it (``preprocessing.harmonize.find_head``), so that black
borders may be added and cut off: the signs of 24 x 24 cosine waves. Fewer do not tell a copy from the next slice of the
same head, 7 mm away: with 12 x 12, as ``audit.recognition`` has them, 13 % of FigShare's and Br35H's test slices would
be copies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from btkeras.errors import ImageError
from btkeras.machine import map_in_threads
from btkeras.preprocessing.decode import decode_file
from btkeras.preprocessing.harmonize import LocatedHead, find_head
from btkeras.preprocessing.preprocessor import to_channels
from btkeras.splitting.duplicate_hashes import SIDE, least_distances, orientation_hashes

UInt8 = NDArray[np.uint8]

HASHES = "image_hashes.npz"
# What `KnownSlices.find` gives for others.
NONE = "none"
KNOWN_SUBSETS = ("train", "validation")
_WAVES = 24
_BYTES = _WAVES**2 // 8
# Bits of 576 in which a copy may differ; docs/collections.md has the rates that it was chosen by.
MAX_DISTANCE = 44
_BLANK = 2.0  # standard deviation of grey levels below which an image resembles every other blank one


def slice_hashes(image: UInt8, head: LocatedHead | None = None) -> UInt8 | None:
    """Hashes a decoded image, uint8 ``[height, width, 1 or 3]``, whose head may have been found already.

    Returns:
        Of the whole and of the head, in each orientation: ``[2, 8, 72]``; None for a blank image.
    """
    grey = to_channels(image, 1)[..., 0]
    box = (head or find_head(grey)).box
    views = [Image.fromarray(grey), Image.fromarray(grey[box.top : box.bottom, box.left : box.right])]
    small = [view.resize((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0) for view in views]
    thumbnails = np.stack([np.asarray(each) for each in small])
    return orientation_hashes(thumbnails, _WAVES) if thumbnails[0].std() > _BLANK else None


def file_hashes(file: Path) -> UInt8 | None:
    """As ``slice_hashes``, of a PNG or JPEG; None also for one that cannot be read."""
    try:
        return slice_hashes(decode_file(file))
    except ImageError:
        return None


class KnownSlices:
    """The training and validation slices of a model: hashes ``[n, 2, 72]`` by subset."""

    def __init__(self, hashes: Mapping[str, UInt8]) -> None:
        self.hashes = hashes

    @classmethod
    def of(cls, files: Mapping[str, Iterable[Path]]) -> KnownSlices:
        """Hashes files, by subset; blank images and those that cannot be read are left out."""
        return cls({subset: _hashed(files[subset]) for subset in KNOWN_SUBSETS})

    @classmethod
    def read(cls, file: Path) -> KnownSlices:
        """Reads what ``write`` has written; OSError or ValueError if it is something else."""
        try:
            with file.open("rb") as opened, np.load(opened) as stored:
                hashes = {subset: stored[subset] for subset in KNOWN_SUBSETS}
        except (KeyError, EOFError, AttributeError, BadZipFile) as error:
            raise ValueError(f"{file.name}, which is damaged: {error}") from error
        if any(rows.dtype != np.uint8 or rows.shape[1:] != (2, _BYTES) for rows in hashes.values()):
            raise ValueError(f"{file.name} with arrays of another shape")
        return cls(hashes)

    def write(self, file: Path) -> None:
        """Writes the hashes, 144 bytes a slice."""
        arrays: dict[str, Any] = dict(self.hashes)
        with file.open("wb") as target:
            np.savez(target, **arrays)

    def find(self, hashes: Sequence[UInt8 | None]) -> list[str]:
        """Looks images up by ``slice_hashes``: the subset that has the slice most like it, or ``NONE``."""
        found, shown = [NONE] * len(hashes), [i for i, each in enumerate(hashes) if each is not None]
        if shown:
            asked = np.stack([each for each in hashes if each is not None])
            distances = np.stack([self._distances(asked, rows) for rows in self.hashes.values()])
            for i, which, distance in zip(shown, distances.argmin(axis=0), distances.min(axis=0), strict=True):
                found[i] = KNOWN_SUBSETS[which] if distance <= MAX_DISTANCE else NONE
        return found

    def find_in(self, root: Path, paths: Sequence[str]) -> dict[str, str]:
        """The subset by path, for those images below ``root`` that are near-duplicates."""
        hashes = list(map_in_threads(file_hashes, [root / path for path in paths]))
        return {path: subset for path, subset in zip(paths, self.find(hashes), strict=True) if subset != NONE}

    @staticmethod
    def _distances(asked: UInt8, rows: UInt8) -> NDArray[np.float32]:
        """Of images ``[n, 2, 8, 72]`` the least of whole and head, in any orientation."""
        views = [least_distances(asked[:, view], rows[:, view]).min(axis=0) for view in range(2)]
        return np.minimum(*views)


def _hashed(files: Iterable[Path]) -> UInt8:
    """Hashes ``[n, 2, 72]``, each once; sorted, so that nothing tells their order."""
    rows = [each[:, 0].reshape(-1) for each in map_in_threads(file_hashes, files) if each is not None]
    # Without rows there is no shape either.
    flat = np.unique(np.array(rows, np.uint8).reshape(len(rows), 2 * _BYTES), axis=0)
    return flat.reshape(len(flat), 2, _BYTES)
