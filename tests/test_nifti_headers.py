"""Odd NIfTI headers: read as nibabel or ITK read them (5.4.2; SimpleITK 2.5.7), or refused with the field's name."""

from __future__ import annotations

import gzip
import math
import struct
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from btkeras.datasets.readers.formats import open_slices
from btkeras.datasets.readers.nifti import read_volume
from btkeras.errors import ImageError
from tests.nifti_files import SHAPE, changed, encoded

SCAN = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16)
# No identity, so that an affine that is not used shows.
AFFINE = np.diag([-1.0, -1, 2, 1])
EXPECTED = SCAN[::-1, ::-1]
# Places of fields in a NIfTI-1 header.
DIM, INTENT, TYPE, BITS, PIXDIM, OFFSET, SLOPE = 40, 68, 70, 72, 76, 108, 112
UNITS, CAL, QCODE, SCODE, QUATERNION, QOFFSET, ROWS, MAGIC = 123, 124, 252, 254, 256, 268, 280, 344
NAN, INF = math.nan, math.inf


def written(qform: bool = True, sform: bool = True) -> bytes:
    image = nib.Nifti1Image(SCAN, AFFINE)
    image.set_qform(AFFINE, int(qform))
    image.set_sform(AFFINE, int(sform))
    return bytes(image.to_bytes())


BOTH, QFORM, SFORM, NEITHER = written(), written(sform=False), written(qform=False), written(False, False)


def side(data: bytes, number: int, value: float) -> bytes:
    return changed(data, PIXDIM + 4 * number, "<f", value)


def extended(size: int) -> bytes:
    """With an extension of 32 bytes that says it has another size."""
    data = BOTH[:348] + b"\1\0\0\0" + struct.pack("<ii", size, 4) + bytes(24) + BOTH[352:]
    return changed(data, OFFSET, "<f", 384)


@pytest.mark.parametrize(
    "data",
    [
        BOTH,
        QFORM,
        SFORM,
        side(QFORM, 0, 0),
        side(QFORM, 0, 0.5),
        side(QFORM, 0, NAN),
        side(QFORM, 0, 7e9),
        side(SFORM, 3, 0),
        side(SFORM, 3, NAN),
        side(SFORM, 1, -1),
        side(BOTH, 3, INF),
        changed(BOTH, UNITS, "B", 255),
        changed(BOTH, UNITS, "B", 0),
        changed(BOTH, UNITS, "B", 3),
        changed(BOTH, ROWS + 32, "<4f", 0, 0, 0, 0),
        changed(BOTH, ROWS, "<12f", *[0] * 12),
        changed(BOTH, ROWS, "<f", NAN),
        changed(BOTH, ROWS + 12, "<f", NAN),
        # All three directions in one plane.
        changed(BOTH, ROWS, "<12f", 1, 1, 2, 0, 1, 0, 1, 0, 0, 0, 0, 0),
        changed(BOTH, SCODE, "<h", -1),
        changed(BOTH, QUATERNION, "<3f", NAN, 9, 9),
        changed(QFORM, QUATERNION, "<3f", 0, 0, 1.0001),
        changed(BOTH, OFFSET, "<f", 352.5),
        changed(BOTH[:352] + bytes(8) + BOTH[352:], OFFSET, "<f", 360),
        changed(BOTH, 348, "B", 1),
        extended(32),
        extended(7777),
        changed(BOTH, 0, "<i", 0),
        changed(BOTH, DIM, "<8h", 7, *SHAPE, 1, 1, 1, 1),
        changed(BOTH, DIM, "<8h", 5, *SHAPE, 0, 0, 0, 0),
        changed(BOTH, DIM, "<8h", 3, *SHAPE, -7, 99, 0, 3),
        changed(BOTH, BITS, "<h", 0),
        changed(BOTH, SLOPE, "<2f", 0, 7),
        changed(BOTH, SLOPE, "<2f", NAN, NAN),
        changed(BOTH, SLOPE, "<2f", INF, 0),
        changed(BOTH, INTENT, "<h", 12345),
        changed(BOTH, INTENT, "<h", 1007),
        changed(BOTH, CAL, "<2f", NAN, -INF),
        nib.Nifti2Image(SCAN, AFFINE).to_bytes(),
        nib.Nifti1Image(SCAN.astype(">i2"), AFFINE, nib.Nifti1Header(endianness=">")).to_bytes(),
        nib.Nifti2Image(SCAN.astype(">i2"), AFFINE, nib.Nifti2Header(endianness=">")).to_bytes(),
        changed(nib.Nifti2Image(SCAN, AFFINE).to_bytes(), 8, "<4s", b""),
    ],
)
def test_odd_headers_that_other_readers_understand_are_read(data: bytes) -> None:
    for content in (bytes(data), gzip.compress(bytes(data), 1)):
        volume = read_volume(content, "x")
        np.testing.assert_array_equal(volume.voxels, EXPECTED)
        assert (volume.spacing, volume.slope, volume.intercept) == ((1, 1, 2), 1, 0)


@pytest.mark.parametrize("data", [side(QFORM, 3, 0), side(side(side(QFORM, 1, 0), 2, 0), 3, 0)])
def test_a_side_of_0_counts_as_1(data: bytes) -> None:
    volume = read_volume(data, "x")
    np.testing.assert_array_equal(volume.voxels, EXPECTED)
    assert volume.spacing == (1, 1, 1)


def test_pixdim_0_turns_the_third_axis() -> None:
    for value in (-1, 1):
        data = side(QFORM, 0, value)
        expected = nib.as_closest_canonical(nib.Nifti1Image.from_bytes(data))
        np.testing.assert_array_equal(read_volume(data, "x").voxels, np.asarray(expected.dataobj))


