"""DICOM files to slices, shown as a viewer shows them (DICOM PS3.3, C.7.6.3 and C.11).

Only the tags below are parsed, so that a patient's name never is. Sizes and color stay as stored; overlays are ignored.
Grey levels pass the modality LUT or rescale, the VOI LUT or (first) window, and the inversion of MONOCHROME1. Without a
window, 8 bits stay as they are, and more go from the 0.1 to the 99.9 percentile of the slice's values.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.datasets.readers import Slices, check, require
from btkeras.datasets.readers.dicom_identity import IDENTITY_TAGS, DicomIdentity, identity_of
from btkeras.datasets.readers.dicom_pixels import quiet, stored_values
from btkeras.errors import ImageError
from btkeras.preprocessing.decode import ImageArray, to_uint8
from btkeras.preprocessing.image_file import MAX_BYTES, MAX_PIXELS, MIN_SIDE, damaged

MAX_FRAMES = 4096

_PIXEL_TAGS = (
    "Modality", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation",
    "PlanarConfiguration", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData",
    "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence",
    "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
# What odd values raise where numbers are made of them.
_UNUSABLE = (TypeError, ValueError, AttributeError, OverflowError, LookupError)
# Modalities that are no images, though some have pixels.
_NO_IMAGES = (
    "SR", "SEG", "PR", "KO", "RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD", "REG", "FID", "RWV", "AU", "ECG", "DOC",
    "PLAN",
)  # fmt: skip
# What does not speak against MR: nothing, "other", and a screen's image.
_MAY_BE_MR = ("", "MR", "OT", "SC")
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_EXPLICIT, _DEFLATED = b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.1.99"
# The types of elements that a file without preamble may begin with.
_FIRST_TYPES = (b"UL", b"UI", b"CS", b"OB", b"SH", b"DA", b"TM", b"LO", b"SQ", b"AE")
# As for NIfTI. A hot pixel would make the slice nearly black.
_LOW, _HIGH = 0.1, 99.9
_WINDOW_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")

_Floats = NDArray[np.float64]


def is_dicom(data: bytes) -> bool:
    """Whether bytes begin a DICOM file, with or without the usual preamble."""
    if data[128:132] == b"DICM":
        return True
    if len(data) < 64:
        return False
    # Without it, the first element is of group 2 or 8: explicit with its type, implicit with a short length.
    (length,) = struct.unpack_from("<I", data, 4)
    for order in "<>":
        group, element = struct.unpack_from(f"{order}HH", data)
        if group in (2, 8) and element <= 0x0070:
            return data[4:6] in _FIRST_TYPES or (order == "<" and 0 < length <= 64)
    return False


def open_dicom(data: bytes, name: str) -> Slices:
    """Opens the frames of a DICOM file's content; messages call it ``name``.

    Raises:
        ImageError: If it holds no image, is broken, or is of a kind that is not read.
        MissingExtraError: If pydicom is not installed.
    """
    return _slices(_parsed(data, name, _PIXEL_TAGS), name)


def read_dicom(data: bytes, name: str) -> tuple[Slices, DicomIdentity]:
    """Opens a DICOM file's frames and reads whose it is; errors as ``open_dicom``."""
    dataset = _parsed(data, name, (*_PIXEL_TAGS, *IDENTITY_TAGS))
    try:
        return _slices(dataset, name), identity_of(dataset)
    except _UNUSABLE as error:
        raise damaged(name, "what it says of its place is not usable") from error


def read_identity(head: bytes) -> DicomIdentity | None:
    """Reads whose a file is from its first bytes; None if they are no header that can be read."""
    pydicom = require("pydicom", "DICOM")
    with quiet():
        try:
            content = io.BytesIO(_inflated(head, ""))
            tags = list(IDENTITY_TAGS)
            return identity_of(pydicom.dcmread(content, force=True, stop_before_pixels=True, specific_tags=tags))
        except Exception:  # As in `_parsed`, which says what is wrong.
            return None


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
            # The error's message may quote the header.
            raise damaged(name, type(error).__name__) from error
    return dataset


