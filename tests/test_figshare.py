"""Reading slices and folds of the FigShare dataset."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.sparse import csc_matrix

from btkeras.datasets.boxes import mask_box
from btkeras.datasets.readers.figshare import read_cvind, read_slice
from btkeras.errors import DataError, ImageError
from btkeras.preprocessing.decode import to_uint8
from tests.images import mutations
from tests.mat_files import mat5, mat73, slice_fields, slice_mat, slice_mat5

SIDES = st.tuples(st.integers(16, 40), st.integers(16, 40))
NAMES = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=20)


@settings(max_examples=20)
@given(SIDES.flatmap(lambda shape: arrays(np.int16, shape)), st.data(), NAMES, st.sampled_from([1, 2, 3]))
def test_round_trip(image: NDArray[np.int16], data: st.DataObject, patient: str, label: int) -> None:
    mask = data.draw(arrays(np.uint8, image.shape, elements=st.integers(0, 1)))
    found = read_slice(slice_mat(image, label, patient, mask))
    np.testing.assert_array_equal(found.image, image)
    np.testing.assert_array_equal(found.mask, mask == 1)
    assert (found.patient, found.label) == (patient, {1: "meningioma", 2: "glioma", 3: "pituitary"}[label])


@settings(max_examples=30)
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
        ({"cjdata/PID": "\ufffd"}, "PID must name the patient"),
        ({"cjdata/PID": 100360.5}, "PID must be text or a whole number.*float64"),
        ({"cjdata/PID": -1.0}, "PID must be text or a whole number"),
        ({"cjdata/PID": np.nan}, "PID must be text or a whole number"),
        ({"cjdata/PID": 1e300}, "PID must be text or a whole number"),
        ({"cjdata/PID": np.array([[1.0, 2.0]])}, "PID must be text or a whole number"),
        ({"cjdata/label": 0.0}, "1 .meningioma., 2 .glioma., 3 .pituitary.*with .0.0"),
        ({"cjdata/label": np.uint8(4)}, "1 .meningioma.*with .4"),
        ({"cjdata/label": "1"}, "must be one of 1 .meningioma"),
        ({"cjdata/image": np.zeros((20, 20, 3), np.int16)}, r"must be a matrix.*int16 \(3, 20, 20\)|\(20, 20, 3\)"),
        ({"cjdata/image": np.zeros((24, 32), np.int64)}, "must be a matrix of numbers, integers of up to 32.*int64"),
        ({"cjdata/image": np.full((24, 32), np.nan)}, "finite numbers"),
        ({"cjdata/image": np.full((24, 32), -1e308)}, "finite numbers"),
        ({"cjdata/image": np.full((24, 32), np.inf, np.float32)}, "finite numbers"),
        ({"cjdata/tumorMask": np.full((24, 32), 0.5)}, "tumorMask must hold whole numbers"),
        ({"cjdata/tumorMask": np.full((24, 32), np.nan, np.float32)}, "tumorMask must hold whole numbers"),
        ({"cjdata/tumorMask": np.full((24, 32), -1, np.int8)}, "tumorMask must hold whole numbers"),
        ({"cjdata/image": np.zeros((2, 2), np.int16)}, "at least 16 x 16"),
        ({"cjdata/image": np.zeros((0, 0), np.int16)}, "must be a matrix"),
        ({"cjdata/tumorMask": np.zeros((24, 31), np.uint8)}, r"tumorMask \(24, 31\) and cjdata/image \(24, 32\)"),
    ],
)
def test_wrong_fields(changed: dict[str, Any], message: str) -> None:
    fields = {path.removeprefix("cjdata/"): value for path, value in changed.items()}
    for data in (mat73(slice_fields() | changed), slice_mat5(**fields)):
        with pytest.raises(ImageError, match=message):
            read_slice(data, "5.mat")


GREY = slice_fields()["cjdata/image"]
MASK = slice_fields()["cjdata/tumorMask"]


@pytest.mark.parametrize("version", ["7.3", "5", "5, uncompressed"])
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"PID": 100360.0},
        {"PID": np.uint16(45678)},
        {"PID": np.int64(100360)},
        {"PID": np.float32(7)},
        {"PID": "MR012345 B"},
        {"label": np.uint8(2)},
        {"label": np.int32(3)},
        {"label": np.float32(2)},
        {"image": GREY.astype(float)},
        {"image": GREY.astype(np.float32)},
        {"image": GREY / 1000 - 0.25},
        {"image": GREY.astype(np.uint16)},
        {"image": GREY.astype(np.int32) - 70_000},
        {"tumorMask": MASK.astype(float)},
        {"tumorMask": MASK.astype(np.float32) * 255},
        {"tumorMask": MASK.astype(bool)},
        {"tumorMask": MASK.astype(np.int16) * 4},
    ],
    ids=lambda changed: " ".join(f"{key} {getattr(value, 'dtype', value)}" for key, value in changed.items()),
)
def test_fields_of_other_types_mean_the_same(version: str, changed: dict[str, Any]) -> None:
    fields = {path.removeprefix("cjdata/"): value for path, value in slice_fields().items()} | changed
    if version == "7.3":
        found = read_slice(mat73({f"cjdata/{name}": value for name, value in fields.items()}))
    else:
        found = read_slice(slice_mat5(version == "5", **changed))
    np.testing.assert_array_equal(found.image, fields["image"])
    np.testing.assert_array_equal(found.mask, MASK == 1)
    assert found.label == {1: "meningioma", 2: "glioma", 3: "pituitary"}[int(fields["label"])]
    assert found.patient == (fields["PID"] if isinstance(fields["PID"], str) else str(int(fields["PID"])))
    # As they are stored: whole numbers give the same, whatever their type.
    np.testing.assert_array_equal(to_uint8(found.image), expected_levels(fields["image"]))


def expected_levels(image: NDArray[Any]) -> NDArray[np.uint8]:
    low, high = float(image.min()), float(image.max())
    return np.floor((image.astype(float) - low) / (high - low) * 255 + 0.5).astype(np.uint8)


def test_a_file_without_matlabs_own_types_is_read_where_it_is_plain() -> None:
    """As h5py writes it: text without its kind is a row of codes, one code alone could be a number."""
    buffer = io.BytesIO(slice_mat(patient="ab12"))
    with h5py.File(buffer, "r+") as file:
        for field in file["cjdata"].values():
            field.attrs.clear()
    assert read_slice(buffer.getvalue()).patient == "ab12"


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


def test_what_a_variable_inflates_to_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("btkeras.datasets.readers.matlab._MAX_INFLATED", 2**20)
    packed = zlib.compress(bytes(2**21))
    with pytest.raises(ImageError, match=r"inflate to at most 1 MiB.*5\.mat"):
        read_slice(mat5(x=1)[:128] + struct.pack("<LL", 15, len(packed)) + packed, "5.mat")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "5.mat, which is an empty file"),
        (b"Not found", "5.mat, which is text"),
        (mat5(cjdata=1), "without cjdata/image"),
        (mat5(cjdata=[{"image": 1}, {"image": 2}]), "without cjdata/image"),
        (slice_mat5(tumorMask=csc_matrix(np.eye(24, 32))), "each as a full matrix.*without cjdata/tumorMask"),
        (slice_mat5()[:900], "5.mat, which is damaged"),
        (slice_mat()[:100], "5.mat, which is damaged"),
    ],
)
def test_files_of_another_kind(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_slice(data, "5.mat")


@settings(max_examples=20)
@given(st.floats(0, 0.999))
@example(0.0078125)  # shorter than the header of a MATLAB file
def test_a_truncated_file_is_an_error(fraction: float) -> None:
    for data in (slice_mat(), slice_mat5(), slice_mat5(compress=False)):
        with pytest.raises(ImageError, match="slice"):
            read_slice(data[: int(fraction * len(data))])


def test_a_damaged_file_is_a_slice_or_an_error() -> None:
    for data in (slice_mat5(), slice_mat5(compress=False)):
        for changed in mutations(data, 100, 0):
            with contextlib.suppress(ImageError):
                read_slice(changed)


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
        (mat73({"other": np.ones((2, 1))}), "must hold cvind, .*without cvind"),
        (mat5(other=1), "must hold cvind, .*without cvind"),
        (mat5(cvind=np.ones((100, 1)))[:150], "damaged"),
        (b"", "empty"),
    ],
)
def test_wrong_folds(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_cvind(data)
