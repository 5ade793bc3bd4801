"""Files of one slice or many behind one interface: PNG, JPEG, DICOM and NIfTI, told apart by their content."""

from __future__ import annotations

from pathlib import Path

from btkeras.datasets.dataset import IMAGE_SUFFIXES
from btkeras.datasets.readers import dicom, nifti
from btkeras.datasets.readers.base import DICOM_SUFFIXES, VOLUME_SUFFIXES, Slices
from btkeras.errors import ImageError
from btkeras.preprocessing.image_file import FORMATS, check_image, read_bytes, remedy_for, sniff
from btkeras.preprocessing.preprocessor import decode_checked

# The table of contents of a disc has the same beginning.
_DICOM_INDEX = "dicomdir"


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
    return Slices(kind, 1, lambda _: decode_checked(data, name))
