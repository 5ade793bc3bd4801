"""Which files of a folder hold slices, and how those that are left out are named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from btkeras.datasets.mask_names import is_mask_path
from btkeras.datasets.readers import CONVERTED_SUFFIXES, DICOM_SUFFIXES, IMAGE_SUFFIXES, VOLUME_SUFFIXES
from btkeras.datasets.readers.archives import file_on_disk
from btkeras.datasets.readers.formats import READ, kind_of
from btkeras.errors import DataError

SLICE_SUFFIXES = (*IMAGE_SUFFIXES, *CONVERTED_SUFFIXES, *DICOM_SUFFIXES, *VOLUME_SUFFIXES)
# Kinds of what is left out, beside endings.
MASK, _LINK, _PIPE = "mask", "broken link", "pipe or device"
_PLURALS = {MASK: "masks", _LINK: "broken links", _PIPE: "pipes or devices"}
# A disc's table of contents is DICOM and no image.
_DICOM_INDEX = "dicomdir"
# Names that a message lists.
_LISTED = 5


class LeftOut(NamedTuple):
    """A file that is not read, and what it is: its ending, or words."""

    path: str
    kind: str


def holds_slices(name: str, head: Callable[[], bytes]) -> bool:
    """Whether a file is read as an image, DICOM or NIfTI: by its ending, or else by its first bytes.

    ``head`` gives them (``SourceFile.head``); it is only called where the ending says nothing.
    """
    lower = name.lower()
    if lower.endswith(SLICE_SUFFIXES):
        return True
    if PurePosixPath(lower).name == _DICOM_INDEX:
        return False
    try:
        return kind_of(head()) in READ
    except DataError:
        return False


def why_left_out(file: Path, path: str) -> str:
    """What a file that is not read is: its ending, or by its ``path`` in its folder a mask; "" if it is read."""
    if not file.is_file():
        return _PIPE if file.exists() else _LINK
    if not holds_slices(file.name, lambda: file_on_disk(file, file.name).head()):
        return file.suffix.lower() or "without ending"
    return MASK if is_mask_path(path) else ""


def left_out_text(files: Sequence[LeftOut]) -> str:
    """One line: how many files of which kinds were left out, and the first names."""
    counts = Counter(file.kind for file in files).most_common()
    kinds = ", ".join(f"{count} {kind if count == 1 else _PLURALS.get(kind, kind)}" for kind, count in counts)
    names = ", ".join(file.path for file in files[:_LISTED])
    more = f" and {len(files) - _LISTED} more" if len(files) > _LISTED else ""
    return f"left out: {len(files)} {'file' if len(files) == 1 else 'files'} ({kinds}): {names}{more}"
