"""Versions of a scan, by their names beside its own: ``P1_brain.nii.gz`` beside ``P1.nii.gz`` is no other patient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from btkeras.datasets.mask_names import split_words
from btkeras.datasets.masks import name_beginnings
from btkeras.datasets.naming import ScanName, is_volume_path


def name_versions(names: Mapping[str, ScanName]) -> dict[str, ScanName]:
    """The names of a source, where volumes that are called as another one and further words are of its patient.

    The words are their sequence, so that they are chosen among, not taken side by side. Names that say a sequence or
    another time, of a scheme, and words that are only numbers, stay as they are.
    """
    plain = {path: name for path, name in names.items() if is_volume_path(path) and not (name.scheme or name.mask)}
    of_stem = {(name.place, name.stem): name for name in plain.values() if name.channel is None}
    found = dict(names)
    for path, name in plain.items():
        _, *shorter = name_beginnings(name.stem)
        other = next((of_stem[name.place, stem] for stem in shorter if (name.place, stem) in of_stem), None)
        if other is None or name.sequence or name.channel is not None or name.session not in ("", other.session):
            continue
        words = [word.group().lower() for word in split_words(name.stem[len(other.stem) :])]
        if kind := "_".join(word for word in words if not word.isdecimal()):
            found[path] = replace(name, patient=other.patient, session=other.session, sequence=kind)
    return found
