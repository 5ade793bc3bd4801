"""Reader of the FigShare brain tumour dataset (Cheng 2017, doi 10.6084/m9.figshare.1512427).

Each slice is one MATLAB v7.3 file, which is HDF5 behind a block of 512 bytes. MATLAB stores arrays column by
column, so HDF5 shows them transposed. ``cvind.mat`` beside the slices is the authors' patient-wise fold of each.
"""

from __future__ import annotations

import contextlib
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from btkeras.errors import DataError, ImageError
from btkeras.preprocessing.image_file import MAX_PIXELS, MIN_SIDE, damaged, sniff

CVIND = "cvind.mat"
FOLDS = 5
LABELS = {1: "meningioma", 2: "glioma", 3: "pituitary"}
FIELDS = ("image", "label", "PID", "tumorMask")

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_HDF5_STARTS = (0, 512, 1024, 2048)
_MATLAB_V5 = b"MATLAB 5"
# What h5py and scipy raise on a file whose inside is broken.
_DAMAGE = (OSError, KeyError, ValueError, TypeError, RuntimeError, EOFError, IndexError, OverflowError, zlib.error)


@dataclass(frozen=True, eq=False)
class FigShareSlice:
    """One slice, upright.

    Attributes:
        image: (height, width) integers as the scanner gave them, int16 in the published files.
        mask: (height, width) bool, True inside the tumour.
        label: The tumour's class.
        patient: Identifier of the patient, never empty.
    """

    image: NDArray[np.integer]
    mask: NDArray[np.bool_]
    label: str
    patient: str


def read_slice(data: bytes, name: str = "the slice") -> FigShareSlice:
    """Reads the content of one slice's ``.mat`` file.

    Args:
        data: The whole file.
        name: What error messages call it.

    Raises:
        ImageError: If it is no MATLAB v7.3 file, is damaged, lacks one of ``FIELDS``, or a field is not valid.
    """
    with _hdf5(data, name) as file:
        fields = {field: _read(file, f"cjdata/{field}", name) for field in FIELDS}
    image = _image(fields["image"], name)
    mask = fields["tumorMask"]
    if mask.shape != image.shape:
        raise ImageError(
            "A tumour mask must be as large as its image",
            received=f"{name} with cjdata/tumorMask {mask.shape[::-1]} and cjdata/image {image.shape[::-1]}",
            remedy="Get the file again",
        )
    return FigShareSlice(image.T, mask.T != 0, _label(fields["label"], name), _patient(fields["PID"], name))


def read_cvind(data: bytes, name: str = CVIND) -> tuple[int, ...]:
    """Reads ``cvind.mat``, MATLAB v7.3 or v5: the fold (1 to 5) of slice 1, of slice 2, and so on.

    Raises:
        DataError: If the file is damaged, has no ``cvind``, or a fold is not 1 to 5.
    """
    values = _cvind_v5(data, name) if data.startswith(_MATLAB_V5) else _cvind_v73(data, name)
    folds = values.ravel()
    if folds.dtype.kind not in "iuf" or not folds.size or not np.isin(folds, range(1, FOLDS + 1)).all():
        raise DataError(
            f"The folds in {CVIND} must be whole numbers from 1 to {FOLDS}",
            received=f"{name} with {np.unique(folds)[:8].tolist()}",
            remedy="Get the file again, or leave it out",
        )
    return tuple(int(fold) for fold in folds)


@contextlib.contextmanager
def _hdf5(data: bytes, name: str) -> Iterator[h5py.File]:
    if not any(data.startswith(_HDF5_MAGIC, start) for start in _HDF5_STARTS):
        if data.startswith(b"MATLAB 7.3"):
            raise damaged(name, "it ends within its header")
        raise ImageError(
            "A FigShare file must be MATLAB v7.3 (HDF5)",
            received=f"{name}, which is {sniff(data)}",
            remedy="Save it in MATLAB with '-v7.3', or get it again",
        )
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            yield file
    except _DAMAGE as error:
        raise damaged(name, error) from error


def _read(file: h5py.File, path: str, name: str) -> NDArray[Any]:
    dataset = file.get(path)
    if not isinstance(dataset, h5py.Dataset):
        raise ImageError(
            f"A FigShare slice must have the fields {', '.join(f'cjdata/{field}' for field in FIELDS)}",
            received=f"{name} without {path}",
            remedy="Get the file again, or remove it",
        )
    if dataset.attrs.get("MATLAB_empty") or dataset.shape is None:
        # MATLAB writes an empty array's size where other arrays have their values.
        return np.zeros(0)
    if dataset.size > MAX_PIXELS:
        # Compressed HDF5 can announce any size in a few bytes; this is checked before memory is asked for.
        raise ImageError(
            f"A field of a slice must have at most {MAX_PIXELS / 1e6:.0f} million values",
            received=f"{name} with {path} {dataset.shape}",
        )
    return np.asarray(dataset[()])


def _image(values: NDArray[Any], name: str) -> NDArray[np.integer]:
    if values.ndim != 2 or min(values.shape) < MIN_SIDE or values.dtype.kind not in "iu" or values.itemsize > 4:
        raise ImageError(
            f"cjdata/image must be a matrix of integers of up to 32 bits, at least {MIN_SIDE} x {MIN_SIDE}",
            received=f"{name} with {values.dtype} {values.shape[::-1]}",
            remedy="Get the file again, or remove it",
        )
    return values


def _label(values: NDArray[Any], name: str) -> str:
    if values.size != 1 or values.dtype.kind not in "iuf" or values.item() not in LABELS:
        meanings = ", ".join(f"{number} ({label})" for number, label in LABELS.items())
        raise ImageError(
            f"cjdata/label must be one of {meanings}",
            received=f"{name} with {values.ravel()[:4].tolist()}",
            remedy="Correct or remove the file",
        )
    return LABELS[int(values.item())]


def _patient(values: NDArray[Any], name: str) -> str:
    if values.size and (values.dtype.kind != "u" or values.max() > 0xFFFF):
        raise ImageError(
            "cjdata/PID must be text (UTF-16 character codes)", received=f"{name} with {values.dtype} {values.shape}"
        )
    # MATLAB's own order: HDF5 shows it transposed, which matters only if the text has several rows.
    text = values.T.astype("<u2").tobytes(order="F").decode("utf-16-le", errors="replace").strip(" \t\r\n\0")
    if not text or not text.isprintable() or "\ufffd" in text:
        raise ImageError(
            "cjdata/PID must name the patient", received=f"{name} with {text!r}", remedy="Correct or remove the file"
        )
    return text


def _cvind_v73(data: bytes, name: str) -> NDArray[Any]:
    with _hdf5(data, name) as file:
        dataset = file.get("cvind")
        if not isinstance(dataset, h5py.Dataset) or not dataset.size or dataset.size > MAX_PIXELS:
            raise _no_cvind(name, sorted(file))
        return np.asarray(dataset[()])


def _cvind_v5(data: bytes, name: str) -> NDArray[Any]:
    # Imported here because only this old kind of file needs it, and it is slow to import.
    from scipy.io import loadmat

    try:
        variables = loadmat(io.BytesIO(data))
    except _DAMAGE as error:
        raise damaged(name, error) from error
    if "cvind" not in variables:
        raise _no_cvind(name, sorted(key for key in variables if not key.startswith("__")))
    return np.asarray(variables["cvind"])


def _no_cvind(name: str, found: list[str]) -> DataError:
    return DataError(
        f"{CVIND} must hold the variable cvind",
        received=f"{name} with {', '.join(found) or 'no variable'}",
        remedy="Get the file again, or leave it out",
    )
