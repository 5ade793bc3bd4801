"""Published collections: their download by name, and what `prepare` makes of their layouts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from btkeras.cli import main
from btkeras.config import DataConfig
from btkeras.datasets import load_dataset
from btkeras.datasets.collections import published_names
from btkeras.datasets.download import Deposit
from btkeras.datasets.readers.selection import LeftOut
from btkeras.errors import DataError
from btkeras.splitting.splits import make_split
from tests.prepare_files import GREY, encoded, figshare_download, pixels, put, records, rows, run, zipped

FOLDERS = {"gl": "glioma", "me": "meningioma", "no": "no_tumor", "pi": "pituitary"}
# Columns of BRISC's own manifest.
BRISC_MANIFEST = (
    b"task,split,relative_path,is_mask,linked_image,tumor,tumor_label,view,sequence,sha256\n"
    b"classification,train,classification_task\\train\\glioma\\brisc2025_train_00001_gl_ax_t1.jpg,False,,gl,glioma,ax,t1,0\n"
)


def slice_of(number: int) -> bytes:
    """A slice of 24 x 24 that differs for each number."""
    return encoded(np.random.default_rng(number).integers(0, 256, (24, 24), dtype=np.uint8), "JPEG", quality=95)


def mask_at(top: int) -> bytes:
    mask = np.zeros((24, 24), np.uint8)
    mask[top : top + 4, 6:12] = 255
    return encoded(mask)


def brisc(per_part: int = 3) -> dict[str, bytes]:
    """A small BRISC 2025, in the folders and with the names of the published archive."""
    files = {"manifest.csv": BRISC_MANIFEST, "manifest.json": b"[]", "README.md": b"# BRISC"}
    for part in ("train", "test"):
        for number in range(4 * per_part):
            code = list(FOLDERS)[number % 4]
            axis = ("ax", "co", "sa")[number // 4 % 3]
            stem = f"brisc2025_{part}_{number + 1:05d}_{code}_{axis}_t1"
            image = slice_of(number + 100 * (part == "test"))
            files[f"classification_task/{part}/{FOLDERS[code]}/{stem}.jpg"] = image
            if code != "no":
                files[f"segmentation_task/{part}/images/{stem}.jpg"] = image
                files[f"segmentation_task/{part}/masks/{stem}.png"] = mask_at(number)
    return files


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def columns(out: Path, *names: str) -> Counter[tuple[str, ...]]:
    """How often each combination of columns occurs."""
    return Counter(
        tuple(getattr(r, name, None) or r.extra.get(name, "") for name in names) for r in records(out).values()
    )


@pytest.mark.parametrize(
    ("name", "url", "said"),
    [
        (
            "figshare",
            "https://api.figshare.com/v2/articles/1512427",
            "figshare: brain tumor dataset (Cheng 2017), doi 10.6084/m9.figshare.1512427, licence: CC BY 4.0",
        ),
        (
            "brisc",
            "https://zenodo.org/api/records/17524350",
            "brisc: BRISC 2025 (Fateh et al. 2025), doi 10.5281/zenodo.17524350, licence: CC BY 4.0",
        ),
    ],
)
def test_a_download_by_name_says_whose_the_collection_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, url: str, said: str
) -> None:
    files = {"1512427.zip": figshare_download()} if name == "figshare" else {"brisc2025.zip": zipped(brisc())}

    def fetch(deposit: Deposit, folder: Path) -> None:
        assert deposit.url == url
        put(folder, files)

    monkeypatch.setattr("btkeras.datasets.download.download", fetch)
    options = ["--download-dir", str(tmp_path / "downloads"), "--out", str(tmp_path / "data")]
    result = CliRunner().invoke(main, ["prepare", "--download", name, "--no-mri-check", *options])
    assert result.exit_code == 0, result.output
    assert said in result.stderr and said in result.stdout
    assert f"Sources: {name} ({4 if name == 'figshare' else 24})" in result.stdout


def test_folders_that_may_be_initials_are_no_subsets(tmp_path: Path, out: Path) -> None:
    paths = ["glioma/TR/1.jpg", "glioma/te/2.jpg", "no/dev/3.jpg", "no/ts/4.jpg"]
    run(put(tmp_path / "x", {path: slice_of(i) for i, path in enumerate(paths)}), out=out)
    assert columns(out, "subset") == {("",): 4}


@pytest.mark.parametrize("packed", ["folder", "zip", "zip in a folder with the manifest"])
def test_brisc_is_read_with_its_split_planes_masks_and_boxes(tmp_path: Path, out: Path, packed: str) -> None:
    files = {f"brisc2025/{path}": data for path, data in brisc().items()}
    if packed == "folder":
        source = put(tmp_path, files) / "brisc2025"
    else:
        manifest = {"x/manifest.csv": BRISC_MANIFEST} if "manifest" in packed else {}
        source = put(tmp_path, {"x/brisc2025.zip": zipped(files), **manifest}) / "x"
        source = source if manifest else source / "brisc2025.zip"
    report = run(source, out=out)
    assert report.sources == {"brisc": 24} and report.subsets == {"test": 12, "train": 12}
    assert columns(out, "subset", "plane", "sequence") == {
        (part, axis, "t1"): 4 for part in ("train", "test") for axis in ("axial", "coronal", "sagittal")
    }
    found = records(out)
    # Number 7 of the test part, whose mask covers rows 7 to 10 and columns 6 to 11.
    path = "images/pituitary/brisc2025_test_00008_pi_co_t1.jpg"
    assert found[path].box == pytest.approx((7 / 24, 6 / 24, 11 / 24, 12 / 24), abs=1e-5)
    assert np.argwhere(pixels(out / found[path].extra["mask"]))[[0, -1]].tolist() == [[7, 6], [10, 11]]
    assert {r.label for r in found.values() if "mask" not in r.extra or not r.extra["mask"]} == {"no_tumor"}
    copies = [file for file in report.left_out if file.kind == "copy of an image of the classification task"]
    assert len(copies) == 18
    assert "collections.csv" in {file.name for file in out.iterdir()}
    assert rows(out / "collections.csv") == [
        {
            "name": "brisc",
            "title": "BRISC 2025 (Fateh et al. 2025)",
            "reference": "doi 10.5281/zenodo.17524350",
            "license": "CC BY 4.0",
        }
    ]
    assert "brisc: BRISC 2025 (Fateh et al. 2025), doi 10.5281/zenodo.17524350, licence: CC BY 4.0" in report.summary()
    assert "Published split: test (12), train (12); to test it: --group-by official" in report.summary()


def test_brisc_s_split_is_the_one_that_is_tested(tmp_path: Path, out: Path) -> None:
    run(put(tmp_path / "brisc2025", brisc(6)), out=out)
    split = make_split(load_dataset(out), DataConfig(group_by="official", validation_fraction=0.4))
    assert sorted(record.path for record in split.test) == sorted(p for p in records(out) if "_test_" in p)
    assert all("_train_" in record.path for record in (*split.train, *split.validation))


def test_brisc_s_segmentation_task_alone_has_its_classes_in_the_names(tmp_path: Path, out: Path) -> None:
    put(tmp_path / "b", brisc())
    report = run(tmp_path / "b/segmentation_task", out=out)
    assert report.classes == {"glioma": 6, "meningioma": 6, "pituitary": 6}
    assert all(record.box and record.source == "brisc" for record in records(out).values())


@pytest.mark.parametrize("tasks", [("classification", "segmentation"), ("segmentation", "classification")])
def test_both_tasks_given_one_by_one_are_the_same_images(tmp_path: Path, out: Path, tasks: tuple[str, ...]) -> None:
    put(tmp_path / "b", brisc())
    report = run(*(tmp_path / f"b/{task}_task" for task in tasks), out=out)
    assert report.sources == {"brisc": 24} and report.duplicates == 0
    assert sum(bool(record.box) for record in records(out).values()) == 18
    assert {Path(file.path).parts[-4] for file in report.left_out} == {"segmentation_task"}


def test_an_image_that_only_the_segmentation_task_has_is_taken_from_it(tmp_path: Path, out: Path) -> None:
    files = brisc()
    gone = "classification_task/test/glioma/brisc2025_test_00001_gl_ax_t1.jpg"
    del files[gone]
    report = run(put(tmp_path / "b", files), out=out)
    # The segmentation task has the only image of that name left.
    assert report.classes["glioma"] == 6
    assert records(out)["images/glioma/brisc2025_test_00001_gl_ax_t1.jpg"].box


def kaggle() -> dict[str, bytes]:
    """The names of the published archive of 7,023 images, numbered and with ``Tr`` as there."""
    files = {}
    folders = {**FOLDERS, "no": "notumor"}
    for part, prefix in (("Training", "Tr"), ("Testing", "Te")):
        for code, folder in folders.items():
            for number, more in ((10, ""), (0, "Tr"), (1289, "")):
                name = f"{prefix}-{code}{more}_{number:04d}.jpg"
                files[f"{part}/{folder}/{name}"] = slice_of(len(files))
    return files


@pytest.mark.parametrize("folder", ["archive", "archive (1)", "brain-tumor-mri-dataset"])
def test_kaggle_s_7023_images_are_known_by_their_names(tmp_path: Path, out: Path, folder: str) -> None:
    report = run(put(tmp_path / folder, kaggle()), out=out)
    assert report.sources == {"nickparvar": 24}
    assert columns(out, "label", "subset") == {
        (label, part): 3 for label in FOLDERS.values() for part in ("train", "test")
    }
    assert "nickparvar: Brain Tumor MRI Dataset (Nickparvar 2021), doi 10.34740/kaggle/dsv/2645886" in report.summary()


def test_the_published_subset_stays_known_where_the_folders_were_joined(tmp_path: Path, out: Path) -> None:
    joined = {path.partition("/")[2]: data for path, data in kaggle().items()}
    run(put(tmp_path / "joined", joined), out=out)
    assert columns(out, "source", "subset") == {("nickparvar", "train"): 12, ("nickparvar", "test"): 12}


def sartaj() -> dict[str, bytes]:
    names = {
        "Training/glioma_tumor": ["gg (1).jpg", "gg (826).jpg"],
        "Training/meningioma_tumor": ["m (1).jpg", "m1(10).jpg", "m3 (2).jpg"],
        "Training/no_tumor": ["1.jpg", "image (2).jpg", "image(3).jpg"],
        "Training/pituitary_tumor": ["p (1).jpg", "p (827).jpg"],
        **{
            f"Testing/{name}_tumor": ["image(1).jpg", "image (2).jpg"] for name in ("glioma", "meningioma", "pituitary")
        },
        "Testing/no_tumor": ["image(1).jpg", "image(105).jpg"],
    }
    paths = [f"{folder}/{name}" for folder, own in names.items() for name in own]
    return {path: slice_of(number) for number, path in enumerate(paths)}


@pytest.mark.parametrize("as_zip", [False, True])
def test_sartaj_s_layout_is_known(tmp_path: Path, out: Path, as_zip: bool) -> None:
    files = {f"Brain-Tumor-Classification-DataSet-master/{path}": data for path, data in sartaj().items()}
    source = put(tmp_path, {"archive.zip": zipped(files)} if as_zip else files)
    report = run(source / ("archive.zip" if as_zip else ""), out=out) if as_zip else run(*source.iterdir(), out=out)
    assert report.sources == {"sartaj": 18}
    assert columns(out, "subset") == {("train",): 10, ("test",): 8}


def test_subsets_given_one_by_one_are_known_too(tmp_path: Path, out: Path) -> None:
    put(tmp_path / "archive", sartaj())
    assert run(tmp_path / "archive/Training", tmp_path / "archive/Testing", out=out).sources == {"sartaj": 18}


@pytest.mark.parametrize(
    ("paths", "sources"),
    [
        (["br35h/no/no0.jpg", "br35h/no/no1499.jpg"], {"br35h": 2}),
        (["archive/no/no7.jpg", "archive/glioma/7.png"], {"br35h": 1, "archive": 1}),
        # Other collections with names that are alike.
        (["a/no_tumor/1.jpg", "a/glioma_tumor/1.jpg"], {"a": 2}),
        (["a/no/no 1.jpg", "a/glioma/Y1.jpg"], {"a": 2}),
        (["a/glioma/Tr-gl.jpg", "a/no_tumor/image(1).jpg"], {"a": 2}),
        (["a/glioma/G_1.jpg", "a/no_tumor/N_1.jpg"], {"a": 2}),
        (["a/glioma/brisc_1.jpg", "a/notumor/brisc2025_1.jpg"], {"a": 2}),
    ],
)
def test_names_of_others_are_no_collection_s(
    tmp_path: Path, out: Path, paths: list[str], sources: dict[str, int]
) -> None:
    files = {path: slice_of(number) for number, path in enumerate(paths)}
    assert run(*put(tmp_path / "x", files).iterdir(), out=out).sources == sources


@pytest.mark.parametrize(
    ("path", "subset", "label", "plane"),
    [
        (
            "brisc2025/segmentation_task/train/images/brisc2025_train_03933_pi_sa_t1.jpg",
            "train",
            "pituitary",
            "sagittal",
        ),
        ("BRISC2025_TEST_00561_NO_AX_T1.JPG", "test", "no_tumor", "axial"),
        ("x/brisc2025_test_00001_nt_co_t1.png", "test", "no_tumor", "coronal"),
        ("Testing/glioma/Te-gl_219.jpg", "test", "glioma", ""),
        ("Te-piTr_0000.jpg", "test", "pituitary", ""),
        ("Training/meningioma/Tr-aug-me_12.jpg", "train", "meningioma", ""),
    ],
)
def test_what_a_name_says(path: str, subset: str, label: str, plane: str) -> None:
    found = published_names([path])[path]
    assert (found.subset, found.label, found.plane) == (subset, label, plane)


FOREIGN = [
    BRISC_MANIFEST,
    b"filename,label\na.png,glioma\n",
    b"image_path,mask_path,tumor\nglioma/a.png,,gl\n",
    b"path,label\n/kaggle/input/x.png,0\n/kaggle/input/y.png,1\n",
    b"path;label\nglioma/a.png;glioma\n",
    b"",
]


@pytest.mark.parametrize("manifest", FOREIGN)
def test_another_project_s_manifest_is_not_taken_for_ours(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture, manifest: bytes
) -> None:
    files = {"glioma/a.png": encoded(), "no/b.png": encoded(), "manifest.csv": manifest}
    source = put(tmp_path / "x", files)
    assert run(source, out=out).classes == {"glioma": 1, "no_tumor": 1}
    assert [record.path for record in load_dataset(source).records] == ["glioma/a.png", "no/b.png"]
    assert "x/manifest.csv is another project's" in caplog.text and "folders are read" in caplog.text


@pytest.mark.parametrize("manifest", FOREIGN[:4])
def test_where_neither_works_the_error_says_both(tmp_path: Path, out: Path, manifest: bytes) -> None:
    source = put(tmp_path / "x", {"scans/a.png": encoded(), "manifest.csv": manifest})
    with pytest.raises(DataError, match=r"folder named after its class|A class must be one of.*'scans'"):
        run(source, out=out)
    with pytest.raises(DataError, match=r"manifest\.csv"):
        load_dataset(source)


def test_a_manifest_of_ours_with_another_project_s_split_keeps_it(tmp_path: Path, out: Path) -> None:
    lines = [
        f"{label}/{i}.png,{label},{'test' if i > 2 else 'train'}" for label in ("glioma", "pituitary") for i in range(6)
    ]
    images = {line.partition(",")[0]: slice_of(n) for n, line in enumerate(lines)}
    run(put(tmp_path / "x", {"manifest.csv": "\n".join(["path,label,split", *lines]).encode(), **images}), out=out)
    split = make_split(
        load_dataset(out), DataConfig(group_by="official", split_column="split", validation_fraction=0.4)
    )
    assert {r.extra["split"] for r in split.test} == {"test"} and len(split.test) == 6


@pytest.mark.parametrize("unlisted", ["glioma/new.png", "later/IM0001", "pituitary/scan.nii"])
def test_images_that_a_manifest_does_not_list_are_named(tmp_path: Path, out: Path, unlisted: str) -> None:
    listed = b"path,label,mask\nglioma/a.png,glioma,odd/m.png\nno/b.png,no_tumor,\n"
    files = {path: encoded() for path in ("glioma/a.png", "no/b.png", unlisted, "masks/glioma/a.png")}
    tumour = np.zeros(GREY.shape, np.uint8)
    tumour[4:9, 5:9] = 255
    files |= {"odd/m.png": encoded(tumour), "manifest.csv": listed, "left_out.csv": b"path,reason\n", ".x/c.png": b""}
    report = run(put(tmp_path / "x", files), out=out)
    assert report.classes == {"glioma": 1, "no_tumor": 1}
    assert report.left_out == (LeftOut(f"x/{unlisted}", "not in manifest.csv"),)
    assert f"x/{unlisted},not in manifest.csv" in (out / "left_out.csv").read_text()


def test_an_image_in_another_class_s_folder_than_its_name_says_is_named(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = kaggle()
    files["Training/notumor/Tr-gl_0010.jpg"] = files.pop("Training/glioma/Tr-gl_0010.jpg")
    run(put(tmp_path / "x", files), out=out)
    assert records(out)["images/no_tumor/Tr-gl_0010.jpg"].label == "no_tumor"
    assert "1 images lie in another class's folder than their names say" in caplog.text
