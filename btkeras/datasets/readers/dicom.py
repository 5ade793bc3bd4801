"""DICOM files to slices: what is read of the header, what is refused, and the frames as a viewer shows them.

Of the header only the tags below are parsed, so that a patient's name never is. Sizes are kept as stored (pixels
that are not square stay so, as in a PNG), overlays are ignored, and colour stays colour, of which the guard decides.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.datasets.readers.base import Slices, quiet, require
from btkeras.datasets.readers.dicom_pixels import stored_values
from btkeras.datasets.readers.dicom_windowing import grey_levels
from btkeras.errors import ImageError
from btkeras.preprocessing.image_file import MAX_BYTES, MAX_PIXELS, MIN_SIDE, damaged

MAX_FRAMES = 4096

_PIXELS = (
    "Modality", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation",
    "PlanarConfiguration", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData",
    "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence",
    "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
_IDENTITY = ("PatientID", "SeriesInstanceUID", "InstanceNumber", "BurnedInAnnotation")
# What odd values raise where numbers are made of them.
_UNUSABLE = (TypeError, ValueError, AttributeError, OverflowError, LookupError)
# Not images, though some of them have pixels.
_NO_IMAGES = frozenset(
    {
        "SR",
        "SEG",
        "PR",
        "KO",
        "RTSTRUCT",
        "RTPLAN",
        "RTDOSE",
        "RTRECORD",
        "REG",
        "FID",
        "RWV",
        "AU",
        "ECG",
        "DOC",
        "PLAN",
    }
)
# What says nothing of the scanner: nothing, "other", and a screen's image.
_MAY_BE_MR = frozenset({"", "MR", "OT", "SC"})
_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
_COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
_EXPLICIT, _DEFLATED = b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.1.99"
# The types of elements that a bare file may begin with.
_VR = frozenset({b"UL", b"UI", b"CS", b"OB", b"SH", b"DA", b"TM", b"LO", b"SQ", b"AE"})


@dataclass(frozen=True)
class Identity:
    """Whose and which a file is, in clear text: never to be written anywhere.

    Attributes:
        patient: The patient's id, "" where unknown.
        series: The series' UID, "" where unknown.
        instance: The file's number in its series, None where unknown.
        burned_in: Whether the header says that the pixels hold text about the patient.
    """

    patient: str
    series: str
    instance: int | None
    burned_in: bool


def is_dicom(data: bytes) -> bool:
    """Whether bytes begin a DICOM file, with the usual preamble or bare."""
    if data[128:132] == b"DICM":
        return True
    if len(data) < 64:
        return False
    # A bare one begins with an element of group 2 or 8: explicit with its type, implicit with a short length.
    for order in "<>":
        group, element = struct.unpack_from(f"{order}HH", data)
        (length,) = struct.unpack_from("<I", data, 4)
        if group in (2, 8) and element <= 0x0070:
            return data[4:6] in _VR or (order == "<" and 0 < length <= 64)
    return False


def open_dicom(data: bytes, name: str) -> Slices:
    """Opens a DICOM file's frames.

    Args:
        data: The file.
        name: What messages call it.

    Raises:
        ImageError: If it holds no image, is broken, or is of a kind that is not read.
        MissingExtraError: If pydicom is not installed.
    """
    return _slices(_parsed(data, name, _PIXELS), name)


def read_dicom(data: bytes, name: str) -> tuple[Slices, Identity]:
    """Does the same, and says whose the file is."""
    dataset = _parsed(data, name, (*_PIXELS, *_IDENTITY))
    number = dataset.get("InstanceNumber")
    identity = Identity(
        str(dataset.get("PatientID") or "").strip(),
        str(dataset.get("SeriesInstanceUID") or "").strip(),
        None if number in (None, "") else int(number),
        str(dataset.get("BurnedInAnnotation") or "").upper() == "YES",
    )
    return _slices(dataset, name), identity


def _parsed(data: bytes, name: str, tags: tuple[str, ...]) -> Any:
    pydicom = require("pydicom", "DICOM")
    with quiet():
        try:
            dataset = pydicom.dcmread(io.BytesIO(_inflated(data, name)), force=True, specific_tags=list(tags))
            # Elements are parsed when asked for; broken ones shall be found here.
            for element in dataset.iterall():
                _ = element.value
        except ImageError:
            raise
        except Exception as error:  # What a parser of thirty types raises on broken bytes has no list.
            # Its words may quote the header.
            raise damaged(name, type(error).__name__) from error
    return dataset


def _inflated(data: bytes, name: str) -> bytes:
    """A deflated file as an uncompressed one; pydicom would inflate all there is, however much that be."""
    if _DEFLATED not in data:
        return data
    if data[128:132] == b"DICM" and len(data) > 144:
        # The first element of the meta group says how long the rest of it is.
        end = 144 + int.from_bytes(data[140:144], "little")
        try:
            rest = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[end:], MAX_BYTES + 1)
        except zlib.error as error:
            raise damaged(name, error) from error
        if len(rest) > MAX_BYTES:
            raise ImageError(f"A DICOM file must inflate to at most {MAX_BYTES // 2**20} MiB", received=name)
        data = data[:end] + rest
    # Everywhere, so that no trick in the header can make pydicom inflate.
    return data.replace(_DEFLATED, _EXPLICIT.ljust(len(_DEFLATED), b"\0"))


def _slices(dataset: Any, name: str) -> Slices:
    try:
        count = _checked(dataset, name)
    except _UNUSABLE as error:
        raise damaged(name, "its header's sizes are not usable") from error
    modality = str(dataset.get("Modality") or "").strip().upper()
    rejection = None if modality in _MAY_BE_MR else f"the file says {modality[:16]}, not MR"

    def image(index: int) -> NDArray[np.uint8]:
        values = stored_values(dataset, index, name)
        if values.ndim == 3:
            return values.astype(np.uint8)
        try:
            return grey_levels(values, dataset, index, name)[..., None]
        except _UNUSABLE as error:
            raise damaged(name, "what it says of its grey levels is not usable") from error

    return Slices("DICOM", count, image, rejection)


def _checked(dataset: Any, name: str) -> int:
    """Checks the image pixel module and returns the number of frames."""
    modality = str(dataset.get("Modality") or "").strip().upper()
    if modality in _NO_IMAGES or not dataset.get("PixelData") or not dataset.get("Rows"):
        what = f"{name}, of the kind {modality}" if modality.isalnum() else f"{name} without any"
        raise ImageError("A DICOM file must hold an image", received=what, remedy="Give the images of the series")
    rows, columns, count = int(dataset.Rows), int(dataset.Columns), int(dataset.get("NumberOfFrames") or 1)
    if min(rows, columns) < MIN_SIDE or rows * columns > MAX_PIXELS or not 0 < count <= MAX_FRAMES:
        raise ImageError(
            f"A DICOM file must have up to {MAX_FRAMES} frames of at least {MIN_SIDE} x {MIN_SIDE} and at most "
            f"{MAX_PIXELS / 1e6:.0f} million pixels",
            received=f"{name} with {count} of {columns} x {rows}",
        )
    samples, allocated, stored = (int(dataset[key].value) for key in ("SamplesPerPixel", "BitsAllocated", "BitsStored"))
    meaning = str(dataset.PhotometricInterpretation)
    # pydicom's own check of the rest needs it, and files of one sample may lack it.
    dataset.PixelRepresentation = int(dataset.get("PixelRepresentation") or 0)
    high = int(dataset.get("HighBit", stored - 1))
    grey = samples == 1 and meaning in _GREY and allocated in (8, 16, 32) and 1 < stored <= allocated
    color = samples == 3 and meaning in _COLOUR and allocated == stored == 8
    if not (grey or color) or high != stored - 1:
        raise ImageError(
            "A DICOM image must be grey of up to 32 bits, or colour of 8 bits a sample",
            received=f"{name} with {samples} x {stored} of {allocated} bits up to bit {high}, {meaning[:16]!r}",
            remedy="Export it as grey, or as PNG",
        )
    return count
