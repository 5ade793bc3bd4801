"""``prepare`` from the layouts of public collections: masks, sequences, time points, and what is left out."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from btkeras.cli import main
from btkeras.datasets.choice import SequenceChoice
from btkeras.datasets.prepare import PrepareReport, prepare
from btkeras.errors import ConfigError, DataError
from tests.dicom_files import dicom
from tests.prepare_files import encoded, pixels, put, quiet, rows, tree

SHAPE = (40, 48, 24)
_places = [(np.arange(side) - (side - 1) / 2) / (side / 2) for side in SHAPE]
INSIDE = sum(place**2 for place in np.meshgrid(*_places, indexing="ij")) < 0.8
RNG = np.random.default_rng(0)
HEAD = np.where(INSIDE, 400 + 150 * np.sin(np.arange(24) / 3) + RNG.normal(0, 60, SHAPE), 5).astype(np.int16)
TUMOR = np.zeros(SHAPE, np.uint8)
TUMOR[12:20, 20:28, 10:14] = 1
TUMOR[14:17, 22:25, 11:13] = 4
TUMOR_BOX = [(40 - 16) / 40, (48 - 24) / 48, 8 / 40, 8 / 48]
BRAIN = INSIDE.astype(np.uint8)
PARCELS = (INSIDE * (np.indices(SHAPE) // 6).sum(0)).astype(np.int16)
SLICE = np.asarray(HEAD[:, :, 12].T // 3, np.uint8)
SLICE_MASK = np.zeros_like(SLICE)
SLICE_MASK[20:30, 10:20] = 1


def nifti(values: Any, affine: Any = None) -> bytes:
    return gzip.compress(nib.Nifti1Image(values, np.eye(4) if affine is None else affine).to_bytes(), 1)


CASES = ("01", "02")
SCAN, MASK, BRAIN_MASK = nifti(HEAD), nifti(TUMOR), nifti(BRAIN)


def made(tmp_path: Path, files: dict[str, bytes], *chosen: str, **options: Any) -> PrepareReport:
    """Prepares a source of these files, with a sequence and a channel."""
    choice = SequenceChoice(*chosen)
    return prepare([put(tmp_path / "x", files)], tmp_path / "out", choice=choice, progress=quiet, **options)


def manifest(tmp_path: Path) -> list[dict[str, str]]:
    return rows(tmp_path / "out/manifest.csv")


def reasons(report: PrepareReport) -> dict[str, str]:
    return {Path(file.path).name: file.kind for file in report.left_out}


def check_tumor_slices(found: list[dict[str, str]], patients: set[str]) -> None:
    """Each patient's slices are the four that show the tumour, with its box."""
    assert {row["patient"] for row in found} == patients and len(found) == 4 * len(patients)
    for row in found:
        assert row["slice"] in ("10", "11", "12", "13") and row["mask"]
        assert [float(side) for side in row["box"].split()][:2] == pytest.approx(TUMOR_BOX[:2], abs=0.05)


def test_nnunet_channels_are_one_patient_and_labels_are_its_mask(tmp_path: Path) -> None:
    names = {"channel_names": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}}
    files = {f"glioma/imagesTr/C_{case}_000{n}.nii.gz": SCAN for case in CASES for n in range(4)}
    files |= {f"glioma/labelsTr/C_{case}.nii.gz": MASK for case in CASES}
    with pytest.raises(
        DataError, match=r"2 such cases:\n  C_01: flair, t1, t1c, t2\n(.|\n)*2 t1c(.|\n)*--sequence t1c"
    ):
        made(tmp_path, files | {"glioma/dataset.json": json.dumps(names).encode()})
    report = made(tmp_path, files, "T1Gd")
    others = {0: "flair", 1: "t1", 3: "t2"}
    assert reasons(report) == {f"C_{case}_000{n}.nii.gz": f"of sequence {others[n]}" for case in CASES for n in others}
    check_tumor_slices(manifest(tmp_path), {"C_01", "C_02"})
    assert {(row["sequence"], row["channel"]) for row in manifest(tmp_path)} == {("t1c", "2")}


@pytest.mark.parametrize(
    "table", [b'{"channel_names": {"0": "MRI", "1": "MRI"}}', b"{}", b"no JSON", b'{"modality": "MR"}']
)
def test_a_table_that_does_not_tell_channels_apart(tmp_path: Path, table: bytes) -> None:
    files = {f"glioma/imagesTr/C_000{number}.nii.gz": SCAN for number in range(2)} | {"glioma/dataset.json": table}
    with pytest.raises(DataError, match=r"C: channel 0, channel 1\n"):
        made(tmp_path, files)


