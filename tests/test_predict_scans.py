"""``predict --group-by`` on a planted cohort whose classes can be read off its pixels: known scans, known decisions."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from statsmodels.stats.proportion import proportion_confint

from btkeras.cli import predict as command
from btkeras.datasets.pseudonyms import load_key, pseudonym
from btkeras.datasets.readers.dicom_series import LOCALIZER
from btkeras.decisions.scan_decision import scan_decision_metrics
from btkeras.inference.backends import exported_backend
from btkeras.inference.model_folder import ModelMetadata
from btkeras.inference.predictor import FilePrediction, Predictor
from btkeras.inference.scans import decide_scans
from tests.conftest import CLASSES
from tests.dicom_files import dicom
from tests.images import encode, head, scene
from tests.nifti_files import encoded
from tests.prepare_files import put
from tests.test_cli import btkeras, fails

# The grey level in the middle of a slice that means each class.
LEVELS = dict(zip(CLASSES, (40, 90, 140, 190), strict=True))
FREE = "no_tumor"


def grey(label: str, seed: int = 0) -> np.ndarray:
    pixels = head(seed)
    pixels[30:42, 26:38] = LEVELS[label]
    return pixels


def read_levels(images: np.ndarray) -> dict[str, np.ndarray]:
    """The model's outputs: 0.91 for the class in the middle, 0.03 for the others."""
    middle = images[:, 17:19, 17:19].mean(axis=(1, 2, 3))
    nearest = np.abs(middle[:, None] - np.array(list(LEVELS.values()))).argmin(axis=1)
    return {"probabilities": (0.03 + 0.88 * np.eye(4)[nearest]).astype(np.float32)}


