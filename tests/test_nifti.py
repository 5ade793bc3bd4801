"""NIfTI volumes as slices. References: nibabel's own orientation, NumPy, and a head whose parts are placed by hand."""

from __future__ import annotations

import gzip
import itertools
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btkeras.datasets.readers import MissingExtraError
from btkeras.datasets.readers.formats import open_slices
from btkeras.errors import ImageError
from tests.nifti_files import SHAPE, changed, encoded, turned

RNG = np.random.default_rng(0)


def head() -> Any:
    """Noise, and bright blocks at the patient's right, front and top."""
    values = RNG.integers(0, 50, SHAPE).astype(np.int16)
    values[-4:, 10:14, 12:16] = 400
    values[8:12, -4:, 12:16] = 700
    values[8:12, 10:14, -4:] = 1000
    return values


def at(image: Any) -> tuple[float, float]:
    """Where the brightest block lies: rows and columns as fractions."""
    rows, columns = np.nonzero(image[..., 0] == image.max())
    return rows.mean() / image.shape[0], columns.mean() / image.shape[1]


def test_slices_are_in_radiological_convention() -> None:
    data = encoded(head())
    axial, coronal, sagittal = (open_slices(data, "x", axis) for axis in ("axial", "coronal", "sagittal"))
    assert (axial.count, coronal.count, sagittal.count) == (28, 24, 20)
    assert axial.image(14).shape == (24, 20, 1)
    # The nose is at the top of an axial slice, and the right hand on the left.
    row, column = at(axial.image(14))
    assert row < 0.2 and 0.4 < column < 0.6
    right = axial.image(14)[10:14, :, 0].mean(axis=0)
    assert right[:4].min() > 3 * right[6:].max()
    # The crown is at the top of the others, the right hand on the left, or the nose on the left.
    assert at(coronal.image(12))[0] < 0.2
    across = coronal.image(12)[12:16, :, 0].mean(axis=0)
    assert across[:4].min() > 3 * across[6:].max()
    assert at(sagittal.image(10))[0] < 0.2
    front = sagittal.image(10)[12:16, :, 0].mean(axis=0)
    assert front[:4].min() > 3 * front[6:].max()
    # Counted from the feet, the back and the left.
    assert axial.image(27).max() > axial.image(0).max()
    assert coronal.image(23).max() > coronal.image(0).max()
    assert sagittal.image(19).max() > sagittal.image(0).max()


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_how_a_volume_is_stored_does_not_matter(axis: str) -> None:
    values = head()
    expected = open_slices(encoded(values), "x", axis)
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product([False, True], repeat=3):
            found = open_slices(encoded(*turned(values, axes, flips)), "x", axis)
            assert found.count == expected.count
            np.testing.assert_array_equal(found.image(11), expected.image(11))


def test_an_oblique_volume_is_turned_as_nibabel_turns_it() -> None:
    angle = 0.4
    affine = np.array(
        [[0, 0, 1, 5], [-np.cos(angle), np.sin(angle), 0, 9], [np.sin(angle), np.cos(angle), 0, 2], [0, 0, 0, 1]]
    )
    values = RNG.integers(0, 256, (22, 18, 26)).astype(np.uint8)
    canonical = np.asarray(nib.as_closest_canonical(nib.Nifti1Image(values, affine)).dataobj)
    found = open_slices(encoded(values, affine), "x", "axial")
    assert found.count == canonical.shape[2]
    low, high = np.percentile(values, (0.1, 99.9))
    expected = np.clip((canonical[::-1, ::-1, 7].T - low) / (high - low), 0, 1) * 255
    assert np.abs(found.image(7)[..., 0] - expected).max() <= 0.5 + 1e-6


