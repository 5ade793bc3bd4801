"""Sources of every kind to a dataset folder."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import threading
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from btkeras.datasets.dataset import load_dataset
from btkeras.errors import ConfigError, DataError
from btkeras.preprocessing.decode import to_uint8
from tests.mat_files import mat73, slice_fields, slice_mat, slice_mat5
from tests.prepare_files import (
    COLOR,
    DEEP,
    GREY,
    encoded,
    figshare_download,
    figshare_files,
    pixels,
    prepare,
    put,
    records,
    rows,
    run,
    tree,
    zipped,
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two class folders with one image each."""
    return put(tmp_path / "data", {"glioma/a.png": encoded(), "no_tumor/b.jpg": encoded(kind="JPEG")})


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


# FigShare


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_figshare_zip_in_zip(tmp_path: Path, out: Path, method: int) -> None:
    put(tmp_path, {"1512427.zip": figshare_download(method)})
    report = run(tmp_path / "1512427.zip", out=out)
    assert dict(report.classes) == {"glioma": 1, "meningioma": 1, "pituitary": 2}
    assert (dict(report.sources), report.patients, report.without_patient) == ({"figshare": 4}, 3, 0)
    assert [file.kind for file in report.left_out] == [".txt"]
    found = records(out)
    names = ("glioma/0002", "meningioma/0001", "pituitary/0003", "pituitary/0004")
    assert sorted(found) == [f"images/{name}.png" for name in names]
    record = found["images/meningioma/0001.png"]
    assert (record.patient, record.source, record.extra["official_fold"]) == ("P1", "figshare", "5")
    assert record.extra["original"] == "1512427.zip/brainTumorDataPublic_1-1.zip/1.mat"
    assert record.extra["box"] == "0.5 0.291667 0.5 0.25"


def test_figshare_images_are_upright_and_whole(tmp_path: Path, out: Path) -> None:
    image = np.arange(24 * 32, dtype=np.int16).reshape(24, 32) * 3 - 100
    put(tmp_path, {"in/7.mat": slice_mat(image, 2), "in/8.mat": slice_mat(image, 1)})
    run(tmp_path / "in", out=out)
    stored = out / "images/glioma/0007.png"
    np.testing.assert_array_equal(pixels(stored), to_uint8(image))
    mask = pixels(out / "masks/glioma/0007.png")
    assert mask.shape == (24, 32) and set(np.unique(mask)) == {0, 255} and (mask[4:10, 8:24] == 255).all()
    extra = records(out)["images/glioma/0007.png"].extra
    assert extra["mask"] == "masks/glioma/0007.png"
    assert extra["sha256"] == hashlib.sha256(stored.read_bytes()).hexdigest()
    assert extra["bytes"] == str(stored.stat().st_size)


def test_matlab_files_of_other_versions_and_types_become_the_same_dataset(tmp_path: Path) -> None:
    image = slice_fields()["cjdata/image"] * 3 - 100
    put(tmp_path / "new", {"7.mat": slice_mat(image, 2)})
    put(tmp_path / "old", {"7.mat": slice_mat5(image=image.astype(float), label=np.uint8(2), PID=100360.0)})
    for name in ("new", "old"):
        run(tmp_path / name, out=tmp_path / f"{name} out")
    assert tree(tmp_path / "new out") == tree(tmp_path / "old out")
    assert [row["patient"] for row in rows(tmp_path / "old out/manifest.csv")] == ["100360"]


def test_every_packing_of_figshare_gives_the_same_slices(tmp_path: Path) -> None:
    cvind = {"cvind.mat": mat73({"cvind": np.array([[5.0], [1.0], [2.0], [2.0]])})}
    put(tmp_path / "loose", figshare_files() | cvind)
    put(tmp_path / "zip", {"a.zip": zipped(figshare_files()), **cvind})
    put(tmp_path, {"one.zip": zipped(figshare_files()), "nested.zip": figshare_download(), **cvind})
    packings = [["loose"], ["zip"], ["nested.zip"], ["one.zip", "cvind.mat"]]
    results = []
    for number, names in enumerate(packings):
        run(*(tmp_path / name for name in names), out=tmp_path / f"out{number}")
        files = tree(tmp_path / f"out{number}")
        files = {name: data for name, data in files.items() if name not in ("manifest.csv", "left_out.csv")}
        lines = rows(tmp_path / f"out{number}" / "manifest.csv")
        results.append((files, [{k: v for k, v in line.items() if k != "original"} for line in lines]))
    assert all(result == results[0] for result in results[1:])


def test_the_same_sources_give_the_same_bytes(tmp_path: Path, data: Path) -> None:
    put(tmp_path, {"x.zip": figshare_download()})
    for name in ("a", "b"):
        run(data, tmp_path / "x.zip", out=tmp_path / name)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


@pytest.mark.parametrize("name", ["5.mat", "first.mat"])
def test_a_slice_without_an_official_fold(tmp_path: Path, out: Path, name: str) -> None:
    put(tmp_path / "in", {name: slice_mat(), "cvind.mat": mat73({"cvind": np.ones((4, 1))})})
    with pytest.raises(DataError, match=f"must have a fold for each slice.*{name} beside a cvind.mat of 4"):
        run(tmp_path / "in", out=out)


