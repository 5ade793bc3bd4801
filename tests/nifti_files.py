"""NIfTI files for tests, written by nibabel."""

from __future__ import annotations

import struct
from typing import Any

import nibabel as nib
import numpy as np

# Right, anterior, superior; every side differs.
SHAPE = (20, 24, 28)


def encoded(values: Any, affine: Any = None, kind: Any = nib.Nifti1Image, slope: Any = None) -> bytes:
    """A file with these voxels and this affine."""
    image = kind(np.asarray(values), np.eye(4) if affine is None else affine)
    if slope is not None:
        image.header.set_slope_inter(*slope)
    return image.to_bytes()


def turned(values: Any, axes: tuple[int, ...], flips: tuple[bool, ...]) -> tuple[Any, Any]:
    """A volume stored in other directions, and the affine that says so."""
    stored = values.transpose(axes)
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for place, axis in enumerate(axes):
        affine[axis, place] = -1 if flips[place] else 1
        affine[axis, 3] = SHAPE[axis] - 1 if flips[place] else 0
        stored = np.flip(stored, place) if flips[place] else stored
    return stored, affine


def changed(data: bytes, place: int, form: str, *values: Any) -> bytes:
    """A file with other values, of struct's format, from byte ``place`` on."""
    return data[:place] + struct.pack(form, *values) + data[place + struct.calcsize(form) :]
