"""``prepare`` from DICOM files and NIfTI volumes."""

from __future__ import annotations

import gzip
import stat
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from btkeras.cli import main
from btkeras.datasets.choice import SequenceChoice
from btkeras.datasets.dataset import Record, load_dataset
from btkeras.datasets.pseudonyms import load_key, pseudonym
from btkeras.datasets.readers.formats import open_slices
from btkeras.errors import ConfigError, DataError
from btkeras.preprocessing.decode import decode_file
from tests.dicom_files import NAME, dicom
from tests.prepare_files import encoded, pixels, prepare, put, quiet, rows, run, tree

RNG = np.random.default_rng(0)
SLICES = RNG.integers(0, 3000, (4, 20, 24), np.uint16)
SCAN = RNG.integers(0, 900, (24, 20, 30)).astype(np.int16)


@pytest.fixture(autouse=True)
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "secrets/key"
    monkeypatch.setenv("BTKERAS_PSEUDONYM_KEY", str(file))
    return file


def records(out: Path) -> dict[str, Record]:
    """The manifest as it is, of one class too."""
    fixed = ("path", "label", "patient", "source")
    found = {}
    for row in rows(out / "manifest.csv"):
        extra = {key: value for key, value in row.items() if key not in fixed and value}
        found[row["path"]] = Record(*(row[key] for key in fixed), extra)
    return found


def nifti(values: Any, spacing: tuple[float, ...] = (1, 1, 1)) -> bytes:
    return gzip.compress(nib.Nifti1Image(values, np.diag([*spacing, 1.0])).to_bytes(), 1)


def series(number: int, **attributes: Any) -> bytes:
    values = {"SeriesInstanceUID": "1.2.3", "InstanceNumber": str(number), "WindowCenter": "1000", "WindowWidth": "900"}
    return dicom(SLICES[number - 1], **(values | attributes))


def test_dicom_slices_become_images_in_the_series_order_without_a_name_in_clear_text(tmp_path: Path) -> None:
    study = {
        # Files are often named by chance, and folders by the patient.
        "glioma/Knows_Nobody/zz.dcm": series(1),
        "glioma/Knows_Nobody/aa": series(2),
        "glioma/Knows_Nobody/mm.DCM": series(3),
        "no_tumor/DICOMDIR": bytes(128) + b"DICM",
        "no_tumor/other.dcm": series(4, PatientID="9990001", SeriesInstanceUID="4.5"),
    }
    report = run(put(tmp_path / "study", study), out=tmp_path / "out")
    assert (report.classes, report.patients, report.without_patient) == ({"glioma": 3, "no_tumor": 1}, 2, 0)
    found = records(tmp_path / "out")
    glioma = [record for path, record in sorted(found.items()) if record.label == "glioma"]
    assert len({record.patient for record in glioma}) == len({record.extra["series"] for record in glioma}) == 1
    for record, number in zip(glioma, (1, 2, 3), strict=True):
        expected = open_slices(series(number), "x").image(0)[..., 0]
        np.testing.assert_array_equal(pixels(tmp_path / "out" / record.path), expected)
    everything = b"".join(path.encode() + data for path, data in tree(tmp_path / "out").items())
    for secret in ("12345", "9990001", NAME, "Nobody", "Knows", "1.2.3", "zz"):
        assert secret.encode() not in everything, secret


def test_pseudonyms_are_the_same_in_every_dataset_of_one_key(tmp_path: Path, key: Path) -> None:
    study = put(tmp_path / "study", {"glioma/a.dcm": series(1), "no_tumor/b.dcm": series(2, PatientID="")})
    run(study, out=tmp_path / "one")
    run(study, out=tmp_path / "two")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    key.unlink()
    run(study, out=tmp_path / "three")
    first, third = ({record.patient for record in records(tmp_path / name).values()} for name in ("one", "three"))
    assert first & third == {""} and len(first) == 2


def test_pseudonyms_of_different_texts_differ(key: Path) -> None:
    secret = load_key()
    names = {pseudonym(str(number), secret) for number in range(2000)}
    assert len(names) == 2000 and pseudonym("7", secret) != pseudonym("7", bytes(32))
    assert pseudonym("7", secret, "S")[1:] != pseudonym("7", secret)[1:]
    key.write_bytes(b"short")
    with pytest.raises(DataError, match="5 bytes"):
        load_key()