# Class folders


def test_class_folders(data: Path, out: Path) -> None:
    report = run(data, out=out)
    assert tree(out / "images") == tree(data), "PNG and JPEG that are fine keep their bytes"
    assert [(r.label, r.source, r.patient, r.extra["original"]) for r in records(out).values()] == [
        ("glioma", "data", "", "glioma/a.png"),
        ("no_tumor", "data", "", "no_tumor/b.jpg"),
    ]
    assert report.without_patient == 2
    assert report.summary().endswith(f"Next: btkeras train --data {out} --out runs/first")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.png", encoded(COLOR, mode="RGBA"), COLOR),
        ("a.png", encoded(GREY, mode="LA"), GREY),
        ("a.png", encoded(COLOR, mode="P"), None),
        ("a.png", encoded(DEEP), to_uint8(DEEP)),
        ("a.tif", encoded(DEEP, "TIFF"), to_uint8(DEEP)),
        ("a.tiff", encoded(COLOR, "TIFF"), COLOR),
        ("a.BMP", encoded(COLOR, "BMP"), COLOR),
        ("a.jpg", encoded(COLOR, "JPEG", mode="CMYK"), None),
        ("a.jpg", encoded(GREY), GREY),
        ("a.jfif", encoded(GREY), GREY),
    ],
)
def test_other_kinds_become_ordinary_png(data: Path, out: Path, name: str, content: bytes, expected: Any) -> None:
    put(data, {f"pituitary/{name}": content})
    run(data, out=out)
    stored = out / "images/pituitary/a.png"
    with Image.open(stored) as image:
        assert (image.format, image.mode in ("L", "RGB"), image.info) == ("PNG", True, {})
    if expected is not None:
        np.testing.assert_array_equal(pixels(stored), expected)


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_turned_photographs_are_stored_upright(data: Path, out: Path, orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(GREY, kind, exif=exif)
    put(data, {"pituitary/a.jpg": content})
    run(data, out=out)
    turns = {3: 2, 6: 3, 8: 1}[orientation]
    with Image.open(io.BytesIO(content)) as image:
        np.testing.assert_array_equal(pixels(out / "images/pituitary/a.png"), np.rot90(np.asarray(image), turns))


def test_spellings_wrappers_and_hidden_files(tmp_path: Path, out: Path) -> None:
    put(tmp_path / "x/archive/deep", {"No-Tumor/1.png": encoded(), "glioma_tumor/patient 7/2.png": encoded()})
    put(tmp_path / "x", {".DS_Store": b"", "__MACOSX/glioma/._1.png": b"", "notes.txt": b""})
    report = run(tmp_path / "x", out=out)
    assert sorted(records(out)) == ["images/glioma/0002.png", "images/no_tumor/0001.png"]
    assert ([file.kind for file in report.left_out], report.duplicates) == ([".txt"], 1)
    assert "Duplicates of other images: 1" in report.summary() and "\n  1 .txt: " in report.summary()


@pytest.mark.parametrize("as_zip", [False, True])
def test_training_and_testing_are_joined(tmp_path: Path, out: Path, as_zip: bool) -> None:
    files = {f"{subset}/glioma/1.png": encoded(GREY + n) for n, subset in enumerate(("Training", "Testing"))}
    if as_zip:
        put(tmp_path, {"kaggle.zip": zipped(files)})
    run(tmp_path / "kaggle.zip" if as_zip else put(tmp_path / "kaggle", files), out=out)
    found = [(row["path"], row["source"], row["subset"]) for row in rows(out / "manifest.csv")]
    # Folders come sorted, a zip's files in its own order.
    second, first = ("test", "train") if as_zip else ("train", "test")
    assert found == [("images/glioma/0001-2.png", "kaggle", second), ("images/glioma/0001.png", "kaggle", first)]


def test_subsets_given_one_by_one_belong_to_their_collection(tmp_path: Path, out: Path) -> None:
    put(tmp_path / "kaggle", {"Training/glioma/1.png": encoded(), "Testing/notumor/2.png": encoded()})
    run(tmp_path / "kaggle/Training", tmp_path / "kaggle/Testing", out=out)
    found = [(r.label, r.source, r.extra["subset"]) for r in records(out).values()]
    assert found == [("glioma", "kaggle", "train"), ("no_tumor", "kaggle", "test")]


def test_class_folders_given_one_by_one(data: Path, out: Path) -> None:
    run(data / "glioma", data / "no_tumor", out=out)
    assert [(r.label, r.source) for r in records(out).values()] == [("glioma", "data"), ("no_tumor", "data")]


def test_boxes_become_a_column(data: Path, out: Path) -> None:
    put(data, {"boxes.csv": b"file,x_center,y_center,width,height\nglioma/a.png,0.49,0.51,0.13,0.10\n"})
    run(data, out=out)
    assert [r.extra["box"] for r in records(out).values()] == ["0.49 0.51 0.13 0.1", ""]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,x,y\n", "must have the columns"),
        ("file,x_center,y_center,width,height\nglioma/z.png,0,0,0,0\n", "line 2: glioma/z.png"),
        ("file,x_center,y_center,width,height\nglioma/a.png,0.5,0.5,1.5,0.1\n", "fractions from 0 to 1"),
        ("file,x_center,y_center,width,height\nglioma/a.png,0.5,left,1,1\n", "line 2: glioma/a.png,0.5,left"),
        ("file,x_center,y_center,width,height\nglioma/a.png,nan,0.5,1\n", "line 2"),
    ],
)
def test_wrong_boxes(data: Path, out: Path, table: str, message: str) -> None:
    put(data, {"boxes.csv": table.encode()})
    with pytest.raises(DataError, match=message):
        run(data, out=out)


