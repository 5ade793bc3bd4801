"""Which files of folders and patterns are read, and that the others are counted and named."""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner, Result

from btkeras.cli import main
from btkeras.datasets.dataset import load_dataset
from btkeras.datasets.readers.selection import LeftOut, left_out_text
from btkeras.errors import DataError
from btkeras.inference.inputs import choose_files
from tests.dicom_files import dataset, dicom, written
from tests.images import encode
from tests.prepare_files import put, records, run

GREY = np.add.outer(np.arange(30), np.arange(40)).astype(np.uint8)
VOLUME = nib.Nifti1Image(np.arange(16 * 18 * 3, dtype=np.int16).reshape(16, 18, 3), np.eye(4)).to_bytes()
PNG = encode(GREY)
# What is read: by its ending, in any case, or by its content where the ending says nothing.
READ = {
    "1.png": PNG,
    "2.JPG": encode(GREY, "JPEG"),
    "3.bmp": encode(GREY, "BMP"),
    "4.Tiff": encode(GREY, "TIFF"),
    "5.webp": encode(GREY, "WEBP", "RGB"),
    "6.gif": encode(GREY, "GIF"),
    "7.nii": VOLUME,
    "8.nii.gz": gzip.compress(VOLUME),
    "9.dcm": dicom(GREY),
    "10.png.bak": PNG,
    "11.dat": encode(GREY, "JPEG"),
    "12.jpg_large": encode(GREY, "JPEG"),
    "13.tif~": encode(GREY, "TIFF"),
    "14.volume.gz": gzip.compress(VOLUME),
    "15.ima": written(dataset(GREY), bare=True),
    "IM000016": dicom(GREY),
    "I.017": dicom(GREY),
    "1.2.840.113619.2.55.3": dicom(GREY),
    "2.16.756.5.5.100": written(dataset(GREY), bare=True),
    "deep/er/1.png": PNG,
}
LEFT_OUT = {
    "notes.txt": b"BMI: 23",
    "a.xml": b"<x/>",
    "Thumbs.db": b"\xd0\xcf\x11\xe0" + bytes(200),
    "sound.wav": b"RIFF\x24\0\0\0WAVEfmt " + bytes(100),
    "README": b"no image",
    "DICOMDIR": dicom(GREY),
    "scan.mat": b"MATLAB 5.0 MAT-file" + bytes(600),
    "photo.jp2": encode(GREY, "JPEG2000"),
    "data.gz": gzip.compress(b"hello" * 200),
    "case_seg.nii.gz": gzip.compress(VOLUME),
    "masks/1.png": PNG,
    "4_mask.tif": encode(GREY, "TIFF"),
}
HIDDEN = {".DS_Store": b"x", "._1.png": PNG, ".git/a.png": PNG, "__MACOSX/1.png": PNG}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of every kind; a broken link, a pipe, and a link to a folder with an image."""
    root = put(tmp_path / "study", READ | LEFT_OUT | HIDDEN)
    (root / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(root / "pipe.png")
    put(tmp_path / "elsewhere", {"18.png": PNG})
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    return root


def btkeras(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("pattern", ["", "*", "**"])
def test_every_file_is_read_or_named(folder: Path, pattern: str) -> None:
    chosen = choose_files([str(folder / pattern)], [])
    found = [Path(path).relative_to(folder).as_posix() for path in chosen.paths]
    assert sorted(found) == sorted([*READ, "linked/18.png"])
    kinds = {Path(path).relative_to(folder).as_posix(): kind for path, kind in chosen.left_out}
    assert kinds == {
        "gone.png": "broken link",
        "pipe.png": "pipe or device",
        "README": "without ending",
        "DICOMDIR": "without ending",
        **dict.fromkeys(("case_seg.nii.gz", "masks/1.png", "4_mask.tif"), "mask"),
        **{name: Path(name).suffix for name in LEFT_OUT if Path(name).suffix in (".txt", ".xml", ".db", ".wav")},
        **{name: Path(name).suffix for name in ("scan.mat", "photo.jp2", "data.gz")},
    }


def test_a_folder_that_is_named_itself_makes_no_masks(tmp_path: Path) -> None:
    put(tmp_path / "masks of study", {"a.png": PNG, "masks/a.png": PNG})
    for argument in ("", "*", "**/*", "[am]*"):
        chosen = choose_files([str(tmp_path / "masks of study" / argument)], [])
        assert ([Path(path).name for path in chosen.paths], len(chosen.left_out)) == (["a.png"], 1), argument
    assert len(choose_files([str(tmp_path / "masks of study/masks")], []).paths) == 1


def test_files_come_as_people_count(tmp_path: Path) -> None:
    put(tmp_path, {f"slice {number}.png": PNG for number in (10, 2, 1)})
    for argument in (tmp_path, tmp_path / "*.png"):
        paths = choose_files([str(argument)], []).paths
        assert [Path(path).stem for path in paths] == ["slice 1", "slice 2", "slice 10"]


def test_predict_reads_all_kinds_and_says_what_it_leaves_out(trained_run: Path, tmp_path: Path) -> None:
    kinds = ("png", "jpg", "bmp", "tif", "webp", "gif")
    images = {f"{kind}.{kind}": encode(GREY, {"jpg": "JPEG", "tif": "TIFF"}.get(kind, kind), "RGB") for kind in kinds}
    others = {"notes.txt": b"x", "a.xml": b"<x/>", "b.txt": b"x", "1_mask.png": PNG, ".hidden": b"x"}
    root = put(tmp_path / "study", images | others)
    said = (
        f"left out: 4 files (2 .txt, 1 mask, 1 .xml): {root}/1_mask.png, {root}/a.xml, {root}/b.txt, {root}/notes.txt"
    )
    common = ("predict", "--model", trained_run)
    for argument in (root, root / "*"):
        result = btkeras(*common, argument, "--json")
        assert result.exit_code == 0 and said in result.stderr.splitlines()
        assert [Path(row["path"]).name for row in json.loads(result.stdout)] == sorted(images)
    result = btkeras(*common, root, "--csv")
    assert len(list(csv.DictReader(io.StringIO(result.stdout)))) == len(images) and said in result.stderr
    # A file that is named itself is not passed over.
    result = btkeras(*common, root / "png.png", root / "notes.txt")
    assert result.exit_code == 1 and "notes.txt, which is text" in result.stderr and "left out" not in result.stderr


def test_a_folder_of_nothing_but_others_says_what_they_are(tmp_path: Path) -> None:
    put(tmp_path, {"a.txt": b"x", "masks/1.png": PNG})
    with pytest.raises(DataError, match=r"with none \(left out: 2 files \(1 \.txt, 1 mask\): .*a.txt"):
        choose_files([str(tmp_path)], [])


def test_many_names_are_cut_short() -> None:
    files = [LeftOut(f"{number}.txt", ".txt") for number in range(7)]
    assert left_out_text(files) == "left out: 7 files (7 .txt): 0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 2 more"
    masks = [LeftOut("a_seg.nii", "mask"), LeftOut("b_seg.nii", "mask"), LeftOut("c.png", "broken link")]
    assert left_out_text(masks) == "left out: 3 files (2 masks, 1 broken link): a_seg.nii, b_seg.nii, c.png"
    assert left_out_text(files[:1]) == "left out: 1 file (1 .txt): 0.txt"


@pytest.mark.parametrize("name", sorted(set(READ) - {"1.png", "2.JPG", "deep/er/1.png"} | {"1_mask.png", "x.mat"}))
def test_a_dataset_stops_at_what_prepare_would_use(tmp_path: Path, name: str) -> None:
    put(tmp_path, {"glioma/a.png": PNG, "no/b.png": PNG, f"no/{name}": READ.get(name, PNG)})
    with pytest.raises(DataError, match=r"must be PNG or JPEG, without masks.*btkeras prepare") as caught:
        load_dataset(tmp_path)
    assert f"no/{name}" in str(caught.value)


def test_a_dataset_says_what_it_leaves_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(
        tmp_path, {"glioma/a.png": PNG, "no/b.png": PNG, "no/Thumbs.db": b"\xd0\xcf", "no/.x.png": b"", "LICENSE": b"x"}
    )
    (tmp_path / "glioma/gone.png").symlink_to("nowhere.png")
    with caplog.at_level(logging.WARNING, "btkeras"):
        for _ in range(2):
            assert len(load_dataset(tmp_path).records) == 2
    assert caplog.messages == [
        f"{tmp_path}: left out: 3 files (1 outside class folders, 1 broken link, 1 .db): "
        "LICENSE, glioma/gone.png, no/Thumbs.db"
    ]


def test_the_commands_on_datasets_say_it_too(tmp_path: Path) -> None:
    put(tmp_path, {f"{label}/{n}.png": encode(GREY + n) for label in ("glioma", "no") for n in range(3)})
    put(tmp_path, {"no/notes.txt": b"x"})
    result = btkeras("audit", tmp_path)
    assert f"{tmp_path}: left out: 1 file (1 .txt): no/notes.txt" in result.stderr


def test_prepare_reads_the_same_files(tmp_path: Path) -> None:
    # Of DICOM no names are kept, so that it is counted.
    scans = {"IM000016", "I.017", "1.2.840.113619.2.55.3", "2.16.756.5.5.100"}
    images = {name for name in READ if name not in scans and not name.endswith((".dcm", ".ima"))}
    put(tmp_path / "x/glioma", {name: READ[name] for name in images} | {"notes.txt": b"x"})
    put(tmp_path / "x/no", {name: READ[name] for name in scans})
    run(tmp_path / "x", out=tmp_path / "out")
    found = records(tmp_path / "out").values()
    originals = {record.extra["original"] for record in found if record.label == "glioma"}
    assert originals == {f"glioma/{name}" for name in images}
    assert len([record for record in found if record.label == "no_tumor"]) == len(scans)
