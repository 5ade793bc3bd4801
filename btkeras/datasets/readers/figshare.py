"""The files of the FigShare brain tumour dataset (Cheng 2017, doi 10.6084/m9.figshare.1512427).

Each slice is one MATLAB file; ``cvind.mat`` beside the slices has the authors' patient-wise fold of each.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btkeras.datasets.readers import check
from btkeras.datasets.readers.matlab import read_arrays
from btkeras.preprocessing.image_file import MIN_SIDE

CVIND = "cvind.mat"
FOLDS = 5
LABELS = {1: "meningioma", 2: "glioma", 3: "pituitary"}
FIELDS = ("image", "label", "PID", "tumorMask")

# Doubles of this size and beyond overflow when they are scaled.
_LARGEST = 1e300
_EXACT = 2**53
_REMEDY = "Get the file again, or leave it out"


class FigShareSlice(NamedTuple):
    """One slice, upright: its numbers ``[h, w]`` (int16 in the published files), its tumour's mask, class, patient."""

    image: NDArray[np.integer | np.floating]
    mask: NDArray[np.bool_]
    label: str
    patient: str


def read_slice(data: bytes, name: str = "the slice") -> FigShareSlice:
    """Reads the content of one slice's ``.mat`` file; ImageError, which calls it ``name``, if it is not valid.

    Beside the published files' types, image, label and mask may be of any type of numbers, and the patient's id too.
    """
    image, label, patient, mask = read_arrays(data, name, [f"cjdata/{field}" for field in FIELDS])
    floating = image.dtype.kind == "f"
    check(
        image.ndim == 2 and min(image.shape) >= MIN_SIDE and (floating or _is_integer(image)),
        f"cjdata/image must be a matrix of numbers, integers of up to 32 bits, at least {MIN_SIDE} x {MIN_SIDE}",
        f"{name} with {image.dtype} {image.shape}",
        _REMEDY,
    )
    finite = not floating or (np.isfinite(image).all() and float(np.abs(image).max()) < _LARGEST)
    check(finite, "cjdata/image must hold finite numbers", f"{name} with others", _REMEDY)
    check(
        mask.shape == image.shape,
        "A tumour mask must be as large as its image",
        f"{name} with cjdata/tumorMask {mask.shape} and cjdata/image {image.shape}",
        _REMEDY,
    )
    check(_is_whole(mask), "cjdata/tumorMask must hold whole numbers from 0", f"{name} with others", _REMEDY)
    check(
        label.size == 1 and label.dtype.kind in "iuf" and label.item() in LABELS,
        f"cjdata/label must be one of {', '.join(f'{number} ({meaning})' for number, meaning in LABELS.items())}",
        f"{name} with {label.ravel()[:4].tolist()}",
        _REMEDY,
    )
    return FigShareSlice(image, mask != 0, LABELS[int(label.item())], _patient(patient, name))


def read_cvind(data: bytes, name: str = CVIND) -> tuple[int, ...]:
    """Reads ``cvind.mat``: the fold (1 to 5) of slice 1, of slice 2, ...; ImageError if it is not valid."""
    (folds,) = read_arrays(data, name, ["cvind"])
    check(
        folds.size and folds.dtype.kind in "iuf" and np.isin(folds, range(1, FOLDS + 1)).all(),
        f"The folds in {CVIND} must be whole numbers from 1 to {FOLDS}",
        f"{name} with {np.unique(folds)[:8].tolist()}",
        _REMEDY,
    )
    return tuple(map(int, folds.ravel()))


def _is_integer(values: NDArray[Any]) -> bool:
    return values.dtype.kind in "iu" and values.itemsize <= 4


def _is_whole(values: NDArray[Any]) -> bool:
    """Whether all are whole numbers from 0, of whatever type; beyond 2**53 doubles do not hold each of them."""
    if values.dtype.kind not in "biuf":
        return False
    return bool(((values >= 0) & (values < _EXACT) & (values == np.floor(values))).all())


def _patient(values: NDArray[Any], name: str) -> str:
    if values.size == 1 and _is_whole(values):
        return str(int(values.item()))
    is_text = not values.size or values.dtype.kind == "U"
    check(is_text, "cjdata/PID must be text or a whole number", f"{name} with {values.dtype} {values.shape}", _REMEDY)
    text = "".join(values.ravel().tolist()).strip(" \t\r\n\0") if values.size else ""
    valid = text and text.isprintable() and "\ufffd" not in text
    check(valid, "cjdata/PID must name the patient", f"{name} with {text!r}", _REMEDY)
    return text
