"""Arrays of MATLAB files, v7.3 (HDF5 behind a block of 512 bytes) and v5 to v7, as MATLAB shows them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from btkeras.datasets.readers import check
from btkeras.errors import ImageError
from btkeras.preprocessing.image_file import MAX_PIXELS, damaged, sniff

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_HDF5_STARTS = (0, 512, 1024, 2048)
_V5 = b"MATLAB 5"
# What h5py and scipy raise on a file whose inside is broken.
_DAMAGE = (
    *(OSError, KeyError, ValueError, TypeError, RuntimeError, EOFError, IndexError, OverflowError, AttributeError),
    *(MemoryError, zlib.error, struct.error),
)
# MAT-File Format, version 5: the header's length, and the type of an element that is compressed.
_V5_HEADER, _COMPRESSED = 128, 15
_MAX_INFLATED = 256 * 2**20
_REMEDY = "Get the file again, or leave it out"


def read_arrays(data: bytes, name: str, paths: Sequence[str]) -> list[NDArray[Any]]:
    """Reads a MATLAB file's arrays; messages call it ``name``.

    Args:
        data: The file's content.
        name: What messages call it.
        paths: Names of variables, or of fields of a struct: ``cjdata/image``.

    Returns:
        An array for each path, its rows and columns as in MATLAB; text is an array of strings, an empty array has no
        values.

    Raises:
        ImageError: If it is no such file, damaged, too large, or lacks one of them.
    """
    if data.startswith(_V5):
        return _v5_arrays(data, name, paths)
    if not any(data.startswith(_HDF5_MAGIC, start) for start in _HDF5_STARTS):
        if data.startswith(b"MATLAB 7.3"):
            raise damaged(name, "it ends within its header")
        rule, remedy = "A MATLAB file must be of version 5 to 7.3", "Save it in MATLAB again, or get it again"
        raise ImageError(rule, received=f"{name}, which is {sniff(data)}", remedy=remedy)
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            return [_hdf5_array(file, path, paths, name) for path in paths]
    except _DAMAGE as error:
        raise damaged(name, error) from error


def _missing(name: str, path: str, paths: Sequence[str]) -> ImageError:
    rule = f"A MATLAB file must hold {', '.join(paths)}, each as a full matrix"
    return ImageError(rule, received=f"{name} without {path}", remedy=_REMEDY)


def _hdf5_array(file: h5py.File, path: str, paths: Sequence[str], name: str) -> NDArray[Any]:
    dataset = file.get(path)
    if not isinstance(dataset, h5py.Dataset):
        raise _missing(name, path, paths)
    if dataset.attrs.get("MATLAB_empty") or dataset.shape is None:
        # MATLAB writes an empty array's size where other arrays have their values.
        return np.zeros(0)
    # Compressed HDF5 can announce any size in a few bytes.
    rule = f"A MATLAB array must have at most {MAX_PIXELS / 1e6:.0f} million values"
    check(dataset.size <= MAX_PIXELS, rule, f"{name} with {path} {dataset.shape}", _REMEDY)
    # MATLAB stores arrays column by column, so that HDF5 shows them transposed.
    values = np.asarray(dataset[()]).T
    kind = dataset.attrs.get("MATLAB_class", b"char" if values.dtype == np.uint16 and values.size > 1 else b"")
    if kind in (b"char", "char") and values.dtype.kind == "u":
        return np.array([values.astype("<u2").tobytes(order="F").decode("utf-16-le", errors="replace")])
    return values


def _v5_arrays(data: bytes, name: str, paths: Sequence[str]) -> list[NDArray[Any]]:
    # Slow to import, and only this old kind of file needs it.
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    wanted = [path.partition("/")[0] for path in paths]
    try:
        variables = loadmat(io.BytesIO(_inflated(data, name)), variable_names=wanted)
    except ImageError:
        raise
    except (*_DAMAGE, MatReadError) as error:
        raise damaged(name, error) from error
    return [_v5_array(variables, path, paths, name) for path in paths]


def _v5_array(variables: Mapping[str, Any], path: str, paths: Sequence[str], name: str) -> NDArray[Any]:
    variable, _, field = path.partition("/")
    value = variables.get(variable)
    if field:
        is_struct = isinstance(value, np.ndarray) and value.size == 1 and field in (value.dtype.names or ())
        value = value[field].item() if value is not None and is_struct else None
    if not isinstance(value, np.ndarray):
        # Sparse matrices too.
        raise _missing(name, path, paths)
    return value


def _inflated(data: bytes, name: str) -> bytes:
    """The file with its variables inflated, up to a limit that scipy lacks."""
    order = ">" if data[126:128] == b"MI" else "<"
    place, parts = _V5_HEADER, [data[:_V5_HEADER]]
    while place < len(data):
        kind, length = struct.unpack_from(f"{order}LL", data, place)
        element = data[place : place + 8 + length]
        if kind == _COMPRESSED:
            left, inflater = _MAX_INFLATED - sum(map(len, parts)), zlib.decompressobj()
            element = inflater.decompress(element[8:], left + 1)
            check(len(element) <= left, f"A MATLAB file must inflate to at most {_MAX_INFLATED // 2**20} MiB", name)
        place += 8 + length
        if place > len(data) or (kind == _COMPRESSED and not inflater.eof):
            raise damaged(name, "it ends within a variable")
        parts.append(element)
    return b"".join(parts)