@settings(max_examples=20)
@given(
    dtype=st.sampled_from([np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64]),
    slope=st.floats(0.01, 100),
    intercept=st.floats(-1000, 1000),
    turn=st.sampled_from([1, -1]),
    kind=st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]),
)
def test_grey_levels_are_those_of_the_formula(dtype: Any, slope: float, intercept: float, turn: int, kind: Any) -> None:
    values = np.random.default_rng(3).integers(0, 250, SHAPE).astype(dtype)
    data = encoded(values, kind=kind, slope=(slope * turn, intercept))
    # What is stored, as nibabel reads it: slope and all, over the whole volume.
    scaled = kind.from_bytes(data).get_fdata()
    low, high = np.percentile(scaled, (0.1, 99.9))
    expected = (np.clip(scaled[::-1, ::-1, 5].T, low, high) - low) / (high - low) * 255
    assert np.abs(open_slices(data, "x").image(5)[..., 0] - expected).max() <= 0.5 + 1e-3


def test_few_bright_voxels_and_missing_ones_do_not_matter() -> None:
    values = RNG.normal(100, 20, (40, 40, 40)).astype(np.float32)
    plain = open_slices(encoded(values), "x").image(20)
    spoiled = values.copy()
    spoiled[1, 1, 1], spoiled[2, 2, 2], spoiled[3, 3, 3] = 1e9, np.nan, np.inf
    found = open_slices(encoded(spoiled), "x")
    assert np.abs(found.image(20).astype(int) - plain).max() <= 1
    assert found.image(2)[40 - 3, 40 - 3] == 0 and found.image(3)[40 - 4, 40 - 4] == 255
    with pytest.raises(ImageError, match="none of its voxels is a number"):
        open_slices(encoded(np.full(SHAPE, np.nan, np.float32)), "x")
    assert not open_slices(encoded(np.full(SHAPE, 7, np.int16)), "x").image(3).any()


def test_of_several_volumes_one_must_be_chosen() -> None:
    values = head()
    series = np.stack([values, values // 3, 2000 - values], axis=-1)
    with pytest.raises(ImageError, match=r"x with 3 volumes\. Choose one with --channel 0 to 2"):
        open_slices(encoded(series), "x")
    for number in range(3):
        alone = open_slices(encoded(series[..., number]), "x")
        for data in (encoded(series), gzip.compress(encoded(series)), encoded(series[:, :, :, None])):
            found = open_slices(data, "x", channel=number)
            assert found.count == alone.count
            np.testing.assert_array_equal(found.image(9), alone.image(9))
    with pytest.raises(ImageError, match="channel 3 of x, which has 3"):
        open_slices(encoded(series), "x", channel=3)


def test_one_volume_may_have_more_dimensions() -> None:
    values = head()
    expected = open_slices(encoded(values), "x").image(9)
    for shape in ((*SHAPE, 1), (*SHAPE, 1, 1), (*SHAPE, 1, 1, 1, 1)):
        for channel in (None, 0):
            np.testing.assert_array_equal(
                open_slices(encoded(values.reshape(shape)), "x", channel=channel).image(9), expected
            )
    with pytest.raises(ImageError, match="Leave --channel away"):
        open_slices(encoded(values), "x", channel=1)


def test_pixels_become_square() -> None:
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    x, y, z = np.meshgrid(*((np.arange(n) - (n - 1) / 2) * s for n, s in [(120, 1), (60, 2), (40, 3)]), indexing="ij")
    ball = (x**2 + y**2 + z**2 < 40**2).astype(np.int16) * 100
    for axis, count in (("axial", 40), ("coronal", 60), ("sagittal", 120)):
        opened = open_slices(encoded(ball, affine), "x", axis)
        image = opened.image(opened.middle)[..., 0] > 127
        height, width = image.any(axis=1).sum(), image.any(axis=0).sum()
        assert opened.count == count and abs(height - width) <= 0.07 * width, axis


def test_the_view_is_the_scanned_one_where_voxels_are_thick() -> None:
    for axis, spacing, expected in (
        (0, [6.0, 1, 1], "sagittal"),
        (1, [1.0, 6, 1], "coronal"),
        (2, [1.0, 1, 6], "axial"),
        (0, [1.5, 1, 1], "axial"),
    ):
        values = np.ones([20 if n == axis else 40 for n in range(3)], np.int16)
        assert open_slices(encoded(values, np.diag([*spacing, 1.0])), "x").axis == expected
    flat = open_slices(encoded(np.ones((30, 1, 30), np.int16)), "x")
    assert (flat.axis, flat.count) == ("coronal", 1)
    with pytest.raises(ImageError, match="--axis"):
        open_slices(encoded(np.ones((30, 1, 30), np.int16)), "x", "axial")


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_big_endian_and_gzip_are_read(kind: Any) -> None:
    values = head()
    header = kind.header_class(endianness=">")
    big = kind(values.astype(">i2"), np.eye(4), header)
    for data in (big.to_bytes(), gzip.compress(big.to_bytes()), gzip.compress(encoded(values, kind=kind))):
        opened = open_slices(data, "x")
        assert opened.kind == "NIfTI"
        np.testing.assert_array_equal(opened.image(4), open_slices(encoded(values), "x").image(4))


def test_pairs_and_other_gzip_files_are_errors(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(head(), np.eye(4)), tmp_path / "scan.hdr")
    with pytest.raises(ImageError, match=r"a pair \(\.hdr and \.img\)"):
        open_slices(tmp_path / "scan.hdr")
    with pytest.raises(ImageError, match="which is gzip"):
        open_slices(gzip.compress(b"hello" * 200), "x")


@pytest.mark.parametrize("dtype", [np.complex64, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])])
def test_what_is_no_grey_is_an_error(dtype: Any) -> None:
    with pytest.raises(ImageError, match="real numbers"):
        open_slices(encoded(np.zeros(SHAPE, dtype)), "x")


