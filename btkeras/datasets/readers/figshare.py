"""The files of the FigShare brain tumour dataset (Cheng 2017, doi 10.6084/m9.figshare.1512427).

Each slice is one MATLAB v7.3 file, which is HDF5 behind a block of 512 bytes. MATLAB stores arrays column by column, so
HDF5 shows them transposed. ``cvind.mat`` beside the slices has the authors' patient-wise fold of each.
"""

from __future__ import annotations

import contextlib
import io
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from btkeras.datasets.readers import check
from btkeras.errors import ImageError
from btkeras.preprocessing.image_file import MAX_PIXELS, MIN_SIDE, damaged, sniff

CVIND = "cvind.mat"
FOLDS = 5
LABELS = {1: "meningioma", 2: "glioma", 3: "pituitary"}
FIELDS = ("image", "label", "PID", "tumorMask")

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_HDF5_STARTS = (0, 512, 1024, 2048)
# What h5py and scipy raise on a file whose inside is broken.
_DAMAGE = (OSError, KeyError, ValueError, TypeError, RuntimeError, EOFError, IndexError, OverflowError, zlib.error)


class FigShareSlice(NamedTuple):
    """One slice, upright: its integers ``[h, w]`` (int16 in the published files), its tumour's mask, class, patient."""

    image: NDArray[np.integer]
    mask: NDArray[np.bool_]
    label: str
    patient: str


def read_slice(data: bytes, name: str = "the slice") -> FigShareSlice:
    """Reads the content of one slice's ``.mat`` file; ImageError, which calls it ``name``, if it is not valid."""
    with _hdf5(data, name) as file:
        image, label, patient, mask = (_read(file, f"cjdata/{field}", name) for field in FIELDS)
    _check(
        image.ndim == 2 and min(image.shape) >= MIN_SIDE and image.dtype.kind in "iu" and image.itemsize <= 4,
        f"cjdata/image must be a matrix of integers of up to 32 bits, at least {MIN_SIDE} x {MIN_SIDE}",
        f"{name} with {image.dtype} {image.shape[::-1]}",
    )
    _check(
        mask.shape == image.shape,
        "A tumour mask must be as large as its image",
        f"{name} with cjdata/tumorMask {mask.shape[::-1]} and cjdata/image {image.shape[::-1]}",
    )
    _check(
        label.size == 1 and label.dtype.kind in "iuf" and label.item() in LABELS,
        f"cjdata/label must be one of {', '.join(f'{number} ({meaning})' for number, meaning in LABELS.items())}",
        f"{name} with {label.ravel()[:4].tolist()}",
    )
    return FigShareSlice(image.T, mask.T != 0, LABELS[int(label.item())], _patient(patient, name))


def read_cvind(data: bytes, name: str = CVIND) -> tuple[int, ...]:
    """Reads ``cvind.mat``, MATLAB v7.3 or v5: the fold (1 to 5) of slice 1, of slice 2, ...; ImageError if invalid."""
    opened = contextlib.nullcontext(_matlab_v5(data, name)) if data.startswith(b"MATLAB 5") else _hdf5(data, name)
    with opened as file:
        found = file.get("cvind")
        readable = isinstance(found, h5py.Dataset | np.ndarray) and found.size and found.size <= MAX_PIXELS
        _check(readable, f"{CVIND} must hold the variable cvind", f"{name} with {', '.join(file) or 'no variable'}")
        folds = np.asarray(file["cvind"][()]).ravel()
    _check(
        folds.dtype.kind in "iuf" and np.isin(folds, range(1, FOLDS + 1)).all(),
        f"The folds in {CVIND} must be whole numbers from 1 to {FOLDS}",
        f"{name} with {np.unique(folds)[:8].tolist()}",
    )
    return tuple(map(int, folds))


def _check(valid: object, rule: str, received: str) -> None:
    check(valid, rule, received, "Get the file again, or leave it out")


@contextlib.contextmanager
def _hdf5(data: bytes, name: str) -> Iterator[h5py.File]:
    if not any(data.startswith(_HDF5_MAGIC, start) for start in _HDF5_STARTS):
        if data.startswith(b"MATLAB 7.3"):
            raise damaged(name, "it ends within its header")
        remedy = "Save it in MATLAB with '-v7.3', or get it again"
        raise ImageError(
            "A FigShare file must be MATLAB v7.3 (HDF5)", received=f"{name}, which is {sniff(data)}", remedy=remedy
        )
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            yield file
    except _DAMAGE as error:
        raise damaged(name, error) from error


def _read(file: h5py.File, path: str, name: str) -> NDArray[Any]:
    dataset = file.get(path)
    if not isinstance(dataset, h5py.Dataset):
        fields = ", ".join(f"cjdata/{field}" for field in FIELDS)
        raise ImageError(f"A FigShare slice must have the fields {fields}", received=f"{name} without {path}")
    if dataset.attrs.get("MATLAB_empty") or dataset.shape is None:
        # MATLAB writes an empty array's size where other arrays have their values.
        return np.zeros(0)
    # Compressed HDF5 can announce any size in a few bytes.
    rule = f"A field of a slice must have at most {MAX_PIXELS / 1e6:.0f} million values"
    _check(dataset.size <= MAX_PIXELS, rule, f"{name} with {path} {dataset.shape}")
    return np.asarray(dataset[()])


def _patient(values: NDArray[Any], name: str) -> str:
    is_text = not values.size or (values.dtype.kind == "u" and values.max() <= 0xFFFF)
    _check(is_text, "cjdata/PID must be text (UTF-16 character codes)", f"{name} with {values.dtype} {values.shape}")
    # Transposed back, which matters only if the text has several rows.
    text = values.T.astype("<u2").tobytes(order="F").decode("utf-16-le", errors="replace").strip(" \t\r\n\0")
    valid = text and text.isprintable() and "\ufffd" not in text
    _check(valid, "cjdata/PID must name the patient", f"{name} with {text!r}")
    return text


def _matlab_v5(data: bytes, name: str) -> dict[str, Any]:
    # Slow to import, and only this old kind of file needs it.
    from scipy.io import loadmat

    try:
        variables = loadmat(io.BytesIO(data))
    except _DAMAGE as error:
        raise damaged(name, error) from error
    return {key: value for key, value in variables.items() if not key.startswith("__")}
