"""Which reader a file asks for, by its content; another reader for ``predict`` and ``serve`` is called here.

``btkeras.datasets.convert`` makes the same choice for ``prepare``, which also reads masks, patients and BMP and TIFF.
"""

from __future__ import annotations

from pathlib import Path

from btkeras.datasets.dataset import IMAGE_SUFFIXES
from btkeras.datasets.readers import DICOM_SUFFIXES, VOLUME_SUFFIXES, Slices, check, dicom, nifti
from btkeras.preprocessing.decode import decode
from btkeras.preprocessing.image_file import FORMATS, check_image, read_bytes, remedy_for, sniff

# The table of contents of a disc is DICOM, and no image.
_DICOM_INDEX = "dicomdir"


def has_slice_suffix(name: str) -> bool:
    """Whether a file's name says that it holds slices: PNG, JPEG, DICOM or NIfTI."""
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


def open_slices(
    source: str | Path | bytes, name: str = "", axis: str | None = None, channel: int | None = None
) -> Slices:
    """Opens the slices of a file, or of its content, which says what kind it is; messages call it ``name``.

    ``axis`` is the view of a NIfTI volume, ``channel`` which of several volumes, as of ``open_nifti``.

    Raises:
        ImageError: If it cannot be read, is of another kind, or is broken.
        MissingExtraError: If it is DICOM or NIfTI and ``btkeras[medical]`` is not installed.
    """
    name = name or ("the image" if isinstance(source, bytes) else str(source))
    data = source if isinstance(source, bytes) else read_bytes(source)
    kind = sniff(data)
    if kind == "NIfTI" or nifti.is_gzipped_nifti(data):
        return nifti.open_nifti(data, name, axis, channel)
    if kind not in FORMATS and dicom.is_dicom(data):
        return dicom.open_dicom(data, name)
    rule = "An image must be a PNG or JPEG file, or DICOM, or NIfTI"
    check(kind in FORMATS, rule, f"{name}, which is {kind}", remedy_for(kind))
    check_image(data, name)
    return Slices(kind, 1, lambda _: decode(data, name))
