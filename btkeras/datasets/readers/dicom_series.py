"""Which DICOM files belong together, and in which order; by their headers alone, since names are given by chance."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from btkeras.datasets.readers import CONVERTED_SUFFIXES, IMAGE_SUFFIXES, VOLUME_SUFFIXES
from btkeras.datasets.readers.dicom import read_identity
from btkeras.datasets.readers.dicom_identity import DicomIdentity
from btkeras.datasets.readers.formats import kind_of
from btkeras.errors import ImageError

# Bytes that hold a header up to the pixels; that of an enhanced file may be longer, after all that is read here.
HEADER_BYTES = 2**17

# Files of other kinds, which are not opened.
_OTHERS = (*IMAGE_SUFFIXES, *CONVERTED_SUFFIXES, *VOLUME_SUFFIXES, ".mat")
# Directions of slices whose cosine is less are different ones.
_SAME_DIRECTION = 0.9
# A series of several directions that has more slices is a reconstruction around an axis.
_MOST_OF_SCOUT = 30
# As few slices are a scout where the same examination has a series as long as the second number.
_FEW, _LONG = 3, 10

LOCALIZER = "a localizer or scout (DICOM)"
TWICE = "a DICOM instance a second time"


class SeriesPlace(NamedTuple):
    """Whose slice a file is, its place in its series, from 0, of how many files."""

    identity: DicomIdentity
    number: int
    of: int


def identity_in(path: str, head: Callable[[int], bytes]) -> DicomIdentity | None:
    """Reads a DICOM file's identity; None for files of other kinds, and those that cannot be read.

    ``head`` returns a number of the file's first bytes. MissingExtraError if pydicom is not installed.
    """
    if path.lower().endswith(_OTHERS):
        return None
    try:
        first = head(HEADER_BYTES)
        return read_identity(first) if kind_of(first) == "DICOM" else None
    except ImageError:
        # The error comes where the file is read.
        return None


def place_slices(identities: Mapping[str, DicomIdentity]) -> dict[str, SeriesPlace]:
    """Finds files' places in their series: along the slices' normal, or else by their numbers, or else as given."""
    places = {}
    for paths in _series(identities).values():
        known = [identities[path] for path in paths]
        # Where slices lie in several directions, or one has no position, positions say nothing.
        by_position = len(_directions(known)) == 1 and all(one.position is not None for one in known)
        positions = [one.position if by_position else 0.0 for one in known]
        numbers = [-1 if one.instance is None else one.instance for one in known]
        order = sorted(range(len(paths)), key=lambda at: (positions[at] or 0.0, numbers[at], at))
        for number, at in enumerate(order):
            places[paths[at]] = SeriesPlace(known[at], number, len(paths))
    return places


def in_series_order(paths: Sequence[str], places: Mapping[str, SeriesPlace]) -> list[str]:
    """Paths with the DICOM files among them by patient, series and place, the patients and series as they come."""
    ranks: dict[object, int] = {}
    for path in filter(places.__contains__, paths):
        patient, series = _key(places[path].identity)
        ranks.setdefault(patient, len(ranks))
        ranks.setdefault((patient, series), len(ranks))

    def rank(path: str) -> tuple[int, int, int]:
        patient, series = _key(places[path].identity)
        return ranks[patient], ranks[patient, series], places[path].number

    ordered = iter(sorted(filter(places.__contains__, paths), key=rank))
    return [next(ordered) if path in places else path for path in paths]


def left_out_of_series(identities: Mapping[str, DicomIdentity]) -> dict[str, str]:
    """Files that are no slices of an examination, with the reason: localizers, and files that come twice."""
    series = _series(identities)
    slices = {key: sum(identities[path].frames for path in paths) for key, paths in series.items()}
    longest: Counter[tuple[str, str]] = Counter()
    for key, paths in series.items():
        study = _study(identities[paths[0]])
        longest[study] = max(longest[study], slices[key])
    left_out: dict[str, str] = {}
    for key, paths in series.items():
        known, count = [identities[path] for path in paths], slices[key]
        several = len(_directions(known)) > 1 and count <= _MOST_OF_SCOUT
        named = known[0].series and known[0].study
        few = named and count <= _FEW and longest[_study(known[0])] >= _LONG
        left_out |= {path: LOCALIZER for path, one in zip(paths, known, strict=True) if one.localizer or several or few}
    return _twice(identities) | left_out


def _key(identity: DicomIdentity) -> tuple[str, str]:
    return identity.patient, identity.series


def _study(identity: DicomIdentity) -> tuple[str, str]:
    return identity.patient, identity.study


def _series(identities: Mapping[str, DicomIdentity]) -> dict[tuple[str, str], list[str]]:
    """Paths by patient and series; a file that names no series is alone."""
    series = defaultdict(list)
    for path, identity in identities.items():
        series[identity.patient, identity.series or path].append(path)
    return series


def _directions(known: Sequence[DicomIdentity]) -> list[np.ndarray]:
    """The different directions of slices' normals, whatever their sign."""
    found: list[np.ndarray] = []
    for normal in {one.normal for one in known if one.normal}:
        direction = np.array(normal) / np.linalg.norm(normal)
        if all(abs(direction @ other) < _SAME_DIRECTION for other in found):
            found.append(direction)
    return found


def _twice(identities: Mapping[str, DicomIdentity]) -> dict[str, str]:
    """Files whose instance came before. Some anonymizers give all one id, but not one number and position."""
    seen: set[tuple[object, ...]] = set()
    found = {}
    for path, one in identities.items():
        instance = (one.uid, *_key(one), one.instance, one.position)
        if one.uid and one.instance is not None and one.position is not None and instance in seen:
            found[path] = TWICE
        seen.add(instance)
    return found
