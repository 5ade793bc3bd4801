"""Classes are what folders and manifests say: the usual names, and any others."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from btkeras.cli import predict_scans, predict_slices
from btkeras.datasets import load_dataset
from btkeras.datasets.classes import RESERVED, class_name
from btkeras.datasets.masks import pair_masks
from btkeras.datasets.names_together import parse_names
from btkeras.errors import DataError
from btkeras.inference.dicom_columns import COLUMNS
from tests.prepare_files import encoded, prepare, put, quiet, records, rows
from tests.test_dataset import error_of, manifest
from tests.test_dataset import put as touch

FIVE = ("glioma", "meningioma", "metastasis", "no_tumor", "pituitary")


def with_classes(*sources: Path, out: Path, classes: Any = ()) -> dict[str, int]:
    return dict(prepare(sources, out, classes=classes, progress=quiet).classes)


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        (("yes", "no"), ("no_tumor", "tumor")),
        (("Brain Tumor", "Healthy"), ("no_tumor", "tumor")),
        (("glioma_tumor", "meningioma", "Metastasis", "notumor", "pi"), ("Metastasis", *FIVE[:2], *FIVE[3:])),
        (("lymphoma", "abscess"), ("abscess", "lymphoma")),
        (("WHO grade 2", "WHO grade 3", "WHO grade 4"), ("WHO grade 2", "WHO grade 3", "WHO grade 4")),
        (("glioma1", "glioma2"), ("glioma1", "glioma2")),
        (("0", "1"), ("0", "1")),
        (("läsion", "normal"), ("läsion", "no_tumor")),
    ],
)
def test_any_folders_are_classes(tmp_path: Path, folders: tuple[str, ...], classes: tuple[str, ...]) -> None:
    dataset = load_dataset(touch(tmp_path, *(f"{folder}/a.png" for folder in folders)))
    assert dataset.classes == tuple(sorted(classes))
    assert set(dataset.counts().values()) == {1}


def test_classes_that_are_not_the_usual_ones_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "glioma/a.png", "cyst/a.png")
    with caplog.at_level(logging.INFO, "btkeras"):
        load_dataset(tmp_path)
        load_dataset(tmp_path)
    assert [record.message for record in caplog.records] == [f"{tmp_path}: classes cyst, glioma"]


@pytest.mark.parametrize(
    ("spelling", "meant"),
    [
        *((each, "glioma") for each in ("glioms", "gliom", "giloma", "glioma_tumr")),
        *((each, "meningioma") for each in ("meningoma", "menigioma", "meningiomma")),
        *((each, "pituitary") for each in ("pitutary", "pituatary", "Pitiutary")),
        *((each, "no_tumor") for each in ("no_tumr", "notumors", "normals")),
    ],
)
def test_a_usual_class_misspelt_is_no_class_of_its_own(tmp_path: Path, spelling: str, meant: str) -> None:
    rest = f" in {tmp_path}. Did you mean {meant!r}."
    assert f"Received: {spelling!r}{rest}" in error_of(touch(tmp_path, f"{spelling}/a.png", "no/b.png"))
    with pytest.raises(DataError, match=f"Did you mean '{meant}'"):
        load_dataset(manifest(tmp_path / "m", f"path,label\na.png,{spelling}\nb.png,no\n"))


@pytest.mark.parametrize(
    "name",
    [
        *("unhealthy", "abnormal", "lipoma", "glioblastoma", "oligodendroglioma", "schwannoma", "low_grade_glioma"),
        *("pituitary_macroadenoma", "meningioma_2", "metastases", "lgg", "neuroma", "craniopharyngioma", "hemangioma"),
    ],
)
def test_a_name_like_a_usual_one_may_be_another(name: str) -> None:
    assert class_name(name) == name


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "uncertain", "Rejected", "macro", "a,b", "-x", " ", "x" * 41, "a\nb", "?"]
)
def test_what_can_be_no_name_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="A class's name must be") as caught:
        load_dataset(manifest(tmp_path, f'path,label\na.png,"{name}"\nb.png,no\n'))
    assert "manifest.csv" in str(caught.value)


def test_no_class_is_called_as_a_column_of_predictions() -> None:
    columns = {*predict_slices._KEYS, *predict_scans._KEYS, *COLUMNS} - {"probabilities", "slice_index"}
    assert columns <= RESERVED


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (("glioma/a.png", "yes/b.png"), "either kinds of tumours or tumor.*Received: tumor beside glioma in"),
        (("Cyst/a.png", "cyst/b.png"), "more than capitals and separators.*Received: Cyst and cyst in"),
        (
            ("glioma/a.png", "masks/b.png"),
            "folders must be classes.*masks, by its name a kind of file.*btkeras prepare",
        ),
        (("a.png", "images/b.png", "no/c.png"), "images, by its name a kind of file"),
        (tuple(f"P{n}/a.png" for n in range(21)), "21 folders in .* look like patients: P0, P1, P10.*--classes"),
    ],
)
def test_folders_that_make_no_sense_together_are_errors(tmp_path: Path, paths: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_dataset(touch(tmp_path, *paths))


def test_a_class_folder_is_no_dataset_of_its_patients(tmp_path: Path) -> None:
    assert "look like patients: P1, P2" in error_of(touch(tmp_path / "glioma", "P1/a.png", "P2/b.png"))
    assert load_dataset(touch(tmp_path / "brain tumor", "cyst/a.png", "lymphoma/b.png")).classes == ("cyst", "lymphoma")


def test_a_manifest_of_labels_of_its_own_is_read(tmp_path: Path) -> None:
    found = load_dataset(manifest(tmp_path, "path,label\na.png, lymphoma \nb.png,abscess\nc.png,lymphoma\n"))
    assert found.counts() == {"abscess": 1, "lymphoma": 2}


def test_prepare_takes_further_classes_by_name(tmp_path: Path) -> None:
    source = put(tmp_path / "x", {f"in/{name}/P{n}/a.png": encoded() for name in FIVE for n in range(2)})
    with pytest.raises(DataError, match=r"'metastasis', where .* --classes metastasis\."):
        with_classes(source, out=tmp_path / "out")
    assert with_classes(source, out=tmp_path / "out", classes=["metastasis"]) == dict.fromkeys(FIVE, 2)
    assert load_dataset(tmp_path / "out").classes == FIVE
    assert {path.split("/")[1] for path in records(tmp_path / "out")} == set(FIVE)
    # A dataset keeps its classes when it is a source.
    assert with_classes(tmp_path / "out", out=tmp_path / "again") == dict.fromkeys(FIVE, 2)


def test_all_folders_that_are_no_classes_are_named(tmp_path: Path) -> None:
    names = ("brain abscess", "lymphoma", "cyst")
    source = put(tmp_path / "x", {f"{name}/{n}.png": encoded() for name in names for n in range(2)})
    with pytest.raises(DataError, match=r"'brain abscess', where .*/0.png lies, and 2 more such folders") as caught:
        with_classes(source, out=tmp_path / "out")
    assert "--classes 'brain abscess,cyst,lymphoma'" in str(caught.value)
    with pytest.raises(DataError, match="--classes 'cyst,brain abscess,lymphoma'"):
        with_classes(source, out=tmp_path / "out", classes=["cyst"])


def test_a_source_may_be_the_folder_of_a_further_class(tmp_path: Path) -> None:
    sources = [put(tmp_path / "h" / name, {"a.png": encoded()}) for name in ("Lymphoma", "abscess")]
    assert with_classes(*sources, out=tmp_path / "out", classes=["lymphoma", "abscess"]) == {
        "abscess": 1,
        "lymphoma": 1,
    }
    assert {row["source"] for row in rows(tmp_path / "out/manifest.csv")} == {"h"}


def test_kinds_of_tumours_may_lie_in_one_folder(tmp_path: Path) -> None:
    files = {"Tumor/glioma/a.png": encoded(), "Tumor/cyst/b.png": encoded(), "Normal/c.png": encoded()}
    found = with_classes(put(tmp_path / "x", files), out=tmp_path / "out", classes=["cyst"])
    assert found == {"cyst": 1, "glioma": 1, "no_tumor": 1}


def test_a_collection_that_is_called_brain_tumor_is_no_class(tmp_path: Path) -> None:
    source = put(tmp_path / "x", {"Brain Tumor/cyst/a.png": encoded(), "Brain Tumor/Healthy/b.png": encoded()})
    with pytest.raises(DataError, match=r"'cyst', where .*cyst/a.png lies\."):
        with_classes(source, out=tmp_path / "out")
    put(source, {"Brain Tumor/Brain Tumor/P1/a.png": (source / "Brain Tumor/cyst/a.png").read_bytes()})
    (source / "Brain Tumor/cyst/a.png").unlink()
    assert with_classes(source, out=tmp_path / "out") == {"no_tumor": 1, "tumor": 1}
    alone = put(tmp_path / "y", {"tumor/P1/a.png": encoded(), "tumor/P2/b.png": encoded()})
    assert with_classes(alone, out=tmp_path / "other") == {"tumor": 2}


def test_scans_of_a_further_class_are_named_as_those_of_the_usual_ones() -> None:
    paths = [
        f"{{}}/{path}" for path in ("P1/t1.nii.gz", "P1/seg.nii.gz", "P2/t1.nii.gz", "3.nii.gz", "visit1/P4.nii.gz")
    ]
    own, usual = ([path.format(name) for path in paths] for name in ("metastasis", "glioma"))
    names, known = parse_names(own, frozenset({"metastasis"})), parse_names(usual)
    assert [names[path].patient for path in own] == [known[path].patient for path in usual]
    assert names[own[0]].patient == "P1" and {names[path].label for path in own} == {"metastasis"}
    assert pair_masks(names).mask_of == {own[0]: own[1]}