def test_frames_become_images_with_their_numbers(tmp_path: Path) -> None:
    frames = dicom(SLICES, InstanceNumber="7", SeriesInstanceUID="1.2")
    run(put(tmp_path / "study", {"glioma/a.dcm": frames}), out=tmp_path / "out")
    found = records(tmp_path / "out")
    assert [record.extra["slice"] for record in found.values()] == ["0", "1", "2", "3"]
    assert all(path.endswith(f"-0007-{n:04d}.png") for n, path in enumerate(found))


@pytest.mark.parametrize(
    ("attributes", "words"), [({"Modality": "CT"}, "CT, not MR"), ({"BurnedInAnnotation": "YES"}, "burned into")]
)
def test_what_must_not_be_in_a_dataset_is_broken(tmp_path: Path, attributes: dict[str, str], words: str) -> None:
    study = put(tmp_path / "study", {"glioma/a.dcm": series(1, **attributes), "glioma/b.dcm": series(2)})
    with pytest.raises(DataError, match=words):
        run(study, out=tmp_path / "out")
    report = run(study, out=tmp_path / "out", skip_broken=True)
    assert report.classes == {"glioma": 1} and words in rows(tmp_path / "out/left_out.csv")[0]["reason"]


def test_a_volume_s_middle_third_becomes_images(tmp_path: Path) -> None:
    volume = nifti(SCAN)
    report = run(put(tmp_path / "study", {"no_tumor/sub-01_ses-1_T1w.nii.gz": volume}), out=tmp_path / "out")
    assert report.classes == {"no_tumor": 10}
    found = records(tmp_path / "out")
    assert list(found) == [f"images/no_tumor/sub-01_ses-1_T1w-{n:04d}.png" for n in range(10, 20)]
    opened = open_slices(volume, "x")
    for number, (path, record) in enumerate(found.items(), start=10):
        assert (record.patient, record.extra["slice"], record.extra["plane"]) == ("sub-01", str(number), "axial")
        np.testing.assert_array_equal(decode_file(tmp_path / "out" / path), opened.image(number))


@pytest.mark.parametrize(
    ("slices", "numbers"),
    [("all", range(30)), ("every-10", [5, 15, 25]), ("every-99", [29]), ("middle-two-thirds", range(5, 25))],
)
def test_the_choice_of_slices(tmp_path: Path, slices: str, numbers: Any) -> None:
    study = put(tmp_path / "study", {"glioma/a.nii.gz": nifti(SCAN)})
    prepare([study], tmp_path / "out", slices=slices, progress=quiet)
    assert [int(record.extra["slice"]) for record in records(tmp_path / "out").values()] == list(numbers)
    with pytest.raises(ConfigError, match="every-N"):
        prepare([study], tmp_path / "other", slices="every-0", progress=quiet)


def test_every_chosen_plane_gives_upright_slices(tmp_path: Path) -> None:
    tumor = np.zeros(SCAN.shape, np.uint8)
    tumor[3:9, 5:10, 12:15] = 1
    study = put(tmp_path / "study", {"glioma/P1/P1_t1.nii.gz": nifti(SCAN), "glioma/P1/P1_seg.nii.gz": nifti(tumor)})
    volume = nifti(SCAN)
    put(study, {"no_tumor/P2_t1.nii.gz": volume})
    command = ["prepare", str(study), "--out", str(tmp_path / "out"), "--no-mri-check"]
    result = CliRunner().invoke(main, [*command, "--plane", "sagittal,axial", "--plane", "coronal"])
    assert result.exit_code == 0, result.output
    found = records(tmp_path / "out")
    # The middle thirds of 24, 20 and 30 without a mask; with one, where the tumour is.
    for plane, free, box in (("sagittal", 8, range(3, 9)), ("coronal", 8, range(5, 10)), ("axial", 10, range(12, 15))):
        shown = {record.label: 0 for record in found.values()}
        for path, record in found.items():
            if record.extra["plane"] == plane:
                shown[record.label] += 1
                number = int(record.extra["slice"])
                assert f"-{plane}-{number:04d}.png" in path
                np.testing.assert_array_equal(
                    decode_file(tmp_path / "out" / path), open_slices(volume, "x", plane).image(number)
                )
                assert ("box" in record.extra) == (record.label == "glioma" and number in box)
        assert shown == {"glioma": len(box), "no_tumor": free}
    result = CliRunner().invoke(main, [*command[:3], str(tmp_path / "other"), "--plane", "oblique"])
    assert result.exit_code and "--plane must be of sagittal, coronal, axial" in result.output


