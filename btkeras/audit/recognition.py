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

from btkeras.datasets.collections import COLLECTIONS
from btkeras.splitting.duplicate_hashes import least_distances, orientation_hashes

UInt8 = NDArray[np.uint8]

# Names by those in the file, which are the sources' in a manifest; Br35H's are its tumour-free slices.
NAMES: Mapping[str, str] = MappingProxyType({"figshare": "FigShare", "br35h": "Br35H"})
HASHES = "collections.npz"
# Bits of 144 in which a copy may differ. Copies resized, re-encoded, brightened or flipped differ in 12 and fewer; of
# 335 slices from elsewhere the nearest that is no copy in 14.
_MAX_DISTANCE = 12
_BATCH = 256  # images compared at once


@dataclass(frozen=True)
class Recognized:
    """How many images are copies of a collection's."""

    name: str
    published: str  # its DOI or address
    images: int  # number of images that look like one of its slices in some orientation
    turned: int  # of these, those that look like it only flipped or rotated


def recognize(thumbnails: Sequence[UInt8]) -> tuple[Recognized, ...]:
    """Counts the copies of known collections among thumbnails ``[SIDE, SIDE]``; only collections that have some.

    An image counts for the collection that has the slice most like it.
    """
    with np.load(str(files("btkeras.audit") / HASHES)) as known:
        stored = [known[key] for key in NAMES]
    found = np.zeros((len(stored), 2), np.int64)
    for start in range(0, len(thumbnails), _BATCH):
        orientations = orientation_hashes(np.stack(thumbnails[start : start + _BATCH]))
        # By collection, orientation and image.
        nearest = np.stack([least_distances(orientations, each) for each in stored])
        which, best = nearest.min(axis=1).argmin(axis=0), nearest.min(axis=(0, 1))
        plain = nearest[:, 0].min(axis=0) == best
        for collection, as_it_is in zip(which[best <= _MAX_DISTANCE], plain[best <= _MAX_DISTANCE], strict=True):
            found[collection] += 1, not as_it_is
    counted = zip(NAMES, found.tolist(), strict=True)
    return tuple(Recognized(NAMES[key], COLLECTIONS[key].reference, *counts) for key, counts in counted if counts[0])