def test_bombs_are_found_before_they_go_off() -> None:
    small = encoded(np.zeros(SHAPE, np.int16))
    huge = changed(small, 40, "<4h", 3, 30000, 30000, 30000)
    with pytest.raises(ImageError, match="at most 512 MiB"):
        open_slices(huge, "x")
    # A gigabyte of zeros behind a small volume is never unpacked.
    bomb = gzip.compress(small) + gzip.compress(bytes(2**20)) * 1024
    assert open_slices(bomb, "x").count == 28
    long = changed(encoded(np.zeros((16, 16, 16), np.int16), np.diag([1e-6, 1, 1, 1])), 108, "<f", 352)
    with pytest.raises(ImageError, match="at most 25 million"):
        open_slices(long, "x", "axial")
    with pytest.raises(ImageError, match="ends within its volume"):
        open_slices(small[:-50], "x")
    with pytest.raises(ImageError, match="vox_offset"):
        open_slices(changed(small, 108, "<f", 1e12), "x")


def test_mutated_files_are_read_or_are_an_image_error() -> None:
    rng = np.random.default_rng(5)
    plain = [encoded(head()), encoded(head(), kind=nib.Nifti2Image)]
    outcomes = {True: 0, False: 0}
    for number in range(300):
        data = bytearray(plain[number % 2])
        for _ in range(rng.integers(1, 5)):
            data[rng.integers(0, 352 if number % 2 == 0 else 544)] = rng.integers(0, 256)
        raw = bytes(data)
        if number % 3 == 0:
            packed = bytearray(gzip.compress(raw, 1))
            if number % 6 == 0:
                packed[rng.integers(2, len(packed))] ^= 1 << rng.integers(0, 8)
            raw = bytes(packed)
        if number % 11 == 0:
            raw = raw[: rng.integers(1, len(raw))]
        try:
            opened = open_slices(raw, "x.nii")
            opened.image(opened.middle)
        except ImageError:
            outcomes[False] += 1
        else:
            outcomes[True] += 1
    assert min(outcomes.values()) > 25, outcomes


def test_without_the_extra_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'btkeras\[medical\]'"):
        open_slices(encoded(head()), "x")
