"""Which mask belongs to which image, by their names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from btkeras.datasets.mask_names import BRAIN, split_words
from btkeras.datasets.naming import ScanName, is_volume_path

_NO_TUMOR = "a mask of the head or its tissues"
NO_IMAGE = "a mask without an image"
_NOT_BEST = "a mask beside a better one"

_Key = tuple[object, ...]


class MaskPairs(NamedTuple):
    """The mask of each image that has one, and why the other masks are left out, by paths."""

    mask_of: dict[str, str]
    left_out: dict[str, str]


def pair_masks(names: Mapping[str, ScanName]) -> MaskPairs:
    """Finds the tumour's mask of each image of a source, by the names of ``parse_names``.

    A volume's mask is that of its patient and session in a naming scheme; else the one in the same place whose name
    begins as the volume's does, the longest. An image's has the same name, in the same place or in the whole source.
    Of several the expert's comes before one of unknown origin, and that before an automatic one.
    """
    masks = {path: name for path, name in names.items() if name.mask}
    images = {path: name for path, name in names.items() if not name.mask}
    tumors = {path: name for path, name in masks.items() if name.mask and name.mask.kind != BRAIN}
    found = _Index(images, tumors)
    mask_of, beaten = {}, set()
    for path, name in images.items():
        candidates = sorted(found.candidates(path, name), key=lambda mask: _order(mask, names[mask]))
        if candidates:
            mask_of[path] = candidates[0]
            beaten |= set(candidates[1:])
    used = set(mask_of.values())
    left_out = dict.fromkeys(masks.keys() - tumors.keys(), _NO_TUMOR)
    left_out |= {path: _NOT_BEST if path in beaten else NO_IMAGE for path in tumors if path not in used}
    return MaskPairs(mask_of, {path: left_out[path] for path in masks if path in left_out})


def case_of(path: str, name: ScanName) -> _Key:
    """What the scans of one patient at one time have in common, and no others of their source."""
    return name.label, name.scheme, name.patient or (name.place, name.stem or path), name.session


def _order(path: str, name: ScanName) -> tuple[int, int, str]:
    return name.mask.rank if name.mask else 0, len(name.stem), path


class _Index:
    """Masks by all that may lead to them."""

    def __init__(self, images: Mapping[str, ScanName], masks: Mapping[str, ScanName]) -> None:
        self._masks: dict[_Key, list[str]] = defaultdict(list)
        for path, name in masks.items():
            for key in self._keys(path, name):
                self._masks[key].append(path)
        self._sessions: dict[_Key, set[str]] = defaultdict(set)
        self._cases: dict[_Key, set[_Key]] = defaultdict(set)
        self._stems: dict[_Key, int] = defaultdict(int)
        for path, name in images.items():
            self._sessions[case_of(path, name)[:3]].add(name.session)
            self._cases[name.place, is_volume_path(path)].add(case_of(path, name))
            self._stems[name.stem, is_volume_path(path)] += 1

    def _keys(self, path: str, name: ScanName) -> Iterator[_Key]:
        volume = is_volume_path(path)
        yield "place", name.place, name.stem, volume
        if volume and name.place and name.place[-1] != name.label:
            yield "folder", name.place
        if volume and name.scheme:
            yield "case", *case_of(path, name)
        if not name.label:
            yield "source", name.stem, volume
            if volume and name.scheme:
                yield "case", "", *case_of(path, name)[1:]

    def candidates(self, path: str, name: ScanName) -> list[str]:
        """The masks of an image that fit equally well."""
        return next((self._masks[key] for key in self._lookups(path, name) if key in self._masks), [])

    def _lookups(self, path: str, name: ScanName) -> Iterator[_Key]:
        """Keys of an image, the best first."""
        volume, case = is_volume_path(path), case_of(path, name)
        if volume and name.scheme:
            for label in dict.fromkeys([case[0], ""]):
                yield "case", label, *case[1:]
                if len(self._sessions[case[:3]]) == 1:
                    yield "case", label, *case[1:3], ""
        for stem in name_beginnings(name.stem) if volume else (name.stem,):
            yield "place", name.place, stem, volume
        if len(self._cases[name.place, volume]) == 1:
            # A mask that is only called mask, in the folder of one case.
            yield "place", name.place, "", volume
        if self._stems[name.stem, volume] == 1:
            yield "source", name.stem, volume
        if volume and len(self._cases[name.place, True]) == len(self._masks.get(("folder", name.place), ())) == 1:
            # BraTS20_Training_355/W39_1998.09.19_Segm.nii, the only mask in the folder of one case.
            yield "folder", name.place


def name_beginnings(stem: str) -> Iterator[str]:
    """A name, and what is left of it without its last words, the longest first."""
    yield stem
    for word in reversed(split_words(stem)[1:]):
        yield stem[: word.start()].rstrip("_- .")
