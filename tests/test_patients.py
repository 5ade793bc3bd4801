"""Whose slices: ``prepare --patients``, ``patients.csv``, and ids that mean one patient."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from btkeras.cli import main
from btkeras.config import ExperimentConfig
from btkeras.datasets.dataset import Record, load_dataset
from btkeras.datasets.patients import load_patients, patient_columns, read_patients
from btkeras.errors import DataError
from tests.dicom_files import dicom
from tests.mat_files import mat73, slice_mat
from tests.prepare_files import encoded, figshare_files, prepare, put, quiet, records, rows, run, zipped

IMAGE = encoded()
NAMES = ("glioma/0001.png", "glioma/12.png", "glioma/scan.b.png", "no_tumor/0003.png")
FILES = dict.fromkeys(NAMES, IMAGE)


def said(out: Path) -> dict[str, tuple[str, str, str]]:
    """By the name of the source's file: patient, published id, fold."""
    found = records(out).values()
    columns = ("published_patient", "official_fold")
    return {r.extra["original"]: (r.patient, *(r.extra.get(column, "") for column in columns)) for r in found}


@pytest.mark.parametrize(
    "table",
    [
        "image,patient,fold\n1,MR1B,2\n0012,MR1,3\nSCAN.B,P7,\n",
        "image,patient,fold\n0001.png,MR1B,2\n12.png,MR1,3\nscan.b.png,P7,\n",
        "\ufeffPath , Patient,a,fold\nglioma/0001.png,MR1B,,2\n./glioma/12.png, MR1 ,,3\nglioma/scan.b.png,P7,3,\n\n",
        "image,path,patient,fold\n1,,MR1B,2\nx,glioma/12.png,MR1,3\nscan.b,,P7,\n3,,,\n",
    ],
)
def test_a_table_names_patients_by_number_name_or_path(tmp_path: Path, table: str) -> None:
    study = put(tmp_path / "study", FILES)
    file = put(tmp_path, {"ids.csv": table.encode()}) / "ids.csv"
    command = ["prepare", str(study), "--patients", str(file), "--out", str(tmp_path / "out"), "--no-mri-check"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "Patients: 2 of 3 ids; images without a known patient: 1" in result.output
    assert said(tmp_path / "out") == {
        "glioma/0001.png": ("MR1", "MR1B", "2"),
        "glioma/12.png": ("MR1", "", "3"),
        "glioma/scan.b.png": ("P7", "", ""),
        "no_tumor/0003.png": ("", "", ""),
    }
    # The same table beside class folders is read by itself, by prepare, in a zip too, and by what takes folders.
    put(study, {"patients.csv": table.encode()})
    assert run(study, out=tmp_path / "again").left_out == ()
    assert said(tmp_path / "again") == said(tmp_path / "out")
    archive = tmp_path / "study.zip"
    archive.write_bytes(zipped({**FILES, "patients.csv": table.encode()}))
    run(archive, out=tmp_path / "unzipped")
    prepare([archive], tmp_path / "named", patients=file, progress=quiet)
    zipped_paths = {f"study.zip/{path}": columns for path, columns in said(tmp_path / "out").items()}
    assert said(tmp_path / "unzipped") == said(tmp_path / "named") == zipped_paths
    plain = {record.path: record.patient for record in load_dataset(study).records}
    assert plain == {path: patient for path, (patient, *_) in said(tmp_path / "out").items()}


TABLES = {
    "image,id\n1,P1\n": r"must have the columns.*with image,id",
    "patient,fold\nP1,1\n": "must have the columns",
    "": "an empty file",
    "image,patient\n1,P1\n0001,P2\n": r"must have one patient.*lines 2 and 3",
    "image,patient,fold\n1,P1,2\n1,P1,3\n": "one series and one fold",
    "image,path,patient\n1,,P1\n,glioma/0001.png,P2\n": "must have one patient.*line 2: glioma/0001.png with another",
    "image,patient,fold\n1,P1,0\n": r"a fold by a number from 1 on.*line 2: 1,P1,0",
    "image,patient,fold\n1,P1,2.0\n": "a number from 1 on",
    "image,patient\n,P1\n": "must name an image",
    "image,patient,series\n1,P1,s1\n1,P1,s2\n": "must have one patient, one series",
    "image,patient\n99,P1\nb,P2\n": "none of 2 lines does, '99' the first",
    "path,patient\n1.png,P1\n": "none of 1 lines",
    "image,patient\n7,P1\n": r"must name one image by its image.*glioma/07.png and no_tumor/7.png.*column path",
}


@pytest.mark.parametrize(("table", "words"), TABLES.items())
def test_tables_that_would_make_the_data_wrong_stop(tmp_path: Path, table: str, words: str) -> None:
    study = put(tmp_path / "study", {**FILES, "glioma/07.png": IMAGE, "no_tumor/7.png": IMAGE})
    file = put(tmp_path, {"ids.csv": table.encode()}) / "ids.csv"
    with pytest.raises(DataError, match=rf"(?s){words}"):
        prepare([study], tmp_path / "out", patients=file, progress=quiet)
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="must be readable"):
        load_patients(tmp_path / "nowhere.csv")


