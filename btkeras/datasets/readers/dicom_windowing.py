"""Stored values of a DICOM frame to grey levels as a viewer shows them: DICOM PS3.3, C.7.6.3 and C.11.

In this order: modality LUT or rescale; VOI LUT or window, the first if there are several; inversion of MONOCHROME1.
Where a file says nothing of what to show, it is treated as the PNG of its values would be: 8 bits as they are, more
from their lowest to their highest value.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.preprocessing.decode import to_uint8
from btkeras.preprocessing.image_file import damaged

Floats = NDArray[np.float64]

_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


def grey_levels(values: NDArray[np.integer], dataset: Any, index: int, name: str) -> NDArray[np.uint8]:
    """Maps one frame's stored values to grey.

    Args:
        values: ``[rows, columns]``.
        dataset: Of the frame's file.
        index: Of the frame, whose functional groups (enhanced MR) count before the file's attributes.
        name: What error messages call the file.

    Returns:
        uint8 ``[rows, columns]``. Padding is black.

    Raises:
        ImageError: If the rescaling is not a pair of numbers.
    """
    padding = _padding(values, dataset)
    grey = _windowed(values, dataset, index, name)
    if grey is None:
        grey = _unwindowed(values, padding, dataset, index, name)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        grey = 255 - grey
    return np.where(padding, np.uint8(0), grey) if padding is not None else grey


def _windowed(values: NDArray[np.integer], dataset: Any, index: int, name: str) -> NDArray[np.uint8] | None:
    source = _frame_item(dataset, index, "FrameVOILUTSequence") or dataset
    luts, window = source.get("VOILUTSequence"), _window(source)
    if luts:
        shown, depth = _look_up(_rescaled(values, dataset, index, name), luts[0])
        return _rounded(shown * (255 / (2**depth - 1)))
    return _rounded(apply_window(_rescaled(values, dataset, index, name), *window)) if window else None


def apply_window(values: Floats, center: float, width: float, function: str) -> Floats:
    """DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3, with an output of 0 to 255."""
    if function == "SIGMOID":
        return 255 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return np.where(values > center, 255.0, 0.0)
    return np.clip(((values - center) / width + 0.5) * 255, 0, 255)


def _unwindowed(
    values: NDArray[np.integer], padding: NDArray[np.bool_] | None, dataset: Any, index: int, name: str
) -> NDArray[np.uint8]:
    if dataset.get("ModalityLUTSequence"):
        values = _rescaled(values, dataset, index, name).astype(np.int64)
        falling, bits = False, 16
    else:
        # A line keeps the order of values, or turns it.
        falling, bits = _rescale(dataset, index, name)[0] < 0, int(dataset.BitsStored)
    if bits <= 8 and not falling and not dataset.PixelRepresentation:
        return values.astype(np.uint8)
    shown = -values.astype(np.int64) if falling else values.astype(np.int64)
    if padding is not None and not padding.all():
        shown = np.where(padding, shown[~padding].min(), shown)
    return to_uint8(shown)


def _rescaled(values: NDArray[np.integer], dataset: Any, index: int, name: str) -> Floats:
    luts = dataset.get("ModalityLUTSequence")
    if luts:
        return _look_up(values.astype(np.float64), luts[0])[0]
    slope, intercept = _rescale(dataset, index, name)
    return values.astype(np.float64) * slope + intercept


def _rescale(dataset: Any, index: int, name: str) -> tuple[float, float]:
    source = _frame_item(dataset, index, "PixelValueTransformationSequence") or dataset
    slope, intercept = _number(source.get("RescaleSlope"), 1.0), _number(source.get("RescaleIntercept"), 0.0)
    if not (math.isfinite(slope) and math.isfinite(intercept) and slope):
        raise damaged(name, "its rescale slope and intercept are not usable")
    return slope, intercept


def _window(source: Any) -> tuple[float, float, str] | None:
    """Centre, width and function; None if they are missing or mean nothing."""
    center, width = (_number(source.get(key), math.nan) for key in ("WindowCenter", "WindowWidth"))
    function = str(source.get("VOILUTFunction") or "LINEAR").upper()
    function = function if function in _FUNCTIONS else "LINEAR"
    smallest = width >= 1 if function == "LINEAR" else width > 0
    return (center, width, function) if smallest and math.isfinite(center) and math.isfinite(width) else None


def _look_up(values: Floats, item: Any) -> tuple[Floats, int]:
    """Values through a LUT, and the LUT's depth in bits."""
    count, first, depth = (int(number) for number in item.LUTDescriptor)
    count, table = count or 2**16, item.LUTData
    if isinstance(table, bytes):
        table = np.frombuffer(table, "<u2" if len(table) >= 2 * count else "u1")
    entries = np.asarray(table, np.float64).ravel()[:count]
    if not entries.size or not 8 <= depth <= 16:
        raise ValueError("a LUT without entries or depth")
    places = np.clip(np.rint(values) - first, 0, entries.size - 1)
    return np.clip(entries[places.astype(np.int64)], 0, 2**depth - 1), depth


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
    """The item of a functional group, of the frame or shared by all; None if there is none."""
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    for group in (*frames[index : index + 1], *(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]):
        items = group.get(sequence)
        if items:
            return items[0]
    return None


def _number(value: Any, default: float) -> float:
    """The first number of an attribute of one or several."""
    if isinstance(value, str) or not hasattr(value, "__len__"):
        return default if value in (None, "") else float(value)
    return float(value[0]) if len(value) else default


def _rounded(values: Floats) -> NDArray[np.uint8]:
    return np.floor(values + 0.5).astype(np.uint8)
