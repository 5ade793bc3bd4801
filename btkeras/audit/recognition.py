"""Recognizes slices of well-known collections under whatever name they come.

Collections of this field are copied into each other, renamed, resized and mirrored. ``collections.npz`` holds 144 bits
of each slice of some, its perceptual hash; ``scripts/make_collection_hashes.py`` writes it.
``docs/collections.md`` says which copies are found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from btkeras.splitting.duplicate_hashes import hashes

UInt8 = NDArray[np.uint8]
Floats = NDArray[np.float32]

# By the key in the file: name, and where it is published.
COLLECTIONS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "figshare": ("FigShare", "doi 10.6084/m9.figshare.1512427"),
        "br35h": ("Br35H", "Kaggle ahmedhamada0/brain-tumor-detection, its tumour-free part"),
    }
)
HASHES = "collections.npz"
# Bits of 144 in which a copy may differ. Copies resized, re-encoded, brightened or flipped differ in 12 and fewer; the
# nearest slice of another head, of 335 from elsewhere, in 14.
_MAX_DISTANCE = 12
_BATCH = 256  # images compared at once


@dataclass(frozen=True)
class Recognized:
    """How many images are copies of a collection's."""

    name: str
    published: str  # where
    images: int  # number of images that look like one of its slices in some orientation
    turned: int  # of these, those that look like it only flipped or rotated


def recognize(thumbnails: Sequence[UInt8]) -> tuple[Recognized, ...]:
    """Counts the copies of known collections among thumbnails ``[SIDE, SIDE]``; only collections that have some.

    An image counts for the collection that has the slice most like it.
    """
    with np.load(str(files("btkeras.audit") / HASHES)) as known:
        stored = [(key, _signs(known[key])) for key in COLLECTIONS]
    found = np.zeros((len(stored), 2), np.int64)
    for start in range(0, len(thumbnails), _BATCH):
        orientations = _signs(hashes(np.stack(thumbnails[start : start + _BATCH]))[1])
        # By collection, orientation and image.
        nearest = np.stack([_distances(orientations, signs) for _, signs in stored])
        which, best = nearest.min(axis=1).argmin(axis=0), nearest.min(axis=(0, 1))
        plain = nearest[:, 0].min(axis=0) == best
        for collection, as_it_is in zip(which[best <= _MAX_DISTANCE], plain[best <= _MAX_DISTANCE], strict=True):
            found[collection] += 1, not as_it_is
    counted = zip(stored, found.tolist(), strict=True)
    return tuple(Recognized(*COLLECTIONS[key], *counts) for (key, _), counts in counted if counts[0])


def _signs(packed: UInt8) -> Floats:
    """Bits as -1 and 1: half of what two products differ by is their distance."""
    return np.unpackbits(packed, axis=-1).astype(np.float32) * 2 - 1


def _distances(orientations: Floats, stored: Floats) -> Floats:
    """Number of bits between images ``[n, 8, bits]`` and the nearest of those stored: ``[8, n]``."""
    result: Floats = (stored.shape[1] - (orientations @ stored.T).max(axis=2).T) / 2
    return result
