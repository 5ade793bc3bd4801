"""Masks of volumes: labels whatever their scale, and only on the grid of their volume. Reference: nibabel's values."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from btkeras.datasets.readers.nifti import read_volume
from btkeras.datasets.readers.nifti_masks import read_mask
from btkeras.errors import DataError, ImageError
from tests.nifti_files import SHAPE, changed, encoded, turned
from tests.prepare_files import put, run, tree

RNG = np.random.default_rng(0)
SCAN = RNG.integers(0, 900, SHAPE).astype(np.int16)
LABELS = np.zeros(SHAPE, np.uint8)
LABELS[3:9, 5:10, 9:20] = 1
LABELS[4:8, 6:9, 12:15] = 2
LABELS[5:6, 7:8, 13:14] = 4
VOLUME = read_volume(encoded(SCAN), "scan")


def scaled(dtype: Any, slope: float, intercept: float) -> bytes:
    """The labels as numbers that mean them after this scale."""
    stored = (LABELS.astype(float) - intercept) / slope
    stored = np.rint(stored) if np.dtype(dtype).kind in "iu" else stored
    image = nib.Nifti1Image(stored.astype(dtype), np.eye(4))
    image.header.set_slope_inter(slope, intercept)
    data = image.to_bytes()
    assert not np.array_equal(stored, LABELS) or (slope, intercept) == (1, 0)
    np.testing.assert_allclose(nib.Nifti1Image.from_bytes(data).get_fdata(), LABELS, atol=0.1)
    return data


def float_map_in_a_deep_header() -> bytes:
    """As nibabel saves labels that were computed as floats, with the header of an int16 volume."""
    header = nib.Nifti1Image(SCAN, np.eye(4)).header
    data = nib.Nifti1Image(LABELS.astype(np.float32), np.eye(4), header).to_bytes()
    assert nib.Nifti1Image.from_bytes(data).header["scl_slope"] != 1
    return bytes(data)


@pytest.mark.parametrize(
    "mask",
    [
        float_map_in_a_deep_header(),
        scaled(np.uint8, 1, 0),
        scaled(np.float32, 1, 0),
        scaled(np.float32, 0.01, 0),
        scaled(np.int16, -1, 4),
        scaled(np.int16, -0.5, 100),
        scaled(np.uint16, 1 / 255, 0),
        scaled(np.uint8, 0.25, -3),
        scaled(np.float64, 3, -1),
        scaled(np.int8, 0.1, 2),
        # Small lesions, each with its number.
        encoded(np.where(LABELS, np.arange(LABELS.size).reshape(SHAPE) % 40 + 1, 0).astype(np.uint8)),
    ],
)
def test_a_mask_is_read_as_its_values_whatever_their_scale(mask: bytes) -> None:
    np.testing.assert_array_equal(read_mask(mask, "mask", VOLUME).voxels, LABELS > 0)


def test_prepare_makes_the_same_of_a_scaled_map(tmp_path: Path) -> None:
    found = []
    for number, mask in enumerate((encoded(LABELS), float_map_in_a_deep_header())):
        files = {"glioma/a.nii.gz": encoded(SCAN), "glioma/a_seg.nii.gz": mask, "no_tumor/b.nii": encoded(SCAN)}
        run(put(tmp_path / str(number) / "study", files), out=tmp_path / str(number) / "out")
        found.append(tree(tmp_path / str(number) / "out"))
    assert found[0] == found[1] and sum("masks" in path for path in found[0]) == 11


def test_a_map_of_fractions_is_no_mask() -> None:
    with pytest.raises(ImageError, match=r"whole numbers.*up to 0\.4"):
        read_mask(encoded(LABELS * np.float32(0.1)), "mask", VOLUME)
    assert not read_mask(encoded(LABELS * 0), "mask", VOLUME).voxels.any()
    probabilities = encoded(np.where(LABELS, 0.9, 0.2).astype(np.float32))
    np.testing.assert_array_equal(read_mask(probabilities, "mask", VOLUME).voxels, LABELS > 0)
    missing = np.where(LABELS, 1, np.nan).astype(np.float32)
    np.testing.assert_array_equal(read_mask(encoded(missing), "mask", VOLUME).voxels, LABELS > 0)


def test_the_order_and_direction_of_stored_axes_do_not_matter() -> None:
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product([False, True], repeat=3):
            mask = encoded(*turned(LABELS, axes, flips))
            np.testing.assert_array_equal(read_mask(mask, "mask", VOLUME).voxels, LABELS > 0)
            scan = read_volume(encoded(*turned(SCAN, axes, flips)), "scan")
            np.testing.assert_array_equal(read_mask(encoded(LABELS), "mask", scan).voxels, LABELS > 0)


def shifted(*mm: float) -> Any:
    affine = np.eye(4)
    affine[:3, 3] = mm
    return affine


def rotated(angle: float) -> Any:
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return affine


@pytest.mark.parametrize(
    "affine",
    [
        # Another orientation without the origin that goes with it: turned by 180 degrees, or mirrored.
        np.diag([-1.0, -1, 1, 1]),
        np.diag([-1.0, 1, 1, 1]),
        np.diag([1.0, 1, -1, 1]),
        shifted(0, 0, 1),
        shifted(0.5, 0, 0),
        shifted(-90, 126, -72),
        rotated(0.05),
        np.diag([1.0, 1, 1.05, 1]),
        np.diag([1e-3, 1e-3, 1e-3, 1]),
    ],
)
def test_a_mask_that_lies_elsewhere_is_an_error(affine: Any, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="voxels of its volume"):
        read_mask(encoded(LABELS, affine), "mask", VOLUME)
    files = {"glioma/a.nii.gz": encoded(SCAN), "glioma/a_seg.nii.gz": encoded(LABELS, affine)}
    with pytest.raises(DataError, match=r"voxels of its volume.*a_seg\.nii\.gz with 20 x 24 x 28"):
        run(put(tmp_path / "study", files), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("affine", [shifted(0, 0, 0.2), rotated(1e-4), np.diag([1.005, 1, 1, 1]), shifted(1e-5, 0, 0)])
def test_rounded_affines_are_the_same_grid(affine: Any) -> None:
    np.testing.assert_array_equal(read_mask(encoded(LABELS, affine), "mask", VOLUME).voxels, LABELS > 0)


def test_an_oblique_mask_may_say_so_by_its_qform_alone() -> None:
    affine = rotated(0.3) @ np.diag([0.9375, 0.9375, 1.2, 1])
    affine[:3, 3] = -87.123456, 101.98765, -60.5
    mask = nib.Nifti1Image(LABELS, affine)
    mask.set_qform(affine, 1)
    mask.set_sform(None, 0)
    scan = read_volume(encoded(SCAN, affine), "scan")
    np.testing.assert_array_equal(
        read_mask(mask.to_bytes(), "mask", scan).voxels, read_mask(encoded(LABELS, affine), "mask", scan).voxels
    )
    # Without both, nothing says where the mask is.
    nowhere = changed(changed(encoded(LABELS, affine), 252, "<2h", 0, 0), 76, "<4f", 1, 1, 1, 1)
    with pytest.raises(ImageError, match="voxels of its volume"):
        read_mask(nowhere, "mask", scan)