def two_affines(sform: NDArray[np.float64], code: int) -> bytes:
    """A scan whose qform has the axes LAS."""
    image = nib.Nifti1Image(SCAN, None)
    image.set_qform(np.diag([-1.0, 1, 1, 1]), 1)
    image.set_sform(sform, code)
    return bytes(image.to_bytes())


def test_where_sform_and_qform_have_other_axes_the_sform_is_read_in_the_scanners_coordinates_alone() -> None:
    turned = nib.affines.from_matvec(np.eye(3), [-40, 0, 0])
    tilted = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.2, 0.1, 0.1) @ np.diag([-1, 1, 1]))
    for data in (two_affines(turned, 1), two_affines(turned, 0), *(two_affines(tilted, code) for code in (1, 2, 4))):
        expected = nib.as_closest_canonical(nib.Nifti1Image.from_bytes(data))
        np.testing.assert_array_equal(read_volume(data, "x").voxels, np.asarray(expected.dataobj))
    for code in (2, 3, 4, 5):
        # SimpleITK 2.5 takes the qform, nibabel the sform.
        message = (
            rf"The field sform_code of a NIfTI header must be 1 or 0 where .* Received: x.nii with {code}, RAS and LAS"
        )
        with pytest.raises(ImageError, match=message):
            open_slices(two_affines(turned, code), "x.nii")


def test_without_both_forms_the_axes_are_those_of_nibabel() -> None:
    expected = nib.as_closest_canonical(nib.Nifti1Image.from_bytes(NEITHER))
    np.testing.assert_array_equal(read_volume(NEITHER, "x").voxels, np.asarray(expected.dataobj))


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (side(QFORM, 0, -0.5), r"pixdim\[0\]"),
        (side(QFORM, 3, -2), "pixdim"),
        (side(QFORM, 3, NAN), "pixdim"),
        (side(NEITHER, 2, INF), "pixdim"),
        (changed(SFORM, ROWS, "<12f", *[0] * 12), "srow_x, srow_y and srow_z"),
        (changed(SFORM, ROWS, "<f", NAN), "srow_x, srow_y and srow_z"),
        (changed(BOTH, SCODE, "<h", 6), "sform_code"),
        (changed(QFORM, QCODE, "<h", 9), "qform_code"),
        (changed(QFORM, QUATERNION, "<3f", 0, 0, 2), "quatern_b"),
        (changed(QFORM, QUATERNION, "<f", NAN), "quatern_b"),
        (changed(QFORM, QOFFSET, "<f", NAN), "qoffset_x"),
        (changed(BOTH, OFFSET, "<f", 0), "vox_offset"),
        (changed(BOTH, OFFSET, "<f", 348), "vox_offset"),
        (changed(BOTH, OFFSET, "<f", NAN), "vox_offset"),
        (changed(BOTH, OFFSET, "<f", -1), "vox_offset"),
        (changed(BOTH, DIM, "<h", 0), "dim"),
        (changed(BOTH, DIM, "<h", 8), "dim"),
        (changed(BOTH, DIM + 6, "<h", 0), "dim"),
        (changed(BOTH, DIM + 2, "<h", -20), "dim"),
        (changed(BOTH, TYPE, "<h", 0), "datatype"),
        (changed(BOTH, TYPE, "<h", 1), "datatype"),
        (changed(BOTH, TYPE, "<h", 3), "datatype"),
        (changed(BOTH, TYPE, "<h", 1536), "datatype"),
        (changed(BOTH, TYPE, "<h", 2304), "datatype"),
        (encoded(SCAN.astype(np.complex64)), "datatype"),
        (changed(BOTH, SLOPE, "<2f", 2, NAN), "scl_inter"),
        (changed(BOTH, SLOPE, "<2f", -2, INF), "scl_inter"),
        (changed(nib.Nifti2Image(SCAN, AFFINE).to_bytes(), 8, "<4s", b"\n\x1a\n\0"), "magic"),
    ],
)
def test_other_headers_are_refused_with_the_field(data: bytes, field: str) -> None:
    with pytest.raises(ImageError, match=rf"The field {field}.* of a NIfTI header must"):
        open_slices(bytes(data), "x.nii")


@pytest.mark.parametrize("order", "<>")
def test_analyze_files_are_refused_by_name(order: str, tmp_path: Any) -> None:
    header = nib.AnalyzeHeader(endianness=order)
    image = nib.AnalyzeImage(SCAN.astype(f"{order}i2"), np.eye(4), header)
    nib.save(image, tmp_path / "scan.hdr")
    with pytest.raises(ImageError, match=r"ANALYZE 7\.5.*Convert it to NIfTI"):
        open_slices(tmp_path / "scan.hdr")
    with pytest.raises(ImageError, match=r"ANALYZE 7\.5"):
        open_slices(changed(BOTH, MAGIC, "4s", b""), "x.nii")


def test_a_file_that_says_that_it_holds_labels_is_no_image() -> None:
    opened = open_slices(changed(BOTH, INTENT, "<h", 1002), "x")
    assert opened.rejection == "the file says that it holds labels" and open_slices(BOTH, "x").rejection is None


def test_a_single_slice_and_infinite_voxels_are_read() -> None:
    flat = encoded(SCAN[..., 0], AFFINE)
    assert open_slices(flat, "x").count == 1
    values = SCAN.astype(np.float32)
    values[3, 3, 3], values[4, 4, 4], values[5, 5, 5] = INF, -INF, NAN
    found, plain = (open_slices(encoded(array), "x").image(9) for array in (values, SCAN))
    assert np.abs(found.astype(int) - plain).max() <= 1
