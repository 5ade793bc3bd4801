"""The field's naming schemes: whose scan a file is, of which time, and what was measured, by its path alone."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from btkeras.datasets.classes import find_class
from btkeras.datasets.dataset import find_subset
from btkeras.datasets.mask_names import MaskName, folders_of, layout_of, mask_name, split_words, stem_of
from btkeras.datasets.readers import VOLUME_SUFFIXES
from btkeras.datasets.readers.dicom_identity import sequence_of
from btkeras.datasets.schemes import (
    BIDS,
    BIDS_CONTRAST,
    CHANNEL,
    CHANNEL_FOLDERS,
    IMAGE_WORD,
    NO_CASE,
    NO_PATIENT,
    SCHEMES,
    SESSION,
    SHORT_SESSION,
    SLICE_WORD,
    TCIA_SERIES,
    TCIA_STUDY,
)
from btkeras.datasets.sequences import canonical, find_sequence


@dataclass(frozen=True, slots=True)
class ScanName:
    """What a file's path says of it; "" where it says nothing.

    Attributes:
        scheme: A key of ``SCHEMES``, ``bids``, ``tcia``, or "" for a name of no scheme.
        patient: The person, without session, time point and channel. Never "" for NIfTI; "" for images of no scheme.
        session: The time point.
        sequence: ``t1c``, ``t1``, ``t2``, ``flair``, or the own name of another map or version (``t1c_bias``).
        channel: nnU-Net's number of the sequence.
        mask: What it says of a mask; None for an image.
        place: The folders that say whose the file is, not of what kind: those of an image and its mask are the same.
        label: The class that the innermost of the folders names which names one; it is in ``place``.
        stem: The file's name without ending and without what says mask, image or channel.
    """

    scheme: str = ""
    patient: str = ""
    session: str = ""
    sequence: str = ""
    channel: int | None = None
    mask: MaskName | None = None
    place: tuple[str, ...] = ()
    label: str = ""
    stem: str = ""


def is_volume_path(path: str) -> bool:
    """Whether a file's name says NIfTI."""
    return path.lower().endswith(VOLUME_SUFFIXES)


def in_channel_folder(path: str) -> bool:
    """Whether a file lies in nnU-Net's folders of images, or in class folders in them."""
    return any(folder.lower() in CHANNEL_FOLDERS for folder in folders_of(path))


def own_channel(path: str) -> int | None:
    """The channel that a path alone says: where it lies in nnU-Net's ``imagesTr``."""
    number = CHANNEL.fullmatch(stem_of(path))
    return int(number["channel"]) if number and in_channel_folder(path) else None


def parse_name(path: str, channel: int | None = None, own: frozenset[str] = frozenset()) -> ScanName:
    """Parses a path alone, whose ``channel`` is given; folders called as one of ``own`` are classes, too."""
    mask = mask_name(path)
    stem = mask.base if mask else stem_of(path)
    number = CHANNEL.fullmatch(stem) if channel is not None else None
    case = number["case"] if number else stem
    folders = folders_of(path)
    classes = {folder: name for folder in folders if (name := find_class(folder, own))}
    others = [folder for folder in folders if folder not in classes]
    found = _tcia_name(folders) or _scheme_name(case) or _generic_name(case, others)
    if not (found.scheme or is_volume_path(path)):
        found = ScanName()
    if "derivatives" in folders and found.sequence and "_" not in found.sequence:
        found = replace(found, sequence=f"{found.sequence}_derived")
    return replace(
        found,
        sequence="" if mask or channel is not None else found.sequence or _folder_sequence(path, others),
        channel=channel,
        mask=mask,
        place=_place(folders, classes),
        label=next(reversed(classes.values()), ""),
        stem=IMAGE_WORD.sub("", case),
    )


def _folder_sequence(path: str, folders: Sequence[str]) -> str:
    """The sequence that the innermost folder of a volume says which says one: ``P1/FLAIR/scan.nii.gz``."""
    if not is_volume_path(path):
        return ""
    return next((name for folder in reversed(folders) if (name := split_sequence(folder)[1])), "")


@functools.lru_cache(4096)
def _scheme_name(text: str) -> ScanName | None:
    """By the scheme that a file's or folder's name begins as."""
    if match := BIDS.match(text):
        return _named("bids", match, _bids_sequence(text[match.end() :]))
    for scheme, pattern in SCHEMES.items():
        if match := pattern.match(text):
            words = [word.group() for word in split_words(text[match.end() :])]
            while words and SLICE_WORD.fullmatch(words[-1]):
                words.pop()
            return _named(scheme, match, _own_name(words))
    return None


