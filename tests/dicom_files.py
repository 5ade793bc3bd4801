"""DICOM files for tests, written by pydicom."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

NAME = "Nobody^Knows"


def dataset(pixels: Any, **attributes: Any) -> Dataset:
    """An MR image of these stored values, ``[h, w]``, ``[h, w, 3]``, or with frames before; attributes replace."""
    values = np.asarray(pixels)
    color = values.shape[-1] == 3
    rows, columns = values.shape[-3:-1] if color else values.shape[-2:]
    bits = values.dtype.itemsize * 8
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = MRImageStorage, generate_uid()
    made.Modality, made.PatientName, made.PatientID = "MR", NAME, "12345"
    made.Rows, made.Columns = rows, columns
    made.SamplesPerPixel, made.PhotometricInterpretation = (3, "RGB") if color else (1, "MONOCHROME2")
    if color:
        made.PlanarConfiguration = 0
    if values.ndim - color > 2:
        made.NumberOfFrames = values.shape[0]
    made.BitsAllocated = made.BitsStored = bits
    made.HighBit, made.PixelRepresentation = bits - 1, int(values.dtype.kind == "i")
    made.PixelData = values.astype(values.dtype.newbyteorder("<")).tobytes()
    for key, value in attributes.items():
        setattr(made, key, value)
    made.HighBit = attributes.get("HighBit", made.BitsStored - 1)
    return made


def written(made: Dataset, bare: bool = False) -> bytes:
    """The bytes of its file; a bare one has neither preamble nor meta information."""
    buffer = io.BytesIO()
    if bare:
        del made.file_meta
        made.save_as(buffer, implicit_vr=True, little_endian=True)
    else:
        made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def dicom(pixels: Any, **attributes: Any) -> bytes:
    """The bytes of a file with these stored values."""
    return written(dataset(pixels, **attributes))


def item(**attributes: Any) -> Dataset:
    """An item of a sequence."""
    made = Dataset()
    for key, value in attributes.items():
        setattr(made, key, value)
    return made


def stretched(values: Any) -> Any:
    """Grey levels of values without a window: the lowest and highest thousandth are cut off, halves go up."""
    ordered = np.sort(np.asarray(values, np.int64), axis=None)
    low, high = ordered[math.ceil(0.001 * (ordered.size - 1))], ordered[math.floor(0.999 * (ordered.size - 1))]
    grey = (np.clip(values, low, high).astype(np.int64) - low) * 510 + (high - low)
    return (grey // max(2 * (high - low), 1)).astype(np.uint8)