def _inflated(data: bytes, name: str) -> bytes:
    """Inflates a deflated file, up to a limit that pydicom lacks."""
    if _DEFLATED not in data:
        return data
    if data[128:132] == b"DICM" and len(data) > 144:
        # The first element of the meta group says how long the rest of it is.
        end = 144 + int.from_bytes(data[140:144], "little")
        try:
            rest = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[end:], MAX_BYTES + 1)
        except zlib.error as error:
            raise damaged(name, error) from error
        check(len(rest) <= MAX_BYTES, f"A DICOM file must inflate to at most {MAX_BYTES // 2**20} MiB", name)
        data = data[:end] + rest
    # Everywhere, so that no trick in the header can make pydicom inflate.
    return data.replace(_DEFLATED, _EXPLICIT.ljust(len(_DEFLATED), b"\0"))


def _slices(dataset: Any, name: str) -> Slices:
    modality = str(dataset.get("Modality") or "").strip().upper()
    try:
        with quiet():
            count = _check_size(dataset, modality, name)
            _check_pixel_format(dataset, name)
    except _UNUSABLE as error:
        raise damaged(name, "its header's sizes are not usable") from error

    def image(index: int) -> ImageArray:
        values = stored_values(dataset, index, name)
        if values.ndim == 3:
            return values.astype(np.uint8)
        try:
            return _grey_levels(values, dataset, index, name)[..., None]
        except _UNUSABLE as error:
            raise damaged(name, "what it says of its grey levels is not usable") from error

    rejection = None if modality in _MAY_BE_MR else f"the file says {modality[:16]}, not MR"
    return Slices("DICOM", count, image, rejection)


def _check_size(dataset: Any, modality: str, name: str) -> int:
    """Returns the number of frames."""
    has_image = modality not in _NO_IMAGES and dataset.get("PixelData") and dataset.get("Rows")
    found = f"{name}, of the kind {modality}" if modality.isalnum() else f"{name} without any"
    check(has_image, "A DICOM file must hold an image", found, "Give the images of the series")
    rows, columns, count = int(dataset.Rows), int(dataset.Columns), int(dataset.get("NumberOfFrames") or 1)
    valid = min(rows, columns) >= MIN_SIDE and rows * columns <= MAX_PIXELS and 0 < count <= MAX_FRAMES
    limits = f"frames of at least {MIN_SIDE} x {MIN_SIDE} and at most {MAX_PIXELS / 1e6:.0f} million pixels"
    check(valid, f"A DICOM file must have up to {MAX_FRAMES} {limits}", f"{name} with {count} of {columns} x {rows}")
    return count


def _check_pixel_format(dataset: Any, name: str) -> None:
    samples, allocated, stored = (int(dataset[key].value) for key in ("SamplesPerPixel", "BitsAllocated", "BitsStored"))
    meaning = str(dataset.PhotometricInterpretation)
    # pydicom's own check of the rest needs it, and files of one sample may lack it.
    dataset.PixelRepresentation = int(dataset.get("PixelRepresentation") or 0)
    high = int(dataset.get("HighBit", stored - 1))
    grey = samples == 1 and meaning in _GREY and allocated in (8, 16, 32) and 1 < stored <= allocated
    color = samples == 3 and meaning in _COLOR and allocated == stored == 8
    rule = "A DICOM image must be grey of up to 32 bits, or color of 8 bits a sample"
    found = f"{name} with {samples} x {stored} of {allocated} bits up to bit {high}, {meaning[:16]!r}"
    check((grey or color) and high == stored - 1, rule, found, "Export it as grey, or as PNG")


@np.errstate(all="ignore")
def _grey_levels(values: NDArray[np.integer], dataset: Any, index: int, name: str) -> ImageArray:
    """Maps a frame's stored values ``[rows, columns]`` to grey; padding becomes black."""
    scale = _frame_item(dataset, index, "PixelValueTransformationSequence")
    view = _frame_item(dataset, index, "FrameVOILUTSequence")
    modality_luts = dataset.get("ModalityLUTSequence")
    slope, intercept = (1.0, 0.0) if modality_luts else _rescale(scale, name)
    rescaled = values.astype(np.float64) * slope + intercept
    if modality_luts:
        rescaled, _ = _look_up(rescaled, modality_luts[0], dataset)
    padding = _padding(values, dataset)
    if view.get("VOILUTSequence"):
        shown, depth = _look_up(rescaled, view.VOILUTSequence[0], dataset)
        grey = np.floor(shown * (255 / (2**depth - 1)) + 0.5).astype(np.uint8)
    elif window := _window(view):
        grey = np.floor(_apply_window(rescaled, *window) + 0.5).astype(np.uint8)
    elif modality_luts:
        grey = _full_contrast(rescaled.astype(np.int64), padding)
    elif int(dataset.BitsStored) <= 8 and slope > 0 and not dataset.PixelRepresentation:
        grey = values.astype(np.uint8)
    else:
        # A line keeps the order of values, or turns it.
        grey = _full_contrast(values.astype(np.int64) * (1 if slope > 0 else -1), padding)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        grey = 255 - grey
    return grey if padding is None else np.where(padding, np.uint8(0), grey)