def test_lines_of_images_that_are_not_there_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path / "study", {**FILES, "patients.csv": b"image,patient\n1,P1\n2,P1\n4,P2\n"})
    run(tmp_path / "study", out=tmp_path / "out")
    assert "study/patients.csv: 2 of 3 lines name no image, '2' the first" in caplog.text


def test_a_table_is_of_the_images_below_its_folder_and_the_option_counts_more(tmp_path: Path) -> None:
    one = {
        "Training/glioma/1.png": IMAGE,
        "Training/no_tumor/2.png": IMAGE,
        "Training/patients.csv": b"image,patient\n1,A\n",
    }
    two = {
        "Testing/glioma/1.png": IMAGE,
        "Testing/no_tumor/2.png": IMAGE,
        "Testing/patients.csv": b"image,patient\n1,B\n",
    }
    study = put(tmp_path / "study", one | two)
    run(study, out=tmp_path / "out")
    assert {path: patient for path, (patient, *_) in said(tmp_path / "out").items() if patient} == {
        "Training/glioma/1.png": "A",
        "Testing/glioma/1.png": "B",
    }
    file = put(tmp_path, {"ids.csv": b"path,patient\nTesting/glioma/1.png,C\n"}) / "ids.csv"
    prepare([study], tmp_path / "other", patients=file, progress=quiet)
    assert {patient for patient, *_ in said(tmp_path / "other").values()} == {"A", "C", ""}


def test_ids_of_one_patient_are_one_wherever_they_are_from(tmp_path: Path) -> None:
    assert patient_columns("MR000001C") == {"patient": "MR000001", "published_patient": "MR000001C"}
    for other in ("MR000001", "P1A", "sub-MR1A", "MR1AB", "mr1A", "100360"):
        assert patient_columns(other) == {"patient": other}
    pixels = np.random.default_rng(0).integers(0, 3000, (24, 32), dtype=np.int16)
    ids = ("MR000001", "MR000001B", "100360")
    slices = {f"{n}.mat": slice_mat(pixels, 2, patient) for n, patient in enumerate(ids, start=1)}
    run(put(tmp_path / "figshare", {**slices, "4.mat": slice_mat(pixels, 1, "P1A")}), out=tmp_path / "out")
    expected = {"1.mat": "MR000001", "2.mat": "MR000001", "3.mat": "100360", "4.mat": "P1A"}
    assert {name: patient for name, (patient, *_) in said(tmp_path / "out").items()} == expected
    # A manifest of before, or of somebody's own, is read so too.
    manifest = tmp_path / "out/manifest.csv"
    table = rows(manifest)
    for row in table:
        row["patient"] = row.pop("published_patient") or row["patient"]
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    assert {name: patient for name, (patient, *_) in said(tmp_path / "out").items()} == expected


def test_a_table_and_figshare_s_files_must_agree(tmp_path: Path) -> None:
    files = {**figshare_files(), "cvind.mat": mat73({"cvind": np.array([[5.0], [1.0], [2.0], [2.0]])})}
    put(tmp_path / "ok", {**files, "patients.csv": b"image,patient,fold\n1,P1,5\n4,P3,2\n"})
    run(tmp_path / "ok", out=tmp_path / "out")
    for line in (b"1,P9,5", b"1,P1,4"):
        put(tmp_path / "ok", {"patients.csv": b"image,patient,fold\n" + line})
        with pytest.raises(DataError, match="must say what the files say"):
            run(tmp_path / "ok", out=tmp_path / "other")


def test_published_ids_are_in_no_image_s_name(tmp_path: Path) -> None:
    names = ("MR000001B_12", "x-mr000001", "MR000001_7", "scan 100360", "0012", "MR0000019")
    ids = ("MR000001B", "MR000001", "MR000001B", "100360", "12", "MR000001")
    table = "\n".join(["image,patient", *map(",".join, zip(names, ids, strict=True))])
    files = {f"{'glioma' if n < 4 else 'no_tumor'}/{name}.png": IMAGE for n, name in enumerate(names)}
    run(put(tmp_path / "study", {**files, "patients.csv": table.encode()}), out=tmp_path / "out")
    stems = {record.extra["original"]: Path(record.path).stem for record in records(tmp_path / "out").values()}
    first, second = stems["glioma/MR000001B_12.png"], stems["glioma/MR000001_7.png"]
    # What is left tells slices of a patient apart, and nothing of a class.
    assert first.endswith("_12") and second == first.replace("_12", "_7") and stems["glioma/x-mr000001.png"][:2] == "x-"
    assert not any("mr000001" in name.lower() or "100360" in name for name in list(stems.values())[:4])
    assert stems["no_tumor/0012.png"] == "0012"


