"""Reading slices and folds of the FigShare dataset."""

from __future__ import annotations

import io
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.io import savemat

from btkeras.datasets.boxes import mask_box
from btkeras.datasets.readers.figshare import read_cvind, read_slice
from btkeras.errors import DataError, ImageError
from tests.mat_files import mat73, slice_fields, slice_mat

SIDES = st.tuples(st.integers(16, 40), st.integers(16, 40))
NAMES = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=20)


@settings(max_examples=20, deadline=None)
@given(SIDES.flatmap(lambda shape: arrays(np.int16, shape)), st.data(), NAMES, st.sampled_from([1, 2, 3]))
def test_round_trip(image: NDArray[np.int16], data: st.DataObject, patient: str, label: int) -> None:
    mask = data.draw(arrays(np.uint8, image.shape, elements=st.integers(0, 1)))
    found = read_slice(slice_mat(image, label, patient, mask))
    np.testing.assert_array_equal(found.image, image)
    np.testing.assert_array_equal(found.mask, mask == 1)
    assert (found.patient, found.label) == (patient, {1: "meningioma", 2: "glioma", 3: "pituitary"}[label])


@settings(max_examples=30, deadline=None)
@given(SIDES, st.tuples(*[st.integers(0, 39)] * 4))
def test_the_box_of_a_rectangle(shape: tuple[int, int], corners: tuple[int, int, int, int]) -> None:
    height, width = shape
    top, bottom = sorted(corner % height for corner in corners[:2])
    left, right = sorted(corner % width for corner in corners[2:])
    mask = np.zeros(shape, bool)
    mask[[top, bottom], [left, right]] = True
    expected = (top / height, left / width, (bottom + 1) / height, (right + 1) / width)
    np.testing.assert_allclose(mask_box(mask) or (), expected)


def test_an_empty_mask_has_no_box() -> None:
    assert mask_box(np.zeros((16, 16), bool)) is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cjdata/label": 7.0}, "1 .meningioma.*Received: 5.mat with .7.0"),
        ({"cjdata/label": 1.5}, "with .1.5"),
        ({"cjdata/label": np.ones((1, 2))}, "with .1.0, 1.0"),
        ({"cjdata/PID": ""}, "PID must name the patient"),
        ({"cjdata/PID": " \0 "}, "PID must name the patient"),
        ({"cjdata/PID": np.array([[0xD800]], np.uint16)}, "PID must name the patient"),
        ({"cjdata/PID": 100360.0}, "PID must be text"),
        ({"cjdata/image": np.zeros((20, 20, 3), np.int16)}, r"must be a matrix.*int16 \(3, 20, 20\)|\(20, 20, 3\)"),
        ({"cjdata/image": np.zeros((24, 32))}, "must be a matrix of integers.*float64"),
        ({"cjdata/image": np.zeros((2, 2), np.int16)}, "at least 16 x 16"),
        ({"cjdata/image": np.zeros((0, 0), np.int16)}, "must be a matrix"),
        ({"cjdata/tumorMask": np.zeros((24, 31), np.uint8)}, r"tumorMask \(24, 31\) and cjdata/image \(24, 32\)"),
    ],
)
def test_wrong_fields(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_slice(mat73(slice_fields() | changed), "5.mat")


@pytest.mark.parametrize("field", ["image", "label", "PID", "tumorMask"])
def test_a_missing_field_is_named(field: str) -> None:
    fields = slice_fields()
    del fields[f"cjdata/{field}"]
    with pytest.raises(ImageError, match=f"Received: 5.mat without cjdata/{field}"):
        read_slice(mat73(fields), "5.mat")


def test_a_field_that_announces_too_much_is_not_read() -> None:
    buffer = io.BytesIO(mat73({key: value for key, value in slice_fields().items() if key != "cjdata/image"}))
    with h5py.File(buffer, "r+") as file:
        file.create_dataset("cjdata/image", (100_000, 100_000), np.int16, chunks=(1000, 1000))
    with pytest.raises(ImageError, match="at most 25 million values"):
        read_slice(buffer.getvalue(), "5.mat")


def mat5(**variables: object) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, variables)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "5.mat, which is an empty file"),
        (b"Not found", "5.mat, which is text"),
        (mat5(cjdata=1), "v7.3.*5.mat, which is MATLAB v5"),
        (slice_mat()[:100], "5.mat, which is damaged"),
    ],
)
def test_files_of_another_kind(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_slice(data, "5.mat")


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 0.999))
def test_a_truncated_file_is_an_error(fraction: float) -> None:
    data = slice_mat()
    with pytest.raises(ImageError, match="slice"):
        read_slice(data[: int(fraction * len(data))])


@pytest.mark.parametrize("column", [True, False])
def test_folds_of_both_kinds_of_file(column: bool) -> None:
    folds = np.array([[1, 5, 2, 3, 4]])
    folds = folds.T if column else folds
    assert read_cvind(mat73({"cvind": folds.astype(float)})) == (1, 5, 2, 3, 4)
    assert read_cvind(mat5(cvind=folds)) == (1, 5, 2, 3, 4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (mat73({"cvind": np.array([[1.0, 6.0]])}), "whole numbers from 1 to 5.*6.0"),
        (mat5(cvind=np.array([[1.5]])), "whole numbers from 1 to 5.*1.5"),
        (mat73({"other": np.ones((2, 1))}), "must hold the variable cvind.*other"),
        (mat5(other=1), "must hold the variable cvind.*other"),
        (mat5(cvind=np.ones((100, 1)))[:200], "damaged"),
        (b"", "empty"),
    ],
)
def test_wrong_folds(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_cvind(data)
