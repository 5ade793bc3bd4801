"""What a NIfTI header says; where it cannot be used, the error names the field.

Fields that nibabel and ITK understand alike are read, also odd ones (``pixdim[0]`` of 0 counts as 1, as the format
says). Where one of them would guess, or both differ, the header is refused. Of sform and qform the first that makes a
grid counts; without both, the axes are those of nibabel (right to left, front up, head up).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.datasets.readers import check, require
from btkeras.preprocessing.image_file import damaged

# Bytes that hold a header of either kind, and what makes NIfTI-2 sure that no line ends were changed.
HEADER_BYTES = 544
# Length of a header, place of its magic, nibabel's class, and the magic.
_KINDS = (
    (348, 344, "Nifti1Header", b"n+1\0"),
    (540, 4, "Nifti2Header", b"n+2\0\r\n\x1a\n"),
    (540, 4, "Nifti2Header", b"n+2\0\0\0\0\0"),
)
_MAX_OFFSET = 16 * 2**20
_LABELS = 1002
_MOST_CODES = 5
# A quaternion that is longer by less has been rounded.
_ROUNDED = 0.01
# The code of an sform in the scanner's own coordinates.
_SCANNER = 1
# Volume of the cell that three directions of length 1 make, below which they lie in one plane.
_FLAT = 1e-3


@dataclass(frozen=True, eq=False)
class NiftiHeader:
    """Where a file's numbers are, and what they mean.

    Attributes:
        shape: Voxels along the three axes of one volume.
        volumes: How many volumes lie one behind the other.
        dtype: Of the stored numbers.
        offset: Their first byte.
        slope: A value is the stored number times this ...
        intercept: ... plus this.
        affine: From voxels' indices to mm (or what ``xyzt_units`` says) to the right, front and top.
        labels: Whether the header says that the numbers are labels.
    """

    shape: tuple[int, int, int]
    volumes: int
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float
    affine: NDArray[np.float64]
    labels: bool


def find_magic(head: bytes) -> bytes | None:
    """The magic in a header: ``n+1``, ``n+2`` or, of a pair of files, ``ni1`` or ``ni2``; None if there is none."""
    found = (head[place : place + 4] for _, place, _, _ in _KINDS)
    return next((magic[:3] for magic in found if magic in (b"n+1\0", b"ni1\0", b"n+2\0", b"ni2\0")), None)


def read_header(head: bytes, name: str) -> NiftiHeader:
    """Reads a file's first ``HEADER_BYTES``; messages call it ``name``.

    Raises:
        ImageError: If it is no NIfTI header of one file, or one of its fields cannot be used.
        MissingExtraError: If nibabel is not installed.
    """
    header = _opened(head, name)
    shape, volumes = _shape(header, name)
    slope, intercept = _scaling(header, name)
    dtype, offset = _dtype(header, name), _offset(header, name)
    labels = int(header["intent_code"]) == _LABELS
    return NiftiHeader(shape, volumes, dtype, offset, slope, intercept, _affine(header, name), labels)


def _opened(head: bytes, name: str) -> Any:
    pair = (find_magic(head) or b"").startswith(b"ni")
    remedy = "Save it as .nii or .nii.gz: nib-convert in.hdr out.nii.gz"
    check(not pair, "A NIfTI volume must be one file", f"{name}, the header of a pair (.hdr and .img)", remedy)
    for length, place, kind, magic in _KINDS:
        if head[place : place + len(magic)] == magic and len(head) >= length:
            # nibabel's checks only print what they find, and repair more than is sure.
            return getattr(require("nibabel", "NIfTI"), kind)(head[:length], check=False)
    _field(find_magic(head) is None or len(head) < 540, "magic", "be whole", "changed line ends", name)
    raise damaged(name, "it ends in its header, or has none")


def _field(valid: object, field: str, must: str, found: object, name: str) -> None:
    rule, remedy = f"The field {field} of a NIfTI header must {must}", "Correct it, or write the volume again"
    check(valid, rule, f"{name} with {found}", remedy)


def _shape(header: Any, name: str) -> tuple[tuple[int, int, int], int]:
    number = int(header["dim"][0])
    sides = [int(side) for side in header["dim"][1 : number + 1]]
    # Those behind the third count as 1 where they are 0.
    sides = sides[:3] + [side or 1 for side in sides[3:]]
    stated = " x ".join(map(str, sides[:7])) or "none"
    _field(1 <= number <= 7 and min(sides) >= 1, "dim", "have 1 to 7 sides of at least 1", stated, name)
    x, y, z = (*sides[:3], 1, 1)[:3]
    return (x, y, z), math.prod(sides[3:])


def _dtype(header: Any, name: str) -> np.dtype[Any]:
    code = int(header["datatype"])
    try:
        dtype = header.get_data_dtype()
    except (KeyError, ValueError):
        dtype = np.dtype("V")
    real = dtype.kind in "iuf" and 0 < dtype.itemsize <= 8
    stated = f"{code} ({dtype})" if dtype.itemsize else str(code)
    _field(real, "datatype", "be one of real numbers of up to 64 bits", stated, name)
    return np.dtype(dtype)


def _offset(header: Any, name: str) -> int:
    offset, first = float(header["vox_offset"]), 544 if int(header["sizeof_hdr"]) == 540 else 352
    # Readers take voxels from anywhere in the header if it is less.
    _field(first <= offset <= _MAX_OFFSET, "vox_offset", f"be {first} to {_MAX_OFFSET}", f"{offset:g}", name)
    return int(offset)


def _scaling(header: Any, name: str) -> tuple[float, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if not (slope and math.isfinite(slope)):
        return 1.0, 0.0
    _field(math.isfinite(intercept), "scl_inter", "be a number", intercept, name)
    return slope, intercept


def _affine(header: Any, name: str) -> NDArray[np.float64]:
    """The sform, or else the qform, or else the sides of a voxel alone."""
    sform, qform = (_code(header, field, name) for field in ("sform_code", "qform_code"))
    affine = np.asarray(header.get_sform(), np.float64)
    if sform and _is_grid(affine):
        if qform and int(header["sform_code"]) != _SCANNER:
            _check_axes(affine, header, name)
        return affine
    rows = "srow_x, srow_y and srow_z"
    _field(qform or not sform, rows, "make a grid where there is no qform", affine[:3].tolist(), name)
    _repair_sides(header, name)
    if qform:
        _repair_quaternion(header, name)
    affine = np.asarray(header.get_qform() if qform else header.get_base_affine(), np.float64)
    _field(np.isfinite(affine).all(), "qoffset_x, qoffset_y and qoffset_z", "be numbers", affine[:3, 3].tolist(), name)
    return affine


def _check_axes(sform: NDArray[np.float64], header: Any, name: str) -> None:
    """Checks that the qform, which ITK takes in place of such an sform, has its axes (findings/nifti_two_affines)."""
    _repair_sides(header, name)
    _repair_quaternion(header, name)
    axes = require("nibabel", "NIfTI").aff2axcodes
    one, other = ("".join(axes(affine)) for affine in (sform, header.get_qform()))
    rule = "be 1 or 0 where sform and qform have other axes"
    _field(one == other, "sform_code", rule, f"{header['sform_code']}, {one} and {other}", name)


def _code(header: Any, field: str, name: str) -> bool:
    code = int(header[field])
    _field(code <= _MOST_CODES, field, f"be 0 to {_MOST_CODES}", code, name)
    return code > 0


def _is_grid(affine: NDArray[np.float64]) -> bool:
    """Whether it is finite, and its three directions span the space."""
    directions = affine[:3, :3]
    lengths = np.linalg.norm(directions, axis=0)
    if not (np.isfinite(affine).all() and np.isfinite(lengths).all() and lengths.all()):
        return False
    return abs(float(np.linalg.det(directions / lengths))) > _FLAT


def _repair_sides(header: Any, name: str) -> None:
    """Sets what both nibabel and ITK take to be 1; ``pixdim[0]`` says whether the third axis is turned."""
    turn, sides = float(header["pixdim"][0]), header["pixdim"][1:4]
    _field(turn == -1 or not turn < 0, "pixdim[0]", "be -1 or 1", turn, name)
    header["pixdim"][0] = -1 if turn == -1 else 1
    valid = np.isfinite(sides).all() and (sides >= 0).all()
    _field(valid, "pixdim", "have sides above 0", sides.tolist(), name)
    sides[sides == 0] = 1


def _repair_quaternion(header: Any, name: str) -> None:
    parts = [float(header[f"quatern_{letter}"]) for letter in "bcd"]
    length = math.hypot(*parts)
    _field(length <= 1 + _ROUNDED, "quatern_b, quatern_c and quatern_d", "be a rotation", parts, name)
    for letter, part in zip("bcd", parts, strict=True):
        header[f"quatern_{letter}"] = part / max(length, 1.0)
