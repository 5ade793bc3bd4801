"""What paths of a source say beside each other: channels, patients and time points that one alone leaves open."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from btkeras.datasets.classes import find_class
from btkeras.datasets.mask_names import folders_of, stem_of
from btkeras.datasets.naming import (
    ScanName,
    is_volume_path,
    own_channel,
    parse_name,
    says_no_case,
    split_sequence,
    split_session,
)
from btkeras.datasets.schemes import CHANNEL, MOST_CHANNELS, VISIT


def parse_names(paths: Iterable[str], own: frozenset[str] = frozenset()) -> dict[str, ScanName]:
    """Parses the paths of a source, relative to it with forward slashes; never raises.

    Folders called as one of ``own`` are classes, beside those of the usual names.
    """
    names = {path: parse_name(path, own_channel(path), own) for path in paths}
    names |= {path: parse_name(path, channel, own) for path, channel in _channels(names).items()}
    names |= _with_folders_as_patients(names)
    return names | _with_folders_as_sessions(names, own)


def _channels(names: Mapping[str, ScanName]) -> dict[str, int | None]:
    """The paths whose last number is, or in ``imagesTr`` is not, that of a channel."""
    groups: dict[tuple[tuple[str, ...], str], dict[int, str]] = defaultdict(dict)
    labels = {stem_of(path) for path, name in names.items() if name.mask}
    for path, name in names.items():
        number = None if name.mask else CHANNEL.fullmatch(stem_of(path))
        if number and (name.channel is not None or is_volume_path(path)):
            groups[folders_of(path), number["case"]][int(number["channel"])] = path
    found: dict[str, int | None] = {}
    for group in groups.values():
        inside = any(names[path].channel is not None for path in group.values())
        labelled = any(stem_of(path) in labels for path in group.values())
        few = max(group) < MOST_CHANNELS and not labelled
        channels = few and (inside or (len(group) > 1 and max(group) == len(group) - 1))
        found |= {path: number if channels else None for number, path in group.items()}
    return found


def _with_folders_as_patients(names: Mapping[str, ScanName]) -> dict[str, ScanName]:
    """Where folders have the same few files' names, the folder is the patient: ``P1/scan.nii.gz``, ``P2/scan.nii.gz``.

    Not where they have the same patients: ``native/P1.nii.gz``, ``native/P2.nii.gz``, ``enhanced/P1.nii.gz``, ...
    """
    places: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    beside: dict[tuple[str, ...], list[ScanName]] = defaultdict(list)
    plain = {
        path: name
        for path, name in names.items()
        if name.patient and name.patient not in name.place and not name.scheme and not name.mask
    }
    for name in plain.values():
        places[name.patient].add(name.place)
        beside[name.place].append(name)
    repeated = set()
    for patient, folders in places.items():
        found = {name.patient for folder in folders for name in beside[folder]} if len(folders) > 1 else ()
        if 0 < len(found) < len(folders) + (not any(letter.isdigit() for letter in patient)):
            repeated.add(patient)
    counted = {folder for folder in beside if _counts_series(beside[folder])}
    return {path: _of_folder(n) for path, n in plain.items() if n.patient in repeated or n.place in counted}


def _counts_series(found: Sequence[ScanName]) -> bool:
    """Whether the numbers of a folder's files are those of series, of one sequence each: ``3_T1``, ``5_T1c``."""
    sequences = {name.sequence for name in found if name.sequence and name.patient.isdecimal()}
    return len(sequences) == len(found) > 1


def _of_folder(name: ScanName) -> ScanName:
    cases = [folder for folder in name.place if not (folder == name.label or says_no_case(folder))]
    if not cases:
        return name
    patient, session = split_session(split_sequence(cases[-1])[0])
    return replace(name, patient=patient or name.patient, session=name.session or session)


def _with_folders_as_sessions(names: Mapping[str, ScanName], own: frozenset[str]) -> dict[str, ScanName]:
    """Where patients' folders have the same folders, these are time points: ``P1/V1/t1.nii.gz``, ``P2/V1/t1.nii.gz``.

    Where there are as many as patients or more (``hospital/001``), only if they are called as visits are.
    """
    levels: dict[tuple[str, ...], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    nested, found = {}, {}
    for path, name in names.items():
        cases = [folder for folder in folders_of(path) if not (find_class(folder, own) or says_no_case(folder))]
        if cases[1:] and name.patient == cases[-1] and not (name.scheme or name.mask):
            nested[path] = cases
            levels[*cases[:-2],][cases[-1]].add(cases[-2])
    for path, (*above, outer, inner) in nested.items():
        level = levels[*above,]
        few = len(level) < len(set().union(*level.values())) or VISIT.fullmatch(inner)
        if few and len(level[inner]) > 1:
            found[path] = replace(names[path], patient=split_sequence(outer)[0] or outer, session=inner)
    return found
