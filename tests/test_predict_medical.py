"""``predict`` on DICOM files and NIfTI volumes."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from btkeras import Predictor
from btkeras.cli import main
from btkeras.datasets.readers import MissingExtraError
from btkeras.errors import ConfigError, ImageError
from btkeras.inference.inputs import SliceRef, choose_files, references
from tests.dicom_files import dicom, stretched


def btkeras(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def predictor(trained_run: Path) -> Predictor:
    return Predictor(trained_run)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = np.random.default_rng(0).integers(0, 900, (20, 24, 17)).astype(np.int16)
    file = tmp_path_factory.mktemp("scan") / "scan.nii.gz"
    nib.save(nib.Nifti1Image(values, np.eye(4)), file)
    return file


def test_dicom_and_png_of_the_same_grey_levels_get_the_same_answer(
    predictor: Predictor, shared_images: Path, tmp_path: Path
) -> None:
    files = []
    for number, path in enumerate(sorted(shared_images.glob("*/00[01].png"))):
        pixels = np.asarray(Image.open(path))
        deep = pixels.astype(np.uint16) * 13 + 100
        Image.fromarray(stretched(deep)).save(tmp_path / f"{number}.png")
        for name, values in (("grey", pixels), ("deep", deep)):
            (tmp_path / f"{number}-{name}").write_bytes(dicom(values))
        files += [path, tmp_path / f"{number}-grey", tmp_path / f"{number}.png", tmp_path / f"{number}-deep"]
    answers = list(predictor.predict_files(files))
    for image, medical in zip(answers[::2], answers[1::2], strict=True):
        assert image.probabilities == medical.probabilities and image.reasons == medical.reasons


def test_the_middle_slice_of_a_volume_is_answered_and_named(predictor: Predictor, scan: Path) -> None:
    middle, other, all_at_once = (
        list(predictor.predict_files(references([scan], wanted))) for wanted in ("middle", "16", "all")
    )
    assert [answer.path for answer in middle + other] == [f"{scan}#8", f"{scan}#16"]
    assert [answer.path for answer in all_at_once] == [f"{scan}#{number}" for number in range(17)]
    assert (middle[0].slice, middle[0].slices, middle[0].axis, middle[0].file) == (8, 17, "axial", str(scan))
    np.testing.assert_allclose(
        list(middle[0].probabilities.values()), list(all_at_once[8].probabilities.values()), atol=1e-6
    )
    assert middle[0].probabilities != other[0].probabilities
    assert predictor.predict([scan]).labels == [middle[0].label]


def test_a_slice_that_is_not_there_is_an_error_and_of_images_there_is_one(
    predictor: Predictor, scan: Path, shared_images: Path
) -> None:
    image = shared_images / "glioma/000.png"
    missing, found = predictor.predict_files(references([scan, image], "17"))
    assert "must be 0 to 16" in str(missing.error) and not found.error
    assert [ref.index for ref in references([image, "gone.nii"], "all")] == [None, None]
    with pytest.raises(ConfigError, match="middle, all or a number"):
        references([scan], "-1")


def test_an_axis_is_another_view(predictor: Predictor, scan: Path) -> None:
    answers = list(predictor.predict_files([SliceRef(str(scan), None, axis) for axis in ("axial", "coronal")]))
    assert [(answer.axis, answer.slices) for answer in answers] == [("axial", 17), ("coronal", 24)]
    assert answers[0].probabilities != answers[1].probabilities


def test_a_channel_of_several_volumes_is_chosen(trained_run: Path, scan: Path, tmp_path: Path) -> None:
    volume = nib.load(scan)
    values = np.asarray(volume.dataobj)
    nib.save(nib.Nifti1Image(np.stack([values[::-1], values], axis=-1), volume.affine), tmp_path / "two.nii.gz")
    common = ["predict", "--model", trained_run, "--json", "--slice", "all"]
    result = btkeras(*common, tmp_path / "two.nii.gz")
    assert result.exit_code == 1 and "with 2 volumes. Choose one with --channel 0 to 1" in result.stdout
    one, second = (btkeras(*common, *source) for source in ([scan], [tmp_path / "two.nii.gz", "--channel", 1]))
    answers = [[answer["probabilities"] for answer in json.loads(result.stdout)] for result in (one, second)]
    assert answers[0] == answers[1]


def test_a_volume_of_labels_is_rejected(predictor: Predictor, tmp_path: Path) -> None:
    labels = np.zeros((20, 24, 17), np.float32)
    labels[5:12, 5:12, 5:12] = 2
    nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / "result.nii.gz")
    (answer,) = predictor.predict_files([tmp_path / "result.nii.gz"])
    assert answer.decision == "rejected" and answer.reasons == ("no brain MRI slice: it has only 2 values",)


def test_another_modality_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "ct.dcm").write_bytes(dicom(np.arange(1200, dtype=np.uint16).reshape(30, 40), Modality="CT"))
    (answer,) = predictor.predict_files([tmp_path / "ct.dcm"])
    assert answer.decision == "rejected" and answer.reasons == ("no brain MRI slice: the file says CT, not MR",)


def test_folders_hold_dicom_without_an_ending(tmp_path: Path) -> None:
    for name in ("a.dcm", "b.nii", "c.nii.gz", "d.png"):
        (tmp_path / name).touch()
    (tmp_path / "IM1").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "README").write_text("no image")
    (tmp_path / "x.gz").touch()
    found = [Path(path).name for path in choose_files([str(tmp_path)], []).paths]
    assert found == ["IM1", "a.dcm", "b.nii", "c.nii.gz", "d.png"]


def test_the_command_names_slices_in_every_form(trained_run: Path, scan: Path, tmp_path: Path) -> None:
    common = ["predict", scan, "--model", trained_run]
    table = btkeras(*common)
    assert f"{scan}#8" in table.stdout and "middle one of 17 slices; --slice all" in table.stderr
    (answer,) = json.loads(btkeras(*common, "--json", "--slice", "2").stdout)
    assert (answer["path"], answer["slice"], answer["slices"]) == (f"{scan}#2", 2, 17)
    listed = btkeras(*common, "--csv", "--slice", "all")
    rows = list(csv.DictReader(io.StringIO(listed.stdout)))
    assert [row["slice"] for row in rows] == [str(number) for number in range(17)]
    assert "middle" not in listed.stderr
    assert btkeras(*common, "--slice", "4", "--explain", tmp_path / "why").exit_code == 0
    assert [path.name for path in (tmp_path / "why").iterdir()] == ["scan-4.png"]


def test_without_the_extra_there_is_one_error(
    trained_run: Path, scan: Path, shared_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nibabel", None)
    result = btkeras("predict", shared_images / "glioma/000.png", scan, scan, "--model", trained_run)
    assert result.exit_code == 1 and result.stderr.count("pip install 'btkeras[medical]'") == 1
    assert "Traceback" not in result.stderr
    with pytest.raises(MissingExtraError):
        Predictor(trained_run).predict([scan])


def test_images_need_no_extra(
    predictor: Predictor, shared_images: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "nibabel", None)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert predictor.predict([shared_images / "glioma/000.png"]).labels
    (tmp_path / "text.dcm").write_text("no image")
    with pytest.raises(ImageError, match="which is text"):
        predictor.predict([tmp_path / "text.dcm"])
