"""Naming schemes: what the names of a source's files say of kind, patient and mask."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping

from btkeras.datasets.readers import VOLUME_SUFFIXES
from btkeras.datasets.readers.archives import SourceFile

_MASK = re.compile(r"[_-]seg$", re.IGNORECASE)
# The Brain Imaging Data Structure: sub-01_ses-1_T1w.nii.gz.
_BIDS = re.compile(r"sub-[A-Za-z0-9]+")


def is_volume(file: SourceFile) -> bool:
    """Whether a file's name says NIfTI."""
    return file.basename.lower().endswith(VOLUME_SUFFIXES)


def volume_stem(path: str) -> str:
    """A volume's name without folders and ending."""
    return re.sub(r"\.nii(\.gz)?\Z", "", posixpath.basename(path), flags=re.IGNORECASE)


def is_mask(file: SourceFile) -> bool:
    """Whether a file is a tumour's mask: ``NAME_seg.nii.gz``."""
    return is_volume(file) and bool(_MASK.search(volume_stem(file.path)))


def masks_of(volumes: Iterable[SourceFile], masks: Iterable[SourceFile]) -> Mapping[str, SourceFile]:
    """By a volume's path, the mask in its folder: ``NAME_seg`` (the longest) is that of ``NAME``, ``NAME_t1``, ..."""
    by_prefix = {_mask_prefix(mask): mask for mask in masks}
    found = {}
    for volume in volumes:
        folder, stem = posixpath.dirname(volume.path), volume_stem(volume.path)
        ends = [len(stem), *(separator.start() for separator in reversed(list(re.finditer("[_-]", stem))))]
        prefixes = (posixpath.join(folder, stem[:end]) for end in ends)
        if prefix := next((prefix for prefix in prefixes if prefix in by_prefix), None):
            found[volume.path] = by_prefix[prefix]
    return found


def patient_of(volume: SourceFile, mask: SourceFile | None) -> str:
    """The patient that a volume's name means: ``sub-01`` of BIDS, or what the names of volume and mask share.

    Or else the folder's name where the file's begins with it (``P1/P1_t1.nii.gz``), or the file's without its ending.
    """
    stem, folder = volume_stem(volume.path), posixpath.basename(posixpath.dirname(volume.path))
    if bids := _BIDS.match(stem):
        return bids.group()
    if mask is not None:
        return posixpath.basename(_mask_prefix(mask))
    return folder if folder and re.match(rf"{re.escape(folder)}(?=\Z|[_-])", stem) else stem


def _mask_prefix(mask: SourceFile) -> str:
    return posixpath.join(posixpath.dirname(mask.path), _MASK.sub("", volume_stem(mask.path)))