def _full_contrast(values: NDArray[np.int64], padding: NDArray[np.bool_] | None) -> ImageArray:
    """From one value outside the padding to another, those of the percentiles, whatever a few pixels have."""
    seen = values if padding is None or padding.all() else values[~padding]
    # A pixel's own value, so that of few pixels the highest and the lowest are left out too.
    low, high = np.percentile(seen, _LOW, method="higher"), np.percentile(seen, _HIGH, method="lower")
    return to_uint8(np.clip(values, int(low), int(high)))


def _rescale(source: Any, name: str) -> tuple[float, float]:
    slope, intercept = _number(source.get("RescaleSlope"), 1.0), _number(source.get("RescaleIntercept"), 0.0)
    if not (math.isfinite(slope) and math.isfinite(intercept) and slope):
        raise damaged(name, "its rescale slope and intercept are not usable")
    return slope, intercept


def _window(source: Any) -> tuple[float, float, str] | None:
    """Center, width and function; None if they are missing or not valid."""
    center, width = (_number(source.get(key), math.nan) for key in ("WindowCenter", "WindowWidth"))
    function = str(source.get("VOILUTFunction") or "LINEAR").upper()
    function = function if function in _WINDOW_FUNCTIONS else "LINEAR"
    valid = width >= 1 if function == "LINEAR" else width > 0
    return (center, width, function) if valid and math.isfinite(center) and math.isfinite(width) else None


def _apply_window(values: _Floats, center: float, width: float, function: str) -> _Floats:
    """DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3, with an output of 0 to 255."""
    if function == "SIGMOID":
        return 255 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return np.where(values > center, 255.0, 0.0)
    return np.clip(((values - center) / width + 0.5) * 255, 0, 255)


def _look_up(values: _Floats, item: Any, dataset: Any) -> tuple[_Floats, int]:
    """Values through a LUT of the dataset, and the LUT's depth in bits."""
    count, first, depth = (int(number) for number in item.LUTDescriptor)
    count, table = count or 2**16, item.LUTData
    if isinstance(table, bytes):
        # Words in the file's order of bytes, of which entries of 8 bits share one.
        table = table if dataset.original_encoding[1] is not False else _swapped(table)
        table = np.frombuffer(table, "<u2" if len(table) >= 2 * count else "u1")
    entries = np.asarray(table, np.float64).ravel()[:count]
    if not entries.size or not 8 <= depth <= 16:
        raise ValueError("a LUT without entries or depth")
    places = np.clip(np.rint(values) - first, 0, entries.size - 1)
    return np.clip(entries[places.astype(np.int64)], 0, 2**depth - 1), depth


def _swapped(words: bytes) -> bytes:
    return np.frombuffer(words, ">u2").astype("<u2").tobytes()


def _padding(values: NDArray[np.integer], dataset: Any) -> NDArray[np.bool_] | None:
    """Where the frame was padded (C.7.5.1.1.2); None if nowhere."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if limit is None else limit)))
    padding = (values >= low) & (values <= high)
    return padding if padding.any() else None


def _frame_item(dataset: Any, index: int, sequence: str) -> Any:
    """The item of a functional group, of the frame or shared by all; the dataset itself if there is none."""
    frames, shared = (dataset.get(f"{name}FunctionalGroupsSequence") or [] for name in ("PerFrame", "Shared"))
    groups = (*frames[index : index + 1], *shared[:1])
    return next((items[0] for group in groups if (items := group.get(sequence))), dataset)


def _number(value: Any, default: float) -> float:
    """The first number of an attribute of one or several."""
    if isinstance(value, str) or not hasattr(value, "__len__"):
        return default if value in (None, "") else float(value)
    return float(value[0]) if len(value) else default
