"""``prepare`` runs the MRI check, and reads DICOM by series. The slices are such that pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from btkeras.cli import main
from btkeras.preprocessing.mri_check import rejection_reason
from tests.dicom_files import NAME, dicom
from tests.images import head
from tests.nifti_files import encoded as nifti
from tests.prepare_files import encoded, put, rows

NOISE = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
HEADS = [head(seed) for seed in range(5)]
NOISY = nifti(np.random.default_rng(1).integers(0, 900, (64, 64, 20)).astype(np.int16))
BLACK = np.zeros_like(HEADS[0])


@pytest.fixture(autouse=True)
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTKERAS_PSEUDONYM_KEY", str(tmp_path / "secrets/key"))


def test_the_slices_of_these_tests_pass() -> None:
    assert not any(map(rejection_reason, HEADS))


def prepare(tmp_path: Path, files: dict[str, bytes], *options: str) -> Result:
    put(tmp_path / "study", files)
    arguments = ["prepare", str(tmp_path / "study"), "--out", str(tmp_path / "out"), *options]
    return CliRunner().invoke(main, arguments)


def labels(tmp_path: Path) -> list[str]:
    return [row["label"] for row in rows(tmp_path / "out/manifest.csv")]


def test_a_single_image_that_is_no_head_stops_prepare(tmp_path: Path) -> None:
    files = {
        "glioma/a.png": encoded(HEADS[0]),
        "glioma/noise.png": encoded(NOISE),
        "no_tumor/b.jpg": encoded(HEADS[1], "JPEG"),
        "no_tumor/dark.dcm": dicom(BLACK),
        "no_tumor/c.dcm": dicom(HEADS[2]),
    }
    stopped = prepare(tmp_path, files)
    assert stopped.exit_code == 1 and "2 broken of 5" in stopped.output and not (tmp_path / "out").exists()
    assert "noise.png (it is noise" in stopped.output and "dark.dcm (it is nearly black)" in stopped.output
    assert prepare(tmp_path, files, "--skip-broken").exit_code == 0
    assert labels(tmp_path) == ["glioma", "no_tumor", "no_tumor"]
    reasons = [row["reason"] for row in rows(tmp_path / "out/left_out.csv")]
    assert any("it is noise" in reason for reason in reasons) and any("nearly black" in reason for reason in reasons)


def test_the_check_can_be_turned_off(tmp_path: Path) -> None:
    done = prepare(tmp_path, {"glioma/noise.png": encoded(NOISE), "glioma/dark.dcm": dicom(BLACK)}, "--no-mri-check")
    assert done.exit_code == 0 and labels(tmp_path) == ["glioma"] * 2


def volume(empty: int) -> bytes:
    """Slices of HEADS between empty ones."""
    planes = [BLACK] * empty + [*HEADS[:4]] + [BLACK] * empty
    return nifti(np.stack([plane[::-1, ::-1].T for plane in planes], axis=-1), np.diag([1.0, 1, 3, 1]))


def test_a_volume_s_empty_ends_are_left_out_and_counted(tmp_path: Path) -> None:
    frames = dicom(np.stack([BLACK, *HEADS[:3]]), InstanceNumber="4")
    files = {"glioma/P1.nii": volume(2), "no_tumor/f.dcm": frames}
    done = prepare(tmp_path, files, "--slices", "all")
    assert done.exit_code == 0, done.output
    assert sorted(labels(tmp_path)) == ["glioma"] * 4 + ["no_tumor"] * 3
    assert "5 no slice of a head (it is nearly black)" in done.output and "P1.nii#0" in done.output
    assert len(rows(tmp_path / "out/left_out.csv")) == 5
    empty = prepare(tmp_path / "2", {"glioma/P1.nii": NOISY}, "--slices", "all")
    assert empty.exit_code == 1 and "in each of 20 slices (it is noise" in empty.output


def scan(pixels: Any, number: int, place: float, **attributes: Any) -> bytes:
    values = {
        "SeriesInstanceUID": "1.2.3",
        "InstanceNumber": str(number),
        "ImagePositionPatient": [0, 0, place],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    }
    return dicom(pixels, **(values | attributes))


def test_a_series_comes_in_order_without_localizers_and_repeats(tmp_path: Path) -> None:
    files = {f"glioma/{NAME}/{name}": scan(HEADS[n], 9 - n, 5.0 * n) for n, name in enumerate(["z", "c", "a", "m"])}
    files[f"glioma/{NAME}/again"] = files[f"glioma/{NAME}/a"]
    files["glioma/dark"] = scan(BLACK, 1, -5.0)
    files["glioma/loc.dcm"] = dicom(HEADS[0], SeriesInstanceUID="1.9", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    done = prepare(tmp_path, files)
    assert done.exit_code == 0, done.output
    for words in ("localizer or scout (DICOM)", "instance a second time", "1 no slice of a head (it is nearly black)"):
        assert words in done.output
    table = rows(tmp_path / "out/manifest.csv")
    by_name = sorted(table, key=lambda row: row["path"])
    assert [row["instance"] for row in by_name] == ["9", "8", "7", "6"] and len({row["series"] for row in table}) == 1
    for row, shown in zip(by_name, HEADS, strict=False):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / row["path"])), shown)
    written = b"".join(file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file())
    assert NAME.encode() not in written and b"1.2.3" not in written