def test_a_mask_chooses_the_slices_and_makes_boxes(tmp_path: Path) -> None:
    # Right, anterior, superior; pixels of an axial slice are twice as high as wide.
    tumor = np.zeros(SCAN.shape, np.uint8)
    tumor[3:9, 5:10, 12:15] = 4
    spacing = (1.0, 2.0, 1.0)
    study = {
        "glioma/P1/P1_t1.nii.gz": nifti(SCAN, spacing),
        "glioma/P1/P1_flair.nii.gz": nifti(SCAN // 2, spacing),
        "glioma/P1/P1_seg.nii.gz": nifti(tumor, spacing),
        "glioma/P10/P10_t1.nii.gz": nifti(SCAN, spacing),
        "glioma/readme.txt": b"hello",
    }
    study_folder = put(tmp_path / "study", study)
    report = prepare([study_folder], tmp_path / "out", choice=SequenceChoice("T1w"), progress=quiet)
    assert [file.kind for file in report.left_out] == [".txt", "of sequence flair"] and report.patients == 2
    found = records(tmp_path / "out")
    masked = [record for record in found.values() if "mask" in record.extra]
    assert {(r.patient, r.extra["slice"]) for r in masked} == {("P1", str(n)) for n in (12, 13, 14)}
    assert len(masked) == 3 and len(found) == 3 + 10
    for record in masked:
        mask = pixels(tmp_path / "out" / record.extra["mask"])
        # 24 wide, 40 high; the right hand is on the left and the front at the top.
        expected = np.zeros((40, 24), np.uint8)
        expected[2 * (20 - 10) : 2 * (20 - 5), 24 - 9 : 24 - 3] = 255
        np.testing.assert_array_equal(mask, expected)
        assert [float(v) for v in record.extra["box"].split()] == pytest.approx([18 / 24, 25 / 40, 6 / 24, 10 / 40])


def test_of_several_masks_the_one_of_the_longest_name_counts(tmp_path: Path) -> None:
    few, many = np.zeros(SCAN.shape, np.uint8), np.zeros(SCAN.shape, np.uint8)
    few[3:9, 5:10, 12], many[3:9, 5:10, 2:5] = 1, 1
    study = {
        "glioma/P1_2_t1.nii.gz": nifti(SCAN),
        "glioma/P1_seg.nii.gz": nifti(many),
        "glioma/P1_2_seg.nii.gz": nifti(few),
        "glioma/P1_x/P1.nii.gz": nifti(SCAN),
    }
    run(put(tmp_path / "study", study), out=tmp_path / "out")
    found = records(tmp_path / "out").values()
    assert [(r.patient, r.extra["slice"]) for r in found if "mask" in r.extra] == [("P1_2", "12")]
    assert len(found) == 1 + 10, "a mask counts in its own folder only"


def test_a_mask_of_another_scan_is_an_error(tmp_path: Path) -> None:
    study = {"glioma/a.nii.gz": nifti(SCAN), "glioma/a_seg.nii.gz": nifti(SCAN[:, :, 1:])}
    with pytest.raises(DataError, match="voxels of its volume"):
        run(put(tmp_path / "study", study), out=tmp_path / "out")


def test_all_kinds_together_and_harmonized(tmp_path: Path) -> None:
    files = {"glioma/a.dcm": series(1), "glioma/b.png": encoded(), "no_tumor/c.nii.gz": nifti(SCAN)}
    study = put(tmp_path / "study", files)
    assert run(study, out=tmp_path / "plain").classes == {"glioma": 2, "no_tumor": 10}
    prepare([study], tmp_path / "even", harmonize=32, slices="every-10", progress=quiet)
    assert {pixels(tmp_path / "even" / path).shape for path in records(tmp_path / "even")} == {(32, 32)}


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    files = {"glioma/a.dcm": series(1)[:900], "glioma/b.nii.gz": nifti(SCAN)[:2000], "glioma/c.png": encoded()}
    report = run(put(tmp_path / "study", files), out=tmp_path / "out", skip_broken=True)
    assert report.classes == {"glioma": 1}
    assert [Path(item.path).name for item in report.broken] == ["a.dcm", "b.nii.gz"]


def test_a_class_folder_of_volumes_says_that_prepare_reads_them(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.dcm"):
        study = put(tmp_path / name, {f"glioma/{name}": b"x", "no_tumor/c.png": encoded(), "glioma/notes.txt.gz": b"x"})
        with pytest.raises(DataError, match=rf"{name}.*btkeras prepare"):
            load_dataset(study)
