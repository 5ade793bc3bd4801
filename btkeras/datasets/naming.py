"""Which files of a source are DICOM or NIfTI, and what their names say of patient and mask."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence

from btkeras.datasets.readers import DICOM_SUFFIXES, VOLUME_SUFFIXES
from btkeras.datasets.readers.archives import SourceFile
from btkeras.errors import ImageError

_MASK = re.compile(r"[_-]seg$", re.IGNORECASE)
# The Brain Imaging Data Structure: sub-01_ses-1_T1w.nii.gz.
_BIDS = re.compile(r"sub-[A-Za-z0-9]+")
# A disc's table of contents is DICOM and no image.
_DICOM_INDEX = "dicomdir"


def is_volume(entry: SourceFile) -> bool:
    """Whether a file's name says NIfTI."""
    return entry.basename.lower().endswith(VOLUME_SUFFIXES)


def is_medical(entry: SourceFile) -> bool:
    """Whether a file is DICOM or NIfTI by its name, or DICOM by its content where the name has no ending."""
    if is_volume(entry) or entry.suffix in DICOM_SUFFIXES:
        return True
    if entry.suffix or entry.basename.lower() == _DICOM_INDEX:
        return False
    try:
        return entry.read()[128:132] == b"DICM"
    except ImageError:
        return False


def volume_stem(path: str) -> str:
    """A volume's name without folders and ending."""
    name = posixpath.basename(path)
    ending = next((suffix for suffix in VOLUME_SUFFIXES[::-1] if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(ending)]


def is_mask(entry: SourceFile) -> bool:
    """Whether a file is a tumour's mask: ``NAME_seg.nii.gz``."""
    return is_volume(entry) and bool(_MASK.search(volume_stem(entry.path)))


def masks_of(volumes: Sequence[SourceFile], masks: Iterable[SourceFile]) -> Mapping[str, SourceFile]:
    """By a volume's path, the mask beside it: ``NAME_seg`` is that of ``NAME``, ``NAME_t1``, ``NAME-flair``, ..."""
    found: dict[str, SourceFile] = {}
    # The longest name last, so that P1_2_seg wins over P1_seg.
    for mask in sorted(masks, key=lambda entry: len(entry.path)):
        prefix = _prefix(mask)
        for volume in volumes:
            if re.match(rf"{re.escape(prefix)}(?=$|[_-])", posixpath.join(_folder(volume), volume_stem(volume.path))):
                found[volume.path] = mask
    return found


def patient_of(volume: SourceFile, mask: SourceFile | None) -> str:
    """The patient that a volume's name means.

    ``sub-01`` of the Brain Imaging Data Structure; or what the names of volume and mask share; or the folder's name
    where the volume's begins with it (``P1/P1_t1.nii.gz``), so that all scans of a patient are one patient's; or else
    the file's name without its ending.
    """
    stem, folder = volume_stem(volume.path), posixpath.basename(_folder(volume))
    bids = _BIDS.match(stem)
    if bids:
        return bids.group()
    if mask is not None:
        return posixpath.basename(_prefix(mask))
    return folder if folder and re.match(rf"{re.escape(folder)}(?=$|[_-])", stem) else stem


def _folder(entry: SourceFile) -> str:
    return posixpath.dirname(entry.path)


def _prefix(mask: SourceFile) -> str:
    return posixpath.join(_folder(mask), _MASK.sub("", volume_stem(mask.path)))