def test_channels_without_a_table_are_chosen_by_number(tmp_path: Path) -> None:
    files = {f"glioma/imagesTr/C_000{number}.nii.gz": nifti(HEAD + number) for number in range(2)}
    files |= {"no_tumor/N_0000.nii.gz": SCAN, "no_tumor/N_0001.nii.gz": SCAN}
    with pytest.raises(DataError, match=r"2 such cases:\n  C: channel 0, channel 1\n(.|\n)*--channel 0"):
        made(tmp_path, files)
    report = made(tmp_path, files, "", "1")
    assert reasons(report) == {"C_0000.nii.gz": "of channel 0", "N_0000.nii.gz": "of channel 0"}
    plain = put(tmp_path / "y", {"glioma/M.nii.gz": SCAN})
    with pytest.raises(DataError, match=r"channel 1 of .*M.nii.gz, which has 1. Leave --channel away"):
        prepare([plain], tmp_path / "o", choice=SequenceChoice("", "1"), progress=quiet)


def test_the_decathlon_s_files_of_several_volumes(tmp_path: Path) -> None:
    four = np.stack([HEAD, HEAD // 2, HEAD // 4, HEAD // 8], axis=-1)
    names = {"modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}}
    files = {
        "glioma/imagesTr/BRATS_001.nii.gz": nifti(four),
        "glioma/labelsTr/BRATS_001.nii.gz": nifti(TUMOR[..., None]),
    }
    with pytest.raises(DataError, match=r"BRATS_001.nii.gz with 4 volumes. Choose one with --channel 0 to 3"):
        made(tmp_path, files)
    made(tmp_path, files, "", "3")
    by_number = tree(tmp_path / "out/images")
    table = {"glioma/dataset.json": json.dumps(names).encode()}
    with pytest.raises(DataError, match=r"BRATS_001: flair, t1, t1c, t2"):
        prepare([put(tmp_path / "x", table)], tmp_path / "two", progress=quiet)
    prepare([tmp_path / "x"], tmp_path / "two", choice=SequenceChoice("t2"), progress=quiet)
    assert tree(tmp_path / "two/images") == by_number
    check_tumor_slices(rows(tmp_path / "two/manifest.csv"), {"BRATS_001"})
    prepare([tmp_path / "x"], tmp_path / "three", choice=SequenceChoice("", "T2w"), progress=quiet)
    assert tree(tmp_path / "three/images") == by_number
    for table, words in ((b'{"modality": {"1": "T1"}}', "must number its channels"), (b"[]", "with 4 volumes")):
        put(tmp_path / "x", {"glioma/dataset.json": table})
        with pytest.raises(DataError, match=words):
            prepare([tmp_path / "x"], tmp_path / "four", progress=quiet)


def test_bids_sessions_and_derivatives(tmp_path: Path) -> None:
    files = {}
    for session in ("ses-1", "ses-2"):
        start = f"glioma/sub-01/{session}/anat/sub-01_{session}"
        files |= {f"{start}_T1w.nii.gz": SCAN, f"{start}_ce-gadolinium_T1w.nii.gz": nifti(HEAD + 1)}
        start = f"derivatives/masks/sub-01/{session}/anat/sub-01_{session}"
        files |= {f"{start}_label-lesion_mask.nii.gz": MASK, f"{start}_desc-brain_mask.nii.gz": BRAIN_MASK}
        files |= {f"{start}_label-GM_probseg.nii.gz": BRAIN_MASK, f"{start}_desc-aparcaseg_dseg.nii.gz": BRAIN_MASK}
    files |= {"participants.tsv": b"participant_id\n", "glioma/sub-01/ses-1/anat/sub-01_ses-1_T1w.json": b"{}"}
    report = made(tmp_path, files, "t1c")
    assert {row["session"] for row in manifest(tmp_path)} == {"ses-1", "ses-2"} and report.patients == 1
    assert len(manifest(tmp_path)) == 8 and all(row["box"] for row in manifest(tmp_path))
    counted = sorted(file.kind for file in report.left_out)
    assert counted == [".json", ".tsv", *["a mask of the head or its tissues"] * 6, "of sequence t1", "of sequence t1"]
    assert [row["reason"] for row in rows(tmp_path / "out/left_out.csv")] == [file.kind for file in report.left_out]
    assert "  6 a mask of the head or its tissues: " in report.summary() and " and 3 more" in report.summary()


@pytest.mark.parametrize(
    ("scans", "masks"),
    [
        (["BraTS-GLI-00001-000/BraTS-GLI-00001-000-t1c"], ["BraTS-GLI-00001-000/BraTS-GLI-00001-000-seg"]),
        (
            ["BraTS-GLI-00001-000-t1c", "BraTS-GLI-00001-001-t1c"],
            ["BraTS-GLI-00001-000-seg", "BraTS-GLI-00001-001-seg"],
        ),
        (["HGG/Brats18_CBICA_AAB_1/Brats18_CBICA_AAB_1_t1ce"], ["HGG/Brats18_CBICA_AAB_1/Brats18_CBICA_AAB_1_seg"]),
        (["UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_T1c"], ["UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_tumor_segmentation"]),
        (["UPENN-GBM-00001_11/UPENN-GBM-00001_11_T1GD"], ["images_segm/UPENN-GBM-00001_11_segm"]),
        (["TCGA-02-0006/TCGA-02-0006_1996.08.23_t1Gd"], ["TCGA-02-0006/TCGA-02-0006_1996.08.23_GlistrBoost"]),
        (["EGD-0001/2_T1GD/NIFTI/T1GD"], ["EGD-0001/MASK/NIFTI/MASK"]),
        (
            ["Patient-001/week-000/CT1", "Patient-001/week-010/CT1"],
            ["Patient-001/week-000/seg", "Patient-001/week-010/seg"],
        ),
    ],
    ids=lambda names: names[0].rpartition("/")[2],
)
def test_time_points_are_one_patient_with_their_own_masks(tmp_path: Path, scans: list[str], masks: list[str]) -> None:
    files = {f"glioma/{name}.nii.gz": SCAN for name in scans} | {f"glioma/{name}.nii.gz": MASK for name in masks}
    report = made(tmp_path, files)
    assert report.patients == 1 and report.classes == {"glioma": 4 * len(scans)} and not report.left_out
    assert len({row.get("session", "") for row in manifest(tmp_path)}) == len(scans)
    assert all(row["box"] and row["sequence"] == "t1c" for row in manifest(tmp_path))


def test_an_expert_s_mask_comes_before_an_automatic_one(tmp_path: Path) -> None:
    case = "UPENN-GBM-00001_11"
    files = {f"glioma/images_structural/{case}/{case}_{name}.nii.gz": SCAN for name in ("T1GD", "T1GD_unstripped")}
    other = np.roll(TUMOR, 3, axis=2)
    files |= {f"glioma/automated_segm/{case}_automated_approx_segm.nii.gz": nifti(other)}
    files |= {f"glioma/images_segm/{case}_segm.nii.gz": MASK}
    report = made(tmp_path, files, "t1c")
    check_tumor_slices(manifest(tmp_path), {"UPENN-GBM-00001"})
    assert reasons(report) == {
        f"{case}_automated_approx_segm.nii.gz": "a mask beside a better one",
        f"{case}_T1GD_unstripped.nii.gz": "of sequence t1c_unstripped",
    }


def test_a_choice_among_the_images_of_datasets(tmp_path: Path) -> None:
    for name in ("t1c", "flair"):
        files = {f"glioma/P1_{name}.nii.gz": SCAN, f"no_tumor/P2_{name}.nii.gz": SCAN}
        prepare([put(tmp_path / name, files)], tmp_path / f"data/{name}", progress=quiet)
    joined = prepare([tmp_path / "data/t1c", tmp_path / "data/flair"], tmp_path / "joined", progress=quiet)
    assert joined.classes == {"glioma": 16, "no_tumor": 16} and joined.patients == 2
    one = prepare([tmp_path / "joined"], tmp_path / "one", choice=SequenceChoice("t1c"), progress=quiet)
    assert one.classes == {"glioma": 8, "no_tumor": 8}
    assert [file.kind for file in one.left_out] == ["of a case without t1c"] * 16


def test_a_choice_that_leaves_a_doubt(tmp_path: Path) -> None:
    files = {"glioma/P1/P1_t1c.nii.gz": SCAN, "glioma/P1/P1_flair.nii.gz": SCAN, "glioma/P2/P2_t1.nii.gz": SCAN}
    with pytest.raises(DataError, match=r"a case without t1x.*Choose another sequence"):
        made(tmp_path, files, "t1x")
    report = made(tmp_path, files, "t1c")
    assert reasons(report) == {"P1_flair.nii.gz": "of sequence flair", "P2_t1.nii.gz": "of a case without t1c"}
    with pytest.raises(DataError, match=r"each volume must say its sequence.*P3/scan.nii.gz"):
        prepare([put(tmp_path / "x", {"no_tumor/P3/scan.nii.gz": SCAN})], tmp_path / "o", choice=SequenceChoice("t1c"))
    versions = {f"glioma/P1/P1_t1c_{name}.nii.gz": SCAN for name in ("bias", "brain")}
    with pytest.raises(DataError, match=r"P1: t1c_bias, t1c_brain(.|\n)*--sequence t1c_bias"):
        prepare([put(tmp_path / "y", versions)], tmp_path / "o", choice=SequenceChoice("t1c"))
    for choice in (SequenceChoice("t1c", "1"), SequenceChoice("_")):
        with pytest.raises(ConfigError, match="One sequence or one channel"):
            prepare([tmp_path / "x"], tmp_path / "o", choice=choice)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("name", ["scan_17", "P1_result", "tumour"])
@pytest.mark.parametrize("values", [TUMOR, TUMOR.astype(np.float32), PARCELS])
def test_a_volume_of_labels_is_never_an_image(tmp_path: Path, name: str, values: Any) -> None:
    files = {"glioma/P2.nii.gz": SCAN, f"glioma/{name}.nii.gz": nifti(values)}
    with pytest.raises(DataError, match=rf"must be a scan, not a mask.*{name}.*values(.|\n)*Nothing was written"):
        made(tmp_path, files)
    report = made(tmp_path, files, skip_broken=True)
    assert [Path(file.path).name for file in report.broken] == [f"{name}.nii.gz"] and report.patients == 1


def test_labels_beside_a_scan_of_their_case_are_its_mask(tmp_path: Path) -> None:
    files = {f"glioma/{case}/{name}.nii.gz": data for case in "AB" for name, data in (("scan", SCAN), ("tumour", MASK))}
    files |= {"glioma/C/C.nii.gz": SCAN, "glioma/C/C_result.nii.gz": MASK}
    made(tmp_path, files)
    check_tumor_slices(manifest(tmp_path), {"A", "B", "C"})
    moved = nifti(TUMOR, np.diag([1, 1, 2, 1]))
    with pytest.raises(DataError, match=r"(?s)one must be chosen.*D: .*D.nii.gz, result.*Remove what is no scan"):
        prepare([put(tmp_path / "y", {"glioma/D.nii.gz": SCAN, "glioma/D_result.nii.gz": moved})], tmp_path / "o")


@pytest.mark.parametrize("names", [("P1", "P1_brain"), ("P1", "P1_n4_reg"), ("P1/scan", "P1/scan-bet")])
def test_a_version_of_a_scan_is_no_other_patient(tmp_path: Path, names: tuple[str, str]) -> None:
    files = {f"glioma/{name}.nii.gz": SCAN for name in names}
    with pytest.raises(DataError, match=r"P1: (.|\n)*Remove what is no scan, rename the others"):
        made(tmp_path, files)
    numbered = {f"glioma/{name}.nii.gz": SCAN for name in ("scan", "scan_1", "scan_2")}
    assert prepare([put(tmp_path / "y", numbered)], tmp_path / "o", progress=quiet).patients == 3


def test_probabilities_are_no_image(tmp_path: Path) -> None:
    soft = np.clip(TUMOR, 0, 1) * np.float32(0.75) + (np.indices(SHAPE).sum(0) % 5 / 20).astype(np.float32)
    made(tmp_path, {"glioma/P1.nii.gz": SCAN, "glioma/P1_prob.nii.gz": nifti(soft)})
    check_tumor_slices(manifest(tmp_path), {"P1"})
    graded = nifti(np.asarray(soft * 250 + np.indices(SHAPE)[0] % 9, np.uint8))
    with pytest.raises(DataError, match=r"must hold labels.*P1_softmax.nii.gz with more values than labels, up to 2"):
        prepare([put(tmp_path / "y", {"glioma/P1.nii.gz": SCAN, "glioma/P1_softmax.nii.gz": graded})], tmp_path / "o")


def test_a_mask_that_was_resized(tmp_path: Path) -> None:
    mask = Image.fromarray(SLICE_MASK * np.uint8(255)).resize((20, 24), Image.Resampling.BICUBIC)
    blurred = encoded(np.asarray(mask.resize((40, 48), Image.Resampling.BICUBIC)))
    files = {"glioma/1.png": encoded(SLICE), "glioma/1_mask.png": blurred}
    made(tmp_path, files)
    box = [float(side) for side in manifest(tmp_path)[0]["box"].split()]
    assert box == pytest.approx([15 / 40, 25 / 48, 10 / 40, 10 / 48], abs=1.5 / 40)
    with pytest.raises(DataError, match=r"must not be a mask.*other.png with only black and white"):
        prepare([put(tmp_path / "y", {**files, "glioma/other.png": blurred})], tmp_path / "o")


@pytest.mark.parametrize("ending", ["nii.gz", "png"])
def test_a_tumor_s_mask_in_the_tumor_free_class(tmp_path: Path, ending: str) -> None:
    scan, mask = (SCAN, MASK) if ending == "nii.gz" else (encoded(SLICE), encoded(SLICE_MASK))
    with pytest.raises(DataError, match=r"no tumour in a tumour-free image.*P1_lesion_mask.*Move them"):
        made(tmp_path, {f"no_tumor/P1.{ending}": scan, f"no_tumor/P1_lesion_mask.{ending}": mask})


def test_a_mask_without_an_image_is_looked_at(tmp_path: Path) -> None:
    files = {"glioma/a.png": encoded(SLICE), "glioma/b_mask.png": encoded(SLICE_MASK), "labelsTr/x.nii.gz": MASK}
    files |= {"glioma/c_seg.nii.gz": b"broken", "glioma/d_mask.png": encoded(SLICE * 0)}
    assert set(reasons(made(tmp_path, files)).values()) == {"a mask without an image"}
    for name, data in (("b_mask.png", encoded(SLICE)), ("P1_t1_seg.nii.gz", SCAN)):
        with pytest.raises(DataError, match=rf"called a mask must hold one.*{name}"):
            prepare([put(tmp_path / name, {"glioma/a.png": encoded(SLICE), f"glioma/{name}": data})], tmp_path / "o")


def test_a_mask_that_covers_the_head_is_no_tumor_s(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must not cover the head.*P1_seg.nii.gz, which covers 100%"):
        made(tmp_path, {"glioma/P1.nii.gz": SCAN, "glioma/P1_seg.nii.gz": BRAIN_MASK})
    with pytest.raises(DataError, match=r"must not cover the head.*a_mask.png"):
        inside = encoded(np.where(INSIDE[:, :, 12].T, 255, 0).astype(np.uint8))
        prepare([put(tmp_path / "y", {"glioma/a.png": encoded(SLICE), "glioma/a_mask.png": inside})], tmp_path / "o")


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "JPEG", "palette"])
def test_masks_of_images(tmp_path: Path, kind: str) -> None:
    high = SLICE_MASK * np.uint8(255 if kind == "JPEG" else 1)
    mask = encoded(high, mode="P") if kind == "palette" else encoded(high, kind)
    ending = {"palette": "png", "JPEG": "jpg", "TIFF": "tif"}.get(kind, kind.lower())
    files = {
        "train/images/glioma/1.png": encoded(SLICE),
        f"train/masks/glioma/1.{ending}": mask,
        "train/images/glioma/2.png": encoded(SLICE[::-1]),
        "test/images/glioma/1.png": encoded(SLICE[:, ::-1]),
        "test/images/no_tumor/image_7.png": encoded(SLICE[::-1, ::-1]),
        f"test/images/no_tumor/image_7_mask.{ending}": encoded(high * 0, "BMP" if kind == "BMP" else "PNG"),
    }
    made(tmp_path, files)
    found = {row["original"]: row for row in manifest(tmp_path)}
    assert len(found) == 4
    row = found["train/images/glioma/1.png"]
    np.testing.assert_array_equal(pixels(tmp_path / "out" / row["mask"]), SLICE_MASK * 255)
    assert [float(side) for side in row["box"].split()] == pytest.approx([15 / 40, 25 / 48, 10 / 40, 10 / 48], abs=1e-5)
    masked = {path for path, row in found.items() if row["mask"]}
    assert masked == {"train/images/glioma/1.png", "test/images/no_tumor/image_7.png"}
    assert not found["test/images/no_tumor/image_7.png"]["box"]


def test_masks_of_images_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must be as large as its image.*a_mask.png of 30 x 48 for 40 x 48"):
        made(tmp_path, {"glioma/a.png": encoded(SLICE), "glioma/a_mask.png": encoded(SLICE_MASK[:, :30])})
    for name, data in (("b.png", encoded(SLICE_MASK * 255)), ("b.jpg", encoded(SLICE_MASK * 255, "JPEG"))):
        with pytest.raises(DataError, match=rf"An image must not be a mask.*{name}"):
            prepare([put(tmp_path / name, {"glioma/a.png": encoded(SLICE), f"glioma/{name}": data})], tmp_path / "o")


def test_paths_of_dicom_files_stay_out_of_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTKERAS_PSEUDONYM_KEY", str(tmp_path / "key"))
    files = {"glioma/Doe^John/1.dcm": dicom(HEAD[:, :, 12].T.astype(np.uint16)), "glioma/Doe^John/report.pdf": b"x"}
    report = made(tmp_path, files | {"glioma/Doe^John/2.dcm": b"broken"}, skip_broken=True)
    assert reasons(report) == {"report.pdf": ".pdf"} and len(report.broken) == 1
    assert b"Doe" not in b"".join(tree(tmp_path / "out").values())
    assert [row["path"][-4:] for row in rows(tmp_path / "out/left_out.csv")] == [".dcm", ".pdf"]


def test_dicom_series_of_several_sequences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTKERAS_PSEUDONYM_KEY", str(tmp_path / "key"))
    image = HEAD[:, :, 12].T.astype(np.uint16)
    files = {
        f"glioma/{n}.dcm": dicom(image + n, SeriesDescription=text, SeriesInstanceUID=f"1.{n}")
        for n, text in enumerate(("AX T1 POST GAD", "AX T2 FLAIR"))
    }
    with pytest.raises(DataError, match=r"1 such patients:\n  P[0-9a-f]{16}: 1 flair, 1 t1c\n(.|\n)*--sequence t1c"):
        made(tmp_path, files)
    assert not (tmp_path / "out").exists()
    report = made(tmp_path, files, "t1c")
    assert reasons(report) == {"1.dcm": "of sequence flair"}
    assert [row["sequence"] for row in manifest(tmp_path)] == ["t1c"]
    with pytest.raises(DataError, match="1 flair, 1 t1c"):
        prepare([tmp_path / "x"], tmp_path / "o", choice=SequenceChoice("", "0"), progress=quiet)


def test_the_command_says_what_it_left_out(tmp_path: Path) -> None:
    files = {
        "glioma/P1/P1_t1c.nii.gz": SCAN,
        "glioma/P1/P1_t2.nii.gz": SCAN,
        "glioma/P1/P1_brain_mask.nii.gz": BRAIN_MASK,
    }
    command = ["prepare", str(put(tmp_path / "x", files)), "--out", str(tmp_path / "out"), "--no-mri-check"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1 and "Choose one, for instance --sequence t1c" in result.output
    result = CliRunner().invoke(main, [*command, "--sequence", "t1c"])
    assert result.exit_code == 0, result.output
    assert "Left out: 2 files, listed in" in result.output and "1 of sequence t2: " in result.output


@pytest.mark.parametrize("chosen", [("flair",), ("", "1")])
def test_a_choice_that_loses_a_class_is_an_error(tmp_path: Path, chosen: tuple[str, ...]) -> None:
    scans = {f"glioma/G_{name}.nii.gz": SCAN for name in ("t1c", "flair")} | {"meningioma/M_t1c.nii.gz": SCAN}
    channels = {
        f"{case}_000{n}.nii.gz": SCAN for case in ("glioma/imagesTr/G", "meningioma/imagesTr/M") for n in (0, 1)
    }
    files = channels if chosen[0] == "" else scans
    files.pop("meningioma/imagesTr/M_0001.nii.gz", None)
    with pytest.raises(DataError, match=r"must keep an image. Received: none of meningioma; left out: "):
        made(tmp_path, files, *chosen)
    assert not (tmp_path / "out").exists()
