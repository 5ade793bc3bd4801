"""Files of one slice or many behind one interface: PNG, JPEG, DICOM and NIfTI, told apart by their content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from btkeras.data.image_file import FORMATS, check_image, read_bytes, remedy_for, sniff
from btkeras.data.records import IMAGE_SUFFIXES
from btkeras.errors import ImageError

Picture = NDArray[np.uint8]

VOLUME_SUFFIXES = (".nii", ".nii.gz")
DICOM_SUFFIXES = (".dcm", ".dicom")
# The table of contents of a disc has the same beginning.
_DICOM_INDEX = "dicomdir"


@dataclass(frozen=True, eq=False)
class Slices:
    """The slices of one file.

    Attributes:
        kind: ``PNG``, ``JPEG``, ``DICOM`` or ``NIfTI``.
        count: How many there are, at least 1.
        picture: Gives slice 0 to ``count - 1``, upright, as ``Decoder.array`` and ``check_slice`` take it: uint8
            ``[h, w, 1 or 3]``. May be called from several threads; raises ImageError if that slice is broken.
        refusal: Why none of them is a brain MRI slice, whatever the pixels say; None if nothing speaks against it.
        axis: The view of a volume, a key of ``nifti.AXES``; "" where the file holds pictures.
    """

    kind: str
    count: int
    picture: Callable[[int], Picture]
    refusal: str | None = None
    axis: str = ""

    @property
    def middle(self) -> int:
        """The slice to look at first."""
        return self.count // 2


def has_slice_suffix(name: str) -> bool:
    """Whether a file's name says that it holds slices."""
    return name.lower().endswith((*IMAGE_SUFFIXES, *DICOM_SUFFIXES, *VOLUME_SUFFIXES))


def is_dicom_file(file: Path) -> bool:
    """Whether a file begins as a DICOM file with its usual preamble; False if it cannot be read."""
    try:
        if file.name.lower() == _DICOM_INDEX or not file.is_file():
            return False
        with file.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def open_slices(source: str | Path | bytes, name: str = "", axis: str | None = None) -> Slices:
    """Opens a file's slices.

    Args:
        source: A file, or its content.
        name: What messages call it; unless given, the path.
        axis: The view of a NIfTI volume, a key of ``nifti.AXES``; None takes the one that was scanned, or axial.

    Raises:
        ImageError: If it cannot be read, is of another kind, or is broken.
        MissingExtraError: If it is DICOM or NIfTI and ``btkeras[medical]`` is not installed.
    """
    name = name or ("the image" if isinstance(source, bytes) else str(source))
    data = source if isinstance(source, bytes) else read_bytes(source)
    # Imported here because they build on this module.
    from btkeras.data import dicom, nifti

    kind = sniff(data)
    if kind == "NIfTI" or nifti.is_gzipped_nifti(data):
        return nifti.open_nifti(data, name, axis)
    if kind not in FORMATS and dicom.is_dicom(data):
        return dicom.open_dicom(data, name)
    if kind not in FORMATS:
        raise ImageError(
            "An image must be a PNG or JPEG file, or DICOM, or NIfTI",
            received=f"{name}, which is {kind}",
            remedy=remedy_for(kind),
        )
    check_image(data, name)
    return Slices(kind, 1, lambda _: _decode(data, name))


def _decode(data: bytes, name: str) -> Picture:
    # Imported here because it loads TensorFlow, which only pictures need.
    from btkeras.data.decoder import decoded_picture

    return decoded_picture(data, name)