def _named(scheme: str, match: re.Match[str], sequence: str) -> ScanName:
    return ScanName(scheme, match["patient"], match.groupdict().get("session") or "", sequence)


def _own_name(words: Sequence[str]) -> str:
    found = find_sequence(words)
    if found and not found.first:
        return found.full_name
    return "_".join(word.lower() for word in words if not word.isdecimal())


def _bids_sequence(rest: str) -> str:
    """By the suffix, ``ce-`` and ``acq-``; ``desc-`` and ``space-`` make another version."""
    parts = rest.split("_")
    found = find_sequence([part for part in parts if part and "-" not in part])
    if found is None:
        return canonical(parts[-1]) if parts[-1] and "-" not in parts[-1] else ""
    name = "t1c" if found.name == "t1" and BIDS_CONTRAST.search(rest) else found.name
    versions = [part.partition("-")[2].lower() for part in parts if part.startswith(("desc-", "space-"))]
    return "_".join([name, *versions, *found.after])


def _tcia_name(folders: Sequence[str]) -> ScanName | None:
    """By the folders PATIENT/STUDY/SERIES."""
    for patient, study, series in zip(folders, folders[1:], folders[2:], strict=False):
        date, description = TCIA_STUDY.fullmatch(study), TCIA_SERIES.fullmatch(series)
        if date and description:
            return ScanName("tcia", patient, date["session"], sequence_of(description["description"]))
    return None


def _generic_name(stem: str, folders: Sequence[str]) -> ScanName:
    """The patient is the file's name without sequence and session, or where nothing is left, the folder's.

    Or the folder's too where the file's name begins with it: ``P1/P1_t1.nii.gz``.
    """
    base, sequence = split_sequence(stem)
    base, session = split_session(base)
    if all(word.group().lower() in NO_PATIENT for word in split_words(base)):
        base = ""
    cases = [folder for folder in reversed(folders) if not says_no_case(folder)]
    found = next(filter(None, map(_scheme_name, cases)), None)
    if found and (not base or any(letter.isdigit() for letter in found.patient)):
        inner = next(filter(None, map(_session_of, folders)), "")
        return replace(found, sequence=sequence, session=found.session or session or inner)
    if base and not (cases and re.match(rf"{re.escape(cases[0])}(?![A-Za-z0-9])", base)):
        return ScanName("", base, session, sequence)
    for folder, outer in zip(cases, (*cases[1:], ""), strict=False):
        if outer and SHORT_SESSION.fullmatch(folder):
            session = session or folder
            continue
        patient, of_folder = split_session(split_sequence(folder)[0])
        session = session or of_folder
        if patient:
            return ScanName("", patient, session, sequence)
    return ScanName("", base or stem or "scan", session, sequence)


def split_sequence(stem: str) -> tuple[str, str]:
    """A name without its sequence, and the sequence."""
    words = split_words(stem)
    found = find_sequence([word.group() for word in words])
    if found is None:
        return stem, ""
    base = stem[: words[found.first].start()].rstrip("_-. ")
    if found.first == 0 and re.fullmatch(r"\d{3,}", words[-1].group()) and not found.after:
        # T1_001: the number is the patient's.
        return words[-1].group(), found.name
    return base, found.full_name


def split_session(text: str) -> tuple[str, str]:
    """A name without its time point, and the time point."""
    if match := SESSION.search(text):
        return (text[: match.start()] + text[match.end() :]).strip("_- "), match["session"] or match["short"]
    return text, ""


def _session_of(folder: str) -> str:
    match = SESSION.fullmatch(folder)
    return match["session"] or "" if match else ""


@functools.lru_cache(4096)
def says_no_case(folder: str) -> bool:
    """Whether a folder names a class, a subset, a kind of file or a sequence."""
    name = folder.strip().lower()
    if NO_CASE.fullmatch(name) or find_subset(folder) or find_class(folder) or layout_of(folder) is not None:
        return True
    words = [word.group() for word in split_words(folder)]
    found = find_sequence(words)
    return bool(found) and all(word.isdecimal() for word in words[: found.first if found else 0])


def _place(folders: Sequence[str], classes: Mapping[str, str]) -> tuple[str, ...]:
    kept = []
    for folder in folders:
        layout = layout_of(folder)
        if layout is not None:
            kept += [layout] if layout else []
        elif folder in classes or find_subset(folder) or not says_no_case(folder):
            kept.append(classes.get(folder, folder))
    return tuple(kept)
