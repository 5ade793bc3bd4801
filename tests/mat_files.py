"""Small MATLAB v7.3 files as the FigShare dataset has them, written the way MATLAB writes them."""

from __future__ import annotations

import io
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

_USERBLOCK = 512
_CLASSES = {"float64": "double", "float32": "single", "bool": "logical"}


def mat73(variables: dict[str, Any]) -> bytes:
    """Encodes a MATLAB v7.3 file: HDF5 behind MATLAB's own header, arrays transposed, text as character codes.

    Args:
        variables: Path in the file (``cjdata/image``) to a matrix, a number or a text.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=_USERBLOCK) as file:
        for path, value in variables.items():
            if isinstance(value, str):
                _write(file, path, np.frombuffer(value.encode("utf-16-le"), "<u2")[None], "char")
            else:
                _write(file, path, np.atleast_2d(np.asarray(value)))
    header = b"MATLAB 7.3 MAT-file, Platform: PCWIN64, Created on: Sun Apr 02 12:00:00 2017 HDF5 schema 1.00 ."
    header = header.ljust(124) + b"\x00\x02IM"
    return header.ljust(_USERBLOCK, b"\0") + buffer.getvalue()[_USERBLOCK:]


def _write(file: h5py.File, path: str, value: NDArray[Any], kind: str = "") -> None:
    kind = kind or _CLASSES.get(str(value.dtype), str(value.dtype))
    if kind == "logical":
        value = value.astype(np.uint8)
    if value.size:
        dataset = file.create_dataset(path, data=value.T, compression="gzip" if value.size > 99 else None)
    else:
        # MATLAB writes the size of an empty array in place of its values.
        dataset = file.create_dataset(path, data=np.array(value.shape, np.uint64))
        dataset.attrs["MATLAB_empty"] = np.uint8(1)
    dataset.attrs["MATLAB_class"] = np.bytes_(kind)


def mat5(*, compress: bool = True, **variables: object) -> bytes:
    """Encodes a MATLAB v5 file; a dictionary becomes a struct."""
    buffer = io.BytesIO()
    savemat(buffer, variables, do_compression=compress)
    return buffer.getvalue()


def slice_mat5(compress: bool = True, **changed: Any) -> bytes:
    """One slice as a MATLAB v5 file; changed fields by their names, ``PID``, ``image``, ..."""
    fields = {path.removeprefix("cjdata/"): value for path, value in slice_fields().items()}
    return mat5(compress=compress, cjdata=fields | changed)


def slice_fields(
    image: NDArray[Any] | None = None, label: float = 1, patient: str = "100360", mask: NDArray[Any] | None = None
) -> dict[str, Any]:
    """The variables of one slice; 24 x 32 pixels, with a tumour at rows 4..9 and columns 8..23, unless given."""
    if image is None:
        image = np.arange(24 * 32, dtype=np.int16).reshape(24, 32)
    if mask is None:
        mask = np.zeros(image.shape, np.uint8)
        mask[4:10, 8:24] = 1
    border = np.array([[8.0, 4.0, 24.0, 4.0, 24.0, 10.0]])
    return {
        "cjdata/PID": patient,
        "cjdata/image": image,
        "cjdata/label": float(label),
        "cjdata/tumorBorder": border,
        "cjdata/tumorMask": mask,
    }


def slice_mat(
    image: NDArray[Any] | None = None, label: float = 1, patient: str = "100360", mask: NDArray[Any] | None = None
) -> bytes:
    """Encodes one slice's ``.mat`` file."""
    return mat73(slice_fields(image, label, patient, mask))