@pytest.fixture(autouse=True)
def _planted_model(monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = ModelMetadata(CLASSES, 36, 1, harmonize=False, calibration=None, ood_calibration=None)
    predictor = Predictor(exported_backend(Path("planted/1/model.tflite"), metadata, read_levels))
    monkeypatch.setattr(command, "_local", lambda refs, *_: (CLASSES, predictor.predict_files(refs)))


def slice_of(label: str, patient: str, series: str, number: int, **attributes: Any) -> bytes:
    values = {
        "PatientID": f"ID-{patient}",
        "StudyInstanceUID": f"9.{patient}",
        "SeriesInstanceUID": f"1.{series}",
        "InstanceNumber": str(number),
        "ImagePositionPatient": [0, 0, 5 * number],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    }
    return dicom(grey(label, number), **(values | attributes))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Patient 7 with a tumour in two slices of one series, a series without, and a scout; patient 8 without a tumour.

    The files' names follow neither patients, series nor positions.
    """
    scans = {("7", "1"): [FREE] * 5 + ["glioma"] * 2 + [FREE] * 5, ("7", "2"): [FREE] * 11, ("8", "3"): [FREE] * 10}
    files = {}
    for (patient, series), labels in scans.items():
        for number, label in enumerate(labels):
            files[f"IM{(7 * number) % 13:02d}{9 - int(series)}"] = slice_of(label, patient, series, number)
    planes = ([1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1])
    for number, plane in enumerate(planes):
        files[f"A{number}"] = slice_of("glioma", "8", "4", number, ImageOrientationPatient=plane)
    files["B.dcm"] = slice_of("glioma", "8", "5", 1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    return put(tmp_path / "study", files)


def predict(*arguments: object) -> Result:
    result = btkeras("predict", *arguments)
    assert result.exit_code == 0, result.output
    return result


def by_group(result: Result) -> dict[str, dict[str, Any]]:
    return {scan["group"]: scan for scan in json.loads(result.stdout)}


def test_series_have_one_decision_each_without_localizers(study: Path) -> None:
    key = load_key()
    patients = {name: pseudonym(f"ID-{name}", key) for name in "78"}
    names = [f"{patients[p]}/{pseudonym(f'1.{s}', key, 'S')}" for p, s in (("7", "1"), ("7", "2"), ("8", "3"))]
    # A shell's pattern names each file itself.
    for arguments in ([study], sorted(study.iterdir())):
        result = predict(*arguments, "--group-by", "series", "--json")
        found = by_group(result)
        assert found.keys() == {*names}
        assert [found[name]["decision"] for name in names] == ["glioma", FREE, FREE]
        assert "left out: 4 files" in result.stderr and LOCALIZER in result.stderr
    first = found[names[0]]
    assert [row["instance"] for row in first["slices"]] == list(range(12))
    assert [i for i, row in enumerate(first["slices"]) if row["supports"]] == [5, 6]
    assert first["label"] == "glioma" and sum(first["probabilities"].values()) == pytest.approx(1)
    assert "tenth of the slices" in result.stderr and "ID-7" not in result.output


def test_a_patient_has_one_decision_over_all_series(study: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(predict(study, "--group-by", "patient", "--csv").stdout)))
    counts = [(row["decision"], row["slices"], row["supporting"], row["rejected"]) for row in rows]
    assert sorted(counts) == [("glioma", "23", "2", "0"), (FREE, "10", "10", "0")]
    lines = ["image,patient", *(f"{file.stem},MR7B" for file in study.iterdir())]
    (study / "patients.csv").write_text("\n".join(lines) + "\n")
    joined = predict(study, "--group-by", "patient", "--json")
    assert by_group(joined).keys() == {pseudonym("MR7", load_key())} and "MR7" not in joined.output
    assert "1 .csv" not in joined.stderr
    (study / "patients.csv").unlink()
    text = predict(study, "--group-by", "patient").stdout.splitlines()
    assert text[0].split()[:4] == ["decision", "probability", "slices", "supporting"]
    assert any("(0-9)" in line and line.startswith(FREE) for line in text)


def test_a_folder_is_grouped_by_its_table_of_patients(tmp_path: Path) -> None:
    """Two ids of one patient, as FigShare has them; three scans."""
    labels = {"a1": FREE, "a2": "pituitary", "b1": "pituitary", "c1": FREE, "c2": FREE}
    folder = put(tmp_path / "scans", {f"slices/{name}.png": encode(grey(label)) for name, label in labels.items()})
    ids = {"a": "MR123456", "b": "MR123456B", "c": "77"}
    lines = [f"slices/{name}.png,{ids[name[0]]},{name[0]}" for name in labels]
    (folder / "patients.csv").write_text("\n".join(["path,patient,series", *lines]) + "\n")
    found = by_group(predict(folder, "--group-by", "patient", "--json"))
    assert {name: scan["decision"] for name, scan in found.items()} == {"MR123456": "pituitary", "77": FREE}
    found = by_group(predict(folder / "slices", "--group-by", "series", "--json"))
    assert {name: len(scan["slices"]) for name, scan in found.items()} == {"MR123456/a": 2, "MR123456/b": 1, "77/c": 2}


def test_a_volume_is_a_scan(tmp_path: Path) -> None:
    volume = np.stack([grey(FREE, seed).T for seed in range(6)], axis=2)
    put(tmp_path, {"one.nii": encoded(volume), "two.nii": encoded(volume)})
    found = by_group(predict(tmp_path, "--group-by", "series", "--json"))
    assert {name: len(scan["slices"]) for name, scan in found.items()} == {
        str(tmp_path / "one.nii"): 6,
        str(tmp_path / "two.nii"): 6,
    }


def test_what_is_missing_is_said(tmp_path: Path, study: Path) -> None:
    put(tmp_path / "alone", {"a.png": encode(grey(FREE)), "b.png": encode(grey(FREE))})
    result = btkeras("predict", tmp_path / "alone", "--group-by", "series")
    fails(result, "slices must name their series", "a.png", "1 more", "patients.csv", "patient, series")
    fails(
        btkeras("predict", study, "--group-by", "series", "--slice", "3"),
        "all of its slices",
        "Leave --slice away",
        code=2,
    )


def test_slices_that_show_no_head_or_cannot_be_read_do_not_count(tmp_path: Path) -> None:
    files = {
        "1.png": encode(grey("glioma")),
        "2.png": encode(scene()),
        "3.png": b"none",
        "4.png": encode(scene(seed=1)),
    }
    folder = put(tmp_path / "scans", files)
    lines = ["image,patient", "1,p", "2,p", "3,p", "4,q"]
    (folder / "patients.csv").write_text("\n".join(lines) + "\n")
    result = btkeras("predict", folder, "--group-by", "patient", "--json")
    assert result.exit_code == 1 and "1 of 4 images could not be read" in result.stderr
    found = by_group(result)
    assert found["p"]["decision"] == "glioma" and len(found["p"]["slices"]) == 3
    assert found["q"]["decision"] == "rejected" and "none of its 1 slices" in found["q"]["reasons"][0]


def decided(label: str, decision: str = "") -> FilePrediction:
    probabilities = dict.fromkeys(CLASSES, 0.03) | {label: 0.91}
    return FilePrediction(label, label=label, probabilities=probabilities, decision=decision or label, file="scan")


@pytest.mark.parametrize(
    ("slices", "expected"),
    [
        ([decided("glioma")] * 4 + [decided("meningioma")] * 3 + [decided(FREE)] * 9, "glioma"),
        ([decided("glioma")] * 4 + [decided("meningioma")] * 5, "meningioma"),
        ([decided("glioma")] * 4 + [decided("meningioma")] * 3 + [decided("pituitary")] * 3, "uncertain"),
        ([decided("glioma", "uncertain")] * 3 + [decided("glioma")] * 2 + [decided(FREE)] * 5, "uncertain"),
        ([decided(FREE, "uncertain")] * 6 + [decided(FREE)] * 5, "uncertain"),
        ([decided(FREE, "uncertain")] * 5 + [decided(FREE)] * 5, FREE),
        ([decided("glioma", "rejected")] * 5 + [decided(FREE)] * 5, FREE),
        ([decided("glioma", "rejected")] * 5, "rejected"),
    ],
)
def test_a_decision_needs_half_of_the_slices_in_question(slices: list[FilePrediction], expected: str) -> None:
    (scan,) = decide_scans(slices, {"scan": "scan"}, CLASSES)
    assert scan.decision == expected and bool(scan.reasons) == (expected in ("uncertain", "rejected"))


def test_metrics_of_decisions_on_scans() -> None:
    """Of four scans one is withheld, and one of the others wrong; a fifth shows two tumours, the last slice no scan."""
    labels, names = np.array([0, 0, 1, 2, 3, 0, 1, 0]), ["a", "a", "b", "c", "d", "e", "e", ""]
    tops = ["glioma", FREE, "glioma", FREE, "pituitary", "glioma", "glioma", "glioma"]
    rows = np.array([[0.91 if name == top else 0.03 for name in CLASSES] for top in tops])
    found = scan_decision_metrics(labels, rows, [*tops[:4], "uncertain", *tops[5:]], names, CLASSES)
    assert found is not None
    assert (found["coverage"], found["accuracy"], found["withheld_accuracy"]) == pytest.approx((3 / 4, 2 / 3, 1))
    assert found["interval"] == pytest.approx(proportion_confint(2, 3, method="wilson"))
    assert scan_decision_metrics(labels, rows, tops, [""] * 8, CLASSES) is None