# Datasets, and several sources


def test_a_dataset_s_columns_stay(tmp_path: Path, out: Path) -> None:
    put(tmp_path, {"x.zip": figshare_download()})
    run(tmp_path / "x.zip", out=tmp_path / "first")
    run(tmp_path / "first", out=out)
    # Only the first of them has left something out.
    assert tree(out) | {"left_out.csv": b""} == tree(tmp_path / "first") | {"left_out.csv": b""}


def test_a_dataset_whose_image_was_changed(tmp_path: Path, data: Path, out: Path) -> None:
    run(data, out=tmp_path / "first")
    put(tmp_path / "first", {"images/glioma/a.png": encoded(COLOR)})
    with pytest.raises(DataError, match=r"manifest describes.*a.png with another sha256"):
        run(tmp_path / "first", out=out)


def test_names_are_made_unique(tmp_path: Path, data: Path, out: Path) -> None:
    put(tmp_path / "more/glioma", {"A.jpg": encoded(kind="JPEG"), "a-2.png": encoded()})
    put(tmp_path / "b/data/glioma", {"a.png": encoded()})
    report = run(data, tmp_path / "more", tmp_path / "b/data", out=out)
    assert [(r.path, r.source) for r in records(out).values() if r.label == "glioma"] == [
        ("images/glioma/A-2.jpg", "more"),
        ("images/glioma/a-2-2.png", "more"),
        ("images/glioma/a-3.png", "data-2"),
        ("images/glioma/a.png", "data"),
    ]
    assert dict(report.sources) == {"data": 2, "data-2": 1, "more": 2}


def test_odd_names_become_ordinary_ones(tmp_path: Path, out: Path) -> None:
    names = ["x:y?*.png", " .png", "\u00e9" * 90 + ".png", "line\nbreak.png", "plain.png"]
    put(tmp_path / "x", {f"{label}/{name}": encoded() for label in ("glioma", "no") for name in names})
    with open(os.fsencode(tmp_path / "x/glioma") + b"/\xff.png", "wb") as file:
        file.write(encoded())
    run(tmp_path / "x", out=out)
    found = {Path(path).stem for path in records(out)}
    assert found == {"x_y__", "image", "\u00e9" * 60, "line_break", "plain", "_"}


def test_masks_of_a_dataset_must_fit(tmp_path: Path, out: Path) -> None:
    put(tmp_path / "x", {"a.png": encoded(), "b.png": encoded(), "m.png": encoded(GREY[:, :-1])})
    (tmp_path / "x/manifest.csv").write_text("path,label,mask\na.png,glioma,m.png\nb.png,pituitary,\n")
    with pytest.raises(DataError, match=r"mask must be a PNG as large as its image"):
        run(tmp_path / "x", out=out)
    (tmp_path / "x/manifest.csv").write_text("path,label,mask\na.png,glioma,../m.png\nb.png,pituitary,\n")
    with pytest.raises(DataError, match=r"must lie inside"):
        run(tmp_path / "x", out=out)


def test_images_are_converted_in_as_many_threads_as_allowed(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BTKERAS_THREADS", "1")
    put(tmp_path / "x", {f"glioma/{number}.png": encoded(GREY + number) for number in range(12)})
    before = set(threading.enumerate())
    started = set()

    def watch(items: Iterable[Any], total: int) -> Iterable[Any]:
        for item in items:
            started.update(set(threading.enumerate()) - before)
            yield item

    prepare([tmp_path / "x"], out, progress=watch)
    assert len(started) == 1
    monkeypatch.setenv("BTKERAS_THREADS", "none")
    with pytest.raises(ConfigError, match="BTKERAS_THREADS must be a whole number"):
        prepare([tmp_path / "x"], tmp_path / "other", progress=watch)


@pytest.mark.data
def test_real_slices(tmp_path: Path, out: Path) -> None:
    root = Path(os.environ["BTKERAS_DATA"])
    folders = [folder for folder in sorted(root.iterdir()) if folder.is_dir()]
    images = [path for folder in folders for path in sorted(folder.iterdir())[::114]]
    for path in images:
        target = tmp_path / "some" / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    report = run(tmp_path / "some", out=out)
    assert sum(report.classes.values()) == len(images) >= 20
    for record in load_dataset(out).records:
        with Image.open(out / record.path) as image:
            assert image.mode in ("L", "RGB") and min(image.size) >= 16
