"""Which reader a file asks for, by its content: for ``predict``, ``prepare`` and ``serve`` alike."""

from __future__ import annotations

from pathlib import Path

from btkeras.datasets.readers import Slices, dicom, nifti
from btkeras.datasets.readers.images import KINDS, decode_image, image_size
from btkeras.preprocessing.image_file import read_bytes, sniff

# Kinds of ``kind_of`` that are read.
READ = (*KINDS, "DICOM", "NIfTI")


def kind_of(data: bytes) -> str:
    """As ``sniff``, but finds NIfTI behind gzip and DICOM without preamble too; the first few kilobytes suffice."""
    kind = sniff(data)
    if kind == "gzip" and nifti.is_gzipped_nifti(data):
        return "NIfTI"
    return "DICOM" if kind == "of an unknown format" and dicom.is_dicom(data) else kind


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
    kind = kind_of(data)
    if kind == "NIfTI":
        return nifti.open_nifti(data, name, axis, channel)
    if kind == "DICOM":
        return dicom.open_dicom(data, name)
    image_size(data, name)
    return Slices(kind, 1, lambda _: decode_image(data, name))
