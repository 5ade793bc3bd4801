"""Folders of images and manifests to records."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from btkeras.datasets import CLASSES, Record, load_dataset
from btkeras.datasets.classes import class_name
from btkeras.datasets.dataset import MANIFEST, Dataset, write_manifest
from btkeras.errors import DataError

HEADER = "path,label,patient,source\n"
ROWS = HEADER + "a.png,glioma,1,X\nb.png,no_tumor,2,Y\n"


def put(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def manifest(root: Path, content: str | bytes) -> Path:
    root.mkdir(exist_ok=True)
    (root / MANIFEST).write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def error_of(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_dataset(root)
    assert "Received: " in str(caught.value)
    return str(caught.value)


def test_class_folders_are_records_sorted_by_path(tmp_path: Path) -> None:
    dataset = load_dataset(put(tmp_path, "pituitary/2.png", "glioma/b.JPG", "glioma/a.jpeg", "no_tumor/x.png"))
    assert [(record.path, record.label) for record in dataset.records] == [
        ("glioma/a.jpeg", "glioma"),
        ("glioma/b.JPG", "glioma"),
        ("no_tumor/x.png", "no_tumor"),
        ("pituitary/2.png", "pituitary"),
    ]
    assert dataset.classes == ("glioma", "no_tumor", "pituitary")
    assert dataset.counts() == {"glioma": 2, "no_tumor": 1, "pituitary": 1}


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("notumor", "no_tumor"),
        ("no", "no_tumor"),
        ("No Tumor", "no_tumor"),
        ("no-tumour", "no_tumor"),
        ("healthy", "no_tumor"),
        ("glioma_tumor", "glioma"),
        ("Meningioma Tumour", "meningioma"),
        (" PITUITARY ", "pituitary"),
        ("pituitary_tumor", "pituitary"),
        *((name, name) for name in CLASSES),
    ],
)
def test_the_usual_spellings_are_understood(spelling: str, name: str) -> None:
    assert class_name(spelling) == name


def test_images_in_folders_below_a_class_belong_to_it(tmp_path: Path) -> None:
    dataset = load_dataset(put(tmp_path, "glioma/scanner 1/7/a.png", "no/b.png"))
    assert dataset.records[0] == Record("glioma/scanner 1/7/a.png", "glioma")


@pytest.mark.parametrize("hidden", ["glioma/._a.png", "glioma/.cache/a.png", ".git/a.png"])
def test_hidden_files_are_no_images(tmp_path: Path, hidden: str) -> None:
    dataset = load_dataset(put(tmp_path, "glioma/a.png", "no/b.png", hidden))
    assert [record.path for record in dataset.records] == ["glioma/a.png", "no/b.png"]


def test_a_dataset_in_a_hidden_folder_is_found(tmp_path: Path) -> None:
    assert len(load_dataset(put(tmp_path / ".data", "glioma/a.png", "no/b.png")).records) == 2


@pytest.mark.parametrize("other", ["glioma/notes.txt", "no/Thumbs.db", "boxes.csv"])
def test_files_that_are_no_images_are_ignored(tmp_path: Path, other: str) -> None:
    assert len(load_dataset(put(tmp_path, "glioma/a.png", "no/b.png", other)).records) == 2


@pytest.mark.parametrize("ending", ["bmp", "TIF", "gif", "webp", "dcm", "mat"])
def test_images_of_another_format_are_not_left_out_in_silence(tmp_path: Path, ending: str) -> None:
    message = error_of(put(tmp_path, "glioma/a.png", f"glioma/b.{ending}", f"no/c.{ending}", "no/b.png"))
    assert f"'glioma/b.{ending}'" in message
    assert "btkeras prepare" in message


@pytest.mark.parametrize("subset", ["Training", "test", "val"])
def test_the_error_for_a_split_collection_says_how_to_join_it(tmp_path: Path, subset: str) -> None:
    message = error_of(put(tmp_path, f"{subset}/glioma/a.png", "other/no/b.png"))
    assert f"btkeras prepare {tmp_path}/" in message
    assert subset in message


@pytest.mark.parametrize(
    ("paths", "received"),
    [
        ((), "no image"),
        (("readme.txt",), "no image"),
        (("glioma/a.png", "glioma/b.png"), "{'glioma': 2}"),
        (("glioma/a.png", "no/notes.txt"), "no without any"),
    ],
)
def test_less_than_two_classes_are_errors(tmp_path: Path, paths: tuple[str, ...], received: str) -> None:
    assert received in error_of(put(tmp_path, *paths))


def test_a_missing_folder_and_a_file_are_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", put(tmp_path, "file.zip") / "file.zip"):
        assert f"A dataset must be a folder. Received: {path}" in error_of(path)


def test_a_name_that_is_no_utf_8_is_an_error(tmp_path: Path) -> None:
    put(tmp_path, "glioma/a.png", "no/b.png")
    try:
        Path(os.fsdecode(os.fsencode(tmp_path / "glioma") + b"/\xe9.png")).touch()
    except OSError:
        pytest.skip("this file system only takes UTF-8")
    assert "name must be UTF-8" in error_of(tmp_path)


def test_a_manifest_is_read_with_its_further_columns(tmp_path: Path) -> None:
    text = 'path,label,patient,source,age,note\nb/x.png,No Tumor,7,Br35H,,\na.png,glioma_tumor,3,,61,"left, small"\n'
    first, second = load_dataset(manifest(tmp_path, text)).records
    assert first == Record("a.png", "glioma", "3", "", {"age": "61", "note": "left, small"})
    assert second == Record("b/x.png", "no_tumor", "7", "Br35H", {"age": "", "note": ""})


def test_patient_and_source_may_be_left_out(tmp_path: Path) -> None:
    records = load_dataset(manifest(tmp_path, "label,path\nglioma,a.png\nno,./b//c.png\n")).records
    assert records == (Record("a.png", "glioma"), Record("b/c.png", "no_tumor"))


def test_a_manifest_from_excel_is_read(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + ROWS.replace("\n", "\r\n").encode()
    assert len(load_dataset(manifest(tmp_path, content)).records) == 2


@pytest.mark.parametrize("path", ["/etc/a.png", "../a.png", "b/../../a.png", "", ".", "a\0.png"])
def test_a_path_must_lie_inside_the_dataset(tmp_path: Path, path: str) -> None:
    message = error_of(manifest(tmp_path, f"{ROWS}{path},glioma,,\n"))
    assert "must lie inside" in message
    assert f"line 4: {path!r}" in message


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("", "an empty file"),
        ("path,patient\na.png,1\n", "Add label"),
        ("file,class\na.png,glioma\n", "Add path, label"),
        ("path,label,path\na.png,glioma,b.png\n", "each column once"),
        (HEADER + "a.png,glioma\n", "as many fields.*line 2"),
        (HEADER + "\n\na.png,glioma,1,X,5\n", "as many fields.*line 4"),
        (ROWS + "./a.png,glioma,,\n", "each image once. Received: a.png"),
        (ROWS + "c.png,gliom,,\n", "'gliom' in line 4 of .*Did you mean 'glioma'"),
        (ROWS + "c.png,,,\n", "'' in line 4"),
        (HEADER, "no image"),
        (ROWS.replace("a.png", "é.png").encode("latin-1"), "CSV file in UTF-8"),
        (ROWS.encode("utf-16"), "CSV file in UTF-8"),
        (HEADER + '"' + "x" * 200_000, "CSV file in UTF-8. Received: field larger"),
    ],
)
def test_a_manifest_that_is_none_is_an_error(tmp_path: Path, content: str | bytes, rule: str) -> None:
    with pytest.raises(DataError, match=f"(?s){rule}"):
        load_dataset(manifest(tmp_path, content))


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SEGMENT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=8)
PATHS = st.lists(SEGMENT.filter(lambda part: part not in (".", "..")), min_size=1, max_size=3).map("/".join)


@settings(max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.dictionaries(PATHS, st.tuples(TEXT, TEXT, TEXT), min_size=2, max_size=5), column=TEXT)
def test_a_written_manifest_is_read_back(tmp_path: Path, rows: dict[str, tuple[str, str, str]], column: str) -> None:
    column = f"x{column}"
    labels = [CLASSES[number % 4] for number in range(len(rows))]
    records = [
        Record(path, label, patient, source, {column: extra})
        for label, (path, (patient, source, extra)) in zip(labels, rows.items(), strict=True)
    ]
    write_manifest(tmp_path, records)
    assert load_dataset(tmp_path).records == tuple(sorted(records, key=lambda record: record.path))


def test_columns_that_only_some_records_have_are_empty_in_the_others(tmp_path: Path) -> None:
    write_manifest(tmp_path, [Record("b.png", "no_tumor"), Record("a.png", "glioma", extra={"age": "61"})])
    assert (tmp_path / MANIFEST).read_text() == "path,label,patient,source,age\na.png,glioma,,,61\nb.png,no_tumor,,,\n"


def test_a_manifest_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    manifest(tmp_path, ROWS)
    with pytest.raises(UnicodeEncodeError):
        write_manifest(tmp_path, [Record("\udce9.png", "glioma")])
    assert (tmp_path / MANIFEST).read_text() == ROWS
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST]


def test_paths_have_forward_slashes(tmp_path: Path) -> None:
    for record in load_dataset(put(tmp_path, "glioma/x/a.png", "no/b.png")).records:
        assert PurePosixPath(record.path).as_posix() == record.path


def with_boxes(folder: Path, *lines: str) -> Path:
    header = "file,x_center,y_center,width,height"
    (put(folder, "glioma/a.png", "glioma/b.png", "no/c.png") / "boxes.csv").write_text("\n".join([header, *lines]))
    return folder


def test_boxes_beside_class_folders_become_a_column(tmp_path: Path) -> None:
    found = load_dataset(with_boxes(tmp_path, "glioma/b.png,0.5,0.25,0.1,0.2", "glioma/gone.png,0.5,0.5,0.1,0.1"))
    assert [dict(record.extra) for record in found.records] == [{}, {"box": "0.5 0.25 0.1 0.2"}, {}]


@pytest.mark.parametrize("line", ["glioma/a.png,0.5,0.5,0.1,wide", "glioma/a.png,0.5,0.5,0.1,12", "glioma/a.png,0.5"])
def test_a_box_that_is_none_is_an_error(tmp_path: Path, line: str) -> None:
    assert "boxes.csv, line 2" in error_of(with_boxes(tmp_path, line))


def test_classes_are_not_collected_anew_for_each_image(tmp_path: Path) -> None:
    class Records(tuple[Record, ...]):
        walks = 0

        def __iter__(self) -> Iterator[Record]:
            Records.walks += 1
            return super().__iter__()

    dataset = Dataset(tmp_path, Records((Record("b.png", "pituitary"), Record("a.png", "glioma"))))
    assert [dataset.classes.index(record.label) for record in (*dataset.records, *dataset.records)] == [1, 0, 1, 0]
    assert Records.walks == 3
