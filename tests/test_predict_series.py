"""``predict`` on folders of DICOM: in the order of the series, without scouts, and whose slice each row is."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from btkeras.cli import main
from btkeras.datasets.pseudonyms import load_key, pseudonym
from btkeras.inference.inputs import choose_files
from tests.dicom_files import NAME, dicom
from tests.images import encode, head, scene
from tests.prepare_files import put


def btkeras(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def scan(number: int, place: float, **attributes: Any) -> bytes:
    values = {
        "SeriesInstanceUID": "1.2.3",
        "InstanceNumber": str(number),
        "ImagePositionPatient": [0, 0, place],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    }
    return dicom(head(number), **(values | attributes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        "IM10": scan(1, 20),
        "IM2": scan(2, 10),
        "a.dcm": scan(3, 0),
        "b.IMA": scan(4, -10, SeriesInstanceUID="1.2.4"),
        "loc": scan(5, 0, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SeriesInstanceUID="1.2.5"),
        "c.png": encode(scene()),
    }
    files["again.dcm"] = files["IM2"]
    return put(tmp_path / "study", files)


def names(paths: list[str]) -> list[str]:
    return [Path(path).name for path in paths]


def test_a_folder_is_read_in_the_order_of_its_series(folder: Path) -> None:
    for argument in (str(folder), f"{folder}/*"):
        chosen = choose_files([argument], [])
        assert names(chosen.paths) == ["a.dcm", "IM2", "IM10", "b.IMA", "c.png"]
        assert {Path(file.path).name: file.kind for file in chosen.left_out} == {
            "again.dcm": "a DICOM instance a second time",
            "loc": "a localizer or scout (DICOM)",
        }


def test_what_is_named_itself_is_read_as_it_is_named(folder: Path) -> None:
    arguments = [str(folder / name) for name in ("loc", "IM10", "IM2", "again.dcm")]
    assert choose_files(arguments, []).paths == choose_files(["-"], arguments).paths == arguments


def test_rows_say_whose_slice_it_is_in_pseudonyms(trained_run: Path, folder: Path) -> None:
    found = json.loads(btkeras("predict", folder, "--model", trained_run, "--json").stdout)
    places = [(Path(row["path"]).name, row.get("instance"), row.get("position")) for row in found]
    assert places == [
        ("a.dcm", 3, 0), ("IM2", 2, 1), ("IM10", 1, 2), ("b.IMA", 4, 0), ("c.png", None, None),
    ]  # fmt: skip
    key = load_key()
    assert {row["patient"] for row in found[:4]} == {pseudonym("12345", key)} and "patient" not in found[4]
    series = [pseudonym(uid, key, "S") for uid in ("1.2.3", "1.2.4")]
    assert [row["series"] for row in found[:4]] == [series[0]] * 3 + [series[1]]
    done = btkeras("predict", folder, "--model", trained_run, "--csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["position"] for row in rows] == ["0", "1", "2", "0", ""] and rows[0]["series"] == series[0]
    assert "left out: 2 files" in done.stderr and "localizer" in done.stderr
    assert NAME not in done.output and "12345" not in done.output and "1.2.3" not in done.output


def test_a_file_that_cannot_be_read_has_a_row_too(trained_run: Path, folder: Path) -> None:
    (folder / "cut.dcm").write_bytes(scan(9, 30)[:900])
    done = btkeras("predict", folder / "cut.dcm", "--model", trained_run, "--json")
    (row,) = json.loads(done.stdout)
    assert "damaged" in row["error"] and row["instance"] == 9


def test_images_alone_need_neither_pydicom_nor_a_key(
    trained_run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    monkeypatch.setenv("BTKERAS_PSEUDONYM_KEY", str(tmp_path / "none/key"))
    done = btkeras("predict", folder / "c.png", "--model", trained_run, "--json")
    assert done.exit_code == 0 and not (tmp_path / "none").exists()
    stopped = btkeras("predict", folder, "--model", trained_run, "--json")
    assert stopped.exit_code == 1 and stopped.stderr.count("pip install 'btkeras[medical]'") == 1
