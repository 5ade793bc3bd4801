"""Copies in a collection: images that are the same or nearly so, under flips and rotations, and groups of them.

Exact copies have equal grey pixels. Near-copies are found by perceptual hash (``duplicates_hash``) and confirmed by
correlation after exact alignment (``duplicates_align``, where the threshold is explained): the same image stored
anew, at another size, brighter or darker, flipped, rotated by a multiple of 90 degrees, or with up to 5 % of each side
cut off. Slices that lie next to each other in a head look alike but are no copies, and are not joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from btkeras.machine import threads
from btkeras.splitting.duplicate_alignment import THRESHOLD, Aligner
from btkeras.splitting.duplicate_hashes import TURN_NAMES, candidates, hashes
from btkeras.splitting.image_stats import ImageStats, Progress, scan_images

VERSION = 1  # raised with every change of what is found, so that no cache holds old groups

_BATCH = 256
_BLANK = 2.0  # standard deviation below which an image resembles every other blank one


@dataclass(frozen=True)
class DuplicatePair:
    """Two images, one of which is a copy of the other.

    Attributes:
        first: Index of an image.
        second: Index of another, higher.
        correlation: Of the aligned images, ``THRESHOLD``..1.
        exact: Whether their pixels are equal.
        turn: What makes the second look like the first, one of ``duplicates_hash.TURN_NAMES``.
    """

    first: int
    second: int
    correlation: float
    exact: bool
    turn: str


@dataclass(frozen=True)
class Duplicates:
    """What was found among images.

    Attributes:
        paths: The images, as they were given.
        links: As many as it takes to join each group; not every two images of a group have one.
        unreadable: Why, by index, for those that could not be read.
    """

    paths: tuple[Path, ...]
    links: tuple[DuplicatePair, ...]
    unreadable: dict[int, str]

    def groups(self) -> list[list[Path]]:
        """Paths of the images that links join, directly or through others: groups of two and more."""
        return [[self.paths[i] for i in group] for group in self.index_groups()]

    def index_groups(self) -> list[list[int]]:
        """As ``groups``, with the images' indices; sorted."""
        return connected_groups(len(self.paths), [(link.first, link.second) for link in self.links])


def connected_groups(count: int, pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Connected components of two and more among ``count`` things, sorted."""
    if not pairs:
        return []
    rows, columns = np.array(pairs).T
    graph = coo_array((np.ones(len(pairs)), (rows, columns)), shape=(count, count))
    _, numbers = connected_components(graph, directed=False)
    order = np.argsort(numbers, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
    return sorted(group.tolist() for group in groups if len(group) > 1)


def find_near_duplicates(paths: Sequence[Path], progress: Progress = lambda paths: paths) -> Duplicates:
    """Finds exact and near-copies among image files; those that cannot be read are listed, not raised.

    Time and memory grow about linearly: each image is decoded once, and a thumbnail of 14 kB is kept of it.

    Args:
        paths: PNG or JPEG files.
        progress: Wraps the paths while they are read.
    """
    return match(paths, [fact if isinstance(fact, ImageStats) else str(fact) for fact in scan_images(paths, progress)])


def match(paths: Sequence[Path], facts: Sequence[ImageStats | str]) -> Duplicates:
    """As ``find_near_duplicates``, for images that were read.

    Args:
        paths: The images.
        facts: What is known of each, or why it could not be read.
    """
    unreadable = {i: fact for i, fact in enumerate(facts) if isinstance(fact, str)}
    first: dict[str, int] = {}
    links: list[DuplicatePair] = []
    for i, fact in enumerate(facts):
        if isinstance(fact, ImageStats):
            same = first.setdefault(fact.digest, i)
            if same != i:
                links.append(DuplicatePair(same, i, 1.0, True, TURN_NAMES[0]))
    kept = [i for i in first.values() if _is_image(facts[i])]
    return Duplicates(tuple(paths), (*links, *_near(kept, facts)), unreadable)


def _is_image(fact: ImageStats | str) -> bool:
    return isinstance(fact, ImageStats) and float(fact.thumbnail.std()) > _BLANK


def _near(kept: Sequence[int], facts: Sequence[ImageStats | str]) -> list[DuplicatePair]:
    """Links between the images of these indices."""
    if len(kept) < 2:
        return []
    thumbnails = np.stack([fact.thumbnail for fact in (facts[i] for i in kept) if isinstance(fact, ImageStats)])
    pairs = candidates(*hashes(thumbnails))
    aligner = Aligner(thumbnails)
    component = np.arange(len(kept))
    links = []
    with ThreadPoolExecutor(threads()) as pool:
        size = _BATCH * threads()
        for start in range(0, len(pairs), size):
            batch = pairs[start : start + size]
            # What is in one group already need not be compared: an image stored 100 times has 4,950 pairs.
            batch = batch[component[batch[:, 0]] != component[batch[:, 2]]]
            parts = [batch[i : i + _BATCH] for i in range(0, len(batch), _BATCH)]
            alike = [value for part in pool.map(aligner.correlations, parts) for value in part.tolist()]
            for (i, _, j, turn), correlation in zip(batch.tolist(), alike, strict=True):
                if correlation >= THRESHOLD and component[i] != component[j]:
                    links.append(_link(kept[i], kept[j], turn, correlation))
                    component[component == component[j]] = component[i]
    return links


def _link(i: int, j: int, turn: int, correlation: float) -> DuplicatePair:
    if i > j:
        # The two rotations by 90 degrees undo each other; every other turn undoes itself.
        i, j, turn = j, i, {5: 6, 6: 5}.get(turn, turn)
    return DuplicatePair(i, j, min(correlation, 1.0), False, TURN_NAMES[turn])