def test_no_id_is_in_a_model_or_its_predictions(tmp_path: Path, tiny_config: Callable[..., ExperimentConfig]) -> None:
    from btkeras.export.export import export
    from btkeras.models import build_model
    from btkeras.runs import create_run
    from btkeras.splitting.splits import make_split

    rng, lines, study = np.random.default_rng(0), ["image,patient"], tmp_path / "study"
    for number in range(48):
        # Two classes of eight patients, whose images are named after them.
        label, patient = ("glioma", "pituitary")[number % 2], f"MR777{number % 16:03}"
        name = f"{patient}B_{number}"
        lines.append(f"{name},{patient}B")
        put(study, {f"{label}/{name}.png": encoded(rng.integers(0, 200, (40, 40), np.uint8))})
    run(put(study, {"patients.csv": "\n".join(lines).encode()}), out=tmp_path / "out")
    dataset = load_dataset(tmp_path / "out")
    config = tiny_config("data.group_by=patient")
    trained = create_run(tmp_path / "run", config, dataset, make_split(dataset, config.data))
    build_model("tiny", input_shape=(32, 32, 1), mean=50.0, variance=2500.0, classes=2).save(trained.best_model)
    version = export(trained, tmp_path / "exported")
    result = CliRunner().invoke(main, ["predict", str(tmp_path / "out/images"), "--model", str(version), "--csv"])
    assert result.exit_code == 0 and result.output.count("images/") >= 48
    assert "MR777" not in result.output
    # The manifest and the groups of a split name patients, and nothing else does.
    holders = {
        file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file() and study not in file.parents
    }
    holders = {file for file in holders if b"MR777" in str(file).encode() + (tmp_path / file).read_bytes()}
    assert holders == {Path("out/manifest.csv"), Path("run/splits.json")}


def test_an_id_for_dicom_becomes_a_pseudonym(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 3000, (20, 24), np.uint16)
    study = {"glioma/a.dcm": dicom(pixels, PatientID=""), "glioma/b.dcm": dicom(pixels, InstanceNumber="2")}
    put(
        tmp_path / "study",
        {**study, "no_tumor/c.png": IMAGE, "patients.csv": b"image,patient\na,MR55501B\nb,MR55501\n"},
    )
    run(tmp_path / "study", out=tmp_path / "out")
    glioma = [record for record in records(tmp_path / "out").values() if record.label == "glioma"]
    assert len({record.patient for record in glioma}) == 1 and all(record.patient.startswith("P") for record in glioma)
    everything = b"".join(file.name.encode() + file.read_bytes() for file in (tmp_path / "out").rglob("*.*"))
    assert b"55501" not in everything


@pytest.mark.data
def test_figshare_s_ids_are_209_patients_and_its_folds_divide_16_of_them(real_slices: Path) -> None:
    """As published: github.com/SamsondareHUB/Duplicate-aware-brain-MRI-classification,
    ``data/splits/patient_disjoint_original.csv``; ``docs/collections.md`` has the figures.
    """
    published = rows(real_slices / "patients.csv")
    tumors = [record for record in load_dataset(real_slices).records if record.patient]
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in tumors:
        groups[record.patient].append(record)
    ids = {patient: {r.extra.get("published_patient", patient) for r in found} for patient, found in groups.items()}
    assert (len(tumors), sum(map(len, ids.values())), len(groups)) == (3064, 233, 209)
    assert {known for found in ids.values() for known in found} == {row["patient"] for row in published}
    several = [patient for patient, found in ids.items() if len(found) > 1]
    assert (len(several), sum(len(ids[patient]) for patient in several)) == (18, 42)
    divided = [patient for patient in several if len({r.extra["official_fold"] for r in groups[patient]}) > 1]
    slices = sum(len(groups[patient]) for patient in divided)
    assert (len(divided), sum(len(ids[patient]) for patient in divided), slices) == (16, 38, 734)
    assert {record.label for record in tumors if record.patient.startswith("MR")} == {"glioma"}
    assert read_patients((real_slices / "patients.csv").read_bytes(), "x").columns(["0001.jpg"]) == [
        {"patient": "100360", "official_fold": "5"}
    ]
