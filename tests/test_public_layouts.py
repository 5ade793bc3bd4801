"""Public collections as they are unpacked: no mask becomes an image, no channel a patient, no file goes without a word.

Layouts and names are those of the collections' own pages and descriptors; the contents are synthetic heads.
"""

from __future__ import annotations

import csv
import functools
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from btkeras.cli import main
from btkeras.config import PhantomConfig
from btkeras.datasets.mask_names import BRAIN, TUMOR, mask_name
from btkeras.datasets.phantom import draw_patient
from tests.prepare_files import encoded, put, rows

MASKS = {
    # BraTS 2020 has one segmentation of another name.
    "BraTS20_Training_355/W39_1998.09.19_Segm.nii": TUMOR,
    "UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_tumor_segmentation.nii.gz": TUMOR,
    "UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_brain_parenchyma_segmentation.nii.gz": BRAIN,
    "kaggle_3m/TCGA_CS_4941_19960909/TCGA_CS_4941_19960909_1_mask.tif": TUMOR,
    "lgg-mri-segmentation/kaggle_3m/TCGA_CS_4941_19960909/TCGA_CS_4941_19960909_1_mask.tif": TUMOR,
    "PatientID_0003/Timepoint_1/PatientID_0003_Timepoint_1_tumorMask.nii.gz": TUMOR,
    "RHUH-0001/0/RHUH-0001_0_segmentations.nii.gz": TUMOR,
    "EGD-0001/7_MASK/NIFTI/MASK.nii.gz": TUMOR,
    "Patient-001/week-000-1/HD-GLIO-AUTO-segmentation/native/segmentation_CT1_origspace.nii.gz": TUMOR,
    "TCGA-02-0006/TCGA-02-0006_1996.08.23_GlistrBoost_ManuallyCorrected.nii.gz": TUMOR,
    "OAS1_0001_MR1/FSL_SEG/OAS1_0001_MR1_mpr_n4_anon_111_t88_masked_gfc_fseg.nii.gz": BRAIN,
    "A00028185/sub-A00028185_ses-NFB3_T1w_brainmask.nii.gz": BRAIN,
    "sub1/mri/aparc+aseg.nii.gz": BRAIN,
    "derivatives/fmriprep/sub-01/anat/sub-01_label-GM_probseg.nii.gz": BRAIN,
    "gt/0001.png": TUMOR,
}
IMAGES = (
    # A collection's folder may be called by its task.
    "lgg-mri-segmentation/kaggle_3m/TCGA_CS_4941_19960909/TCGA_CS_4941_19960909_1.tif",
    "Brain Tumor Segmentation/images/glioma/1.png",
    "MRI Segmentation/1.png",
    "brain-tumor-segmentation/glioma/1.png",
    "brisc2025/segmentation_task/train/images/brisc2025_train_00001_gl_ax_t1.jpg",
    # Brains without a skull are images.
    "OAS1_0001_MR1/PROCESSED/MPRAGE/T88_111/OAS1_0001_MR1_mpr_n4_anon_111_t88_masked_gfc.nii.gz",
    "PatientID_0003/Timepoint_1/PatientID_0003_Timepoint_1_brain_t1c.nii.gz",
    "A00028185/sub-A00028185_ses-NFB3_T1w_brain.nii.gz",
    "Patient-001/week-000-1/HD-GLIO-AUTO-segmentation/native/CT1_r2s_bet.nii.gz",
    "UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_T1c_bias.nii.gz",
    # Words that hold a mask's word, or begin like one.
    "glioma/masked_head_01.png",
    "glioma/patient_segovia_01.png",
    "lesion/01.png",
    "tumor/01.png",
)


@pytest.mark.parametrize(("path", "kind"), MASKS.items())
def test_a_name_of_a_public_collection_says_mask(path: str, kind: str) -> None:
    found = mask_name(path)
    assert found is not None and found.kind == kind


@pytest.mark.parametrize("path", IMAGES)
def test_a_name_of_a_public_collection_says_no_mask(path: str) -> None:
    assert mask_name(path) is None


@functools.cache
def contents() -> dict[str, bytes]:
    """Files of a synthetic head by kind: its volume in four sequences at once or in one, slices, and masks."""
    config = PhantomConfig(patients=4, slices=6, image_size=64)
    slices = next(drawn for drawn in map(functools.partial(draw_patient, config), range(4)) if drawn[3].mask.any())
    # Stored right to left and front to back.
    scan, tumor = (
        np.stack(planes, axis=-1).transpose(1, 0, 2)[::-1, ::-1]
        for planes in zip(*((s.image, s.mask) for s in slices), strict=True)
    )
    volume = scan.astype(np.int16) * 5
    return {
        "scan": _nifti(volume),
        "scans": _nifti(np.stack([volume, volume * 2, volume * 3, volume * 4], axis=-1)),
        "tumor": _nifti(tumor.astype(np.uint8)),
        "brain": _nifti((scan > 20).astype(np.uint8)),
        "slice": encoded(slices[3].image),
        "slice tumor": encoded(slices[3].mask.astype(np.uint8)),
        "other": b"text",
        "channels": json.dumps({"channel_names": {"0": "T1", "1": "T1-Gd"}}).encode(),
        "modalities": json.dumps({"modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}}).encode(),
    }


def _nifti(values: Any) -> bytes:
    return gzip.compress(nib.Nifti1Image(values, np.diag([3.0, 3.0, 5.0, 1.0])).to_bytes(), 1)


class Layout(NamedTuple):
    """A collection's files by kind; how many patients it has, and of which names; the sequence that is chosen."""

    patients: tuple[str, ...]
    sequence: str
    files: dict[str, str]
    masks: bool = True


def scans(template: str, *names: str) -> dict[str, str]:
    return {template.format(name): "scan" for name in names}


LAYOUTS = {
    "RHUH-GBM, times of a patient": Layout(
        ("RHUH-0001", "RHUH-0002"),
        "t1c",
        {
            path: kind
            for case in ("RHUH-0001/0/RHUH-0001_0", "RHUH-0001/1/RHUH-0001_1", "RHUH-0002/0/RHUH-0002_0")
            for path, kind in {
                **scans(case + "_{}.nii.gz", "t1", "t1ce", "adc"),
                f"{case}_segmentations.nii.gz": "tumor",
            }.items()
        },
    ),
    "MU-Glioma-Post": Layout(
        ("PatientID_0003",),
        "flair",
        {
            path: kind
            for time in ("Timepoint_1", "Timepoint_2")
            for path, kind in {
                **scans(f"PatientID_0003/{time}/PatientID_0003_{time}_brain_{{}}.nii.gz", "t1c", "t1n", "t2f", "t2w"),
                f"PatientID_0003/{time}/PatientID_0003_{time}_tumorMask.nii.gz": "tumor",
            }.items()
        },
    ),
    "UCSF-BMSR, a letter for each time": Layout(
        ("100101", "100102"),
        "t1c",
        {
            path: kind
            for case in ("100101A", "100101B", "100102A")
            for path, kind in {
                **scans(f"{case}/{case}_{{}}.nii.gz", "T1pre", "T1post", "FLAIR"),
                f"{case}/{case}_seg.nii.gz": "tumor",
                f"{case}/{case}_BraTS-seg.nii.gz": "tumor",
            }.items()
        },
    ),
    "UCSF-ALPTDG, times in one folder": Layout(
        ("100001",),
        "t1c",
        {
            path: kind
            for time in ("time1", "time2")
            for path, kind in {
                **scans(f"100001/100001_{time}_{{}}.nii.gz", "t1", "t1ce", "t1ce-t1"),
                f"100001/100001_{time}_seg.nii.gz": "tumor",
            }.items()
        },
    ),
    "UCSD-PTGBM, masks of parts": Layout(
        ("UCSD-PTGBM-0002",),
        "t1c",
        {
            path: kind
            for case in ("UCSD-PTGBM-0002_01", "UCSD-PTGBM-0002_02")
            for path, kind in {
                **scans(f"{case}/{case}_{{}}.nii.gz", "T1pre", "T1post", "ADC"),
                f"{case}/{case}_BraTS_tumor_seg.nii.gz": "tumor",
                f"{case}/{case}_total_cellular_tumor_seg.nii.gz": "tumor",
            }.items()
        },
    ),
    "UCSD-VS, a mask of a sequence": Layout(
        ("VS_0001",),
        "",
        {
            path: kind
            for case in ("VS_0001_01", "VS_0001_02")
            for path, kind in {
                f"{case}/{case}_t1post.nii.gz": "scan",
                f"{case}/{case}_seg_t1post.nii.gz": "tumor",
            }.items()
        },
    ),
    "BraTS 2020, one mask of another name": Layout(
        ("BraTS20_Training_355", "BraTS20_Training_356"),
        "t1c",
        {
            **scans("BraTS20_Training_355/BraTS20_Training_355_{}.nii.gz", "t1", "t1ce", "t2", "flair"),
            "BraTS20_Training_355/W39_1998.09.19_Segm.nii.gz": "tumor",
            **scans("BraTS20_Training_356/BraTS20_Training_356_{}.nii.gz", "t1", "t1ce", "t2", "flair"),
            "BraTS20_Training_356/BraTS20_Training_356_seg.nii.gz": "tumor",
            "name_mapping.csv": "other",
        },
    ),
    "Yale, names of its own": Layout(
        ("YG_0Q16DTT5VXHO",),
        "post",
        scans("YG_0Q16DTT5VXHO/2012-03-30/YG_0Q16DTT5VXHO_2012-03-30_{}.nii.gz", "PRE", "POST", "T2", "FLAIR"),
        masks=False,
    ),
    "EGD, the same names in each folder": Layout(
        ("EGD-0001", "EGD-0002"),
        "flair",
        {
            path: kind
            for case in ("EGD-0001", "EGD-0002")
            for path, kind in {
                **{f"{case}/{n}_{name}/NIFTI/{name}.nii.gz": "scan" for n, name in enumerate(("T1", "T1GD", "FLAIR"))},
                f"{case}/5_MASK/NIFTI/MASK.nii.gz": "tumor",
            }.items()
        },
    ),
    "UCSF-PDGM, a later scan, maps and masks of the brain": Layout(
        ("UCSF-PDGM-0315",),
        "t1c",
        {
            path: kind
            for case in ("UCSF-PDGM-0315", "UCSF-PDGM-0315_FU003d")
            for path, kind in {
                **scans(f"{case}_nifti/{case}_{{}}.nii.gz", "T1c", "T1c_bias", "FLAIR", "ADC", "DTI_eddy_FA"),
                f"{case}_nifti/{case}_tumor_segmentation.nii.gz": "tumor",
                f"{case}_nifti/{case}_brain_segmentation.nii.gz": "brain",
                f"{case}_nifti/{case}_DTI_eddy_noreg.bvec": "other",
            }.items()
        },
    ),
    "Decathlon, four volumes a file": Layout(
        ("BRATS_001", "BRATS_002"),
        "t1c",
        {
            "dataset.json": "modalities",
            **{f"imagesTr/BRATS_{n}.nii.gz": "scans" for n in ("001", "002")},
            **{f"labelsTr/BRATS_{n}.nii.gz": "tumor" for n in ("001", "002")},
        },
    ),
    "nnU-Net of slices": Layout(
        (),
        "t1c",
        {
            "dataset.json": "channels",
            **{f"imagesTr/case_{case}_000{channel}.png": "slice" for case in "12" for channel in "01"},
            **{f"labelsTr/case_{case}.png": "slice tumor" for case in "12"},
        },
    ),
    "LGG 3M below a folder called segmentation": Layout(
        ("TCGA_CS_4941",),
        "",
        {
            path: kind
            for time in ("19960909", "19970101")
            for path, kind in {
                f"lgg-mri-segmentation/kaggle_3m/TCGA_CS_4941_{time}/TCGA_CS_4941_{time}_1.tif": "slice",
                f"lgg-mri-segmentation/kaggle_3m/TCGA_CS_4941_{time}/TCGA_CS_4941_{time}_1_mask.tif": "slice tumor",
            }.items()
        },
    ),
    "OASIS, brains without a skull": Layout(
        ("OAS1_0001",),
        "",
        {
            "OAS1_0001_MR1/T88_111/OAS1_0001_MR1_mpr_n4_anon_111_t88_masked_gfc.nii.gz": "scan",
            "OAS1_0001_MR1/FSL_SEG/OAS1_0001_MR1_mpr_n4_anon_111_t88_masked_gfc_fseg.nii.gz": "brain",
            "OAS1_0001_MR1/OAS1_0001_MR1.txt": "other",
        },
        masks=False,
    ),
    "FreeSurfer": Layout(
        ("subj1", "subj2"),
        "",
        {
            path: kind
            for case in ("subj1", "subj2")
            for path, kind in {
                **{f"{case}/mri/{name}.nii.gz": "brain" for name in ("aseg", "aparc+aseg", "ribbon", "lh.ribbon")},
                f"{case}/mri/T1.nii.gz": "scan",
                f"{case}/mri/wm.mgz": "other",
            }.items()
        },
        masks=False,
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_public_layout_gives_its_patients_one_sequence_and_the_tumours_masks(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    source = put(tmp_path / "source", {f"glioma/{path}": contents()[kind] for path, kind in layout.files.items()})
    choice = ["--sequence", layout.sequence] if layout.sequence else []
    done = CliRunner().invoke(main, ["prepare", str(source), "--out", str(tmp_path / "out"), "--no-mri-check", *choice])
    assert done.exit_code == 0, done.output
    found = rows(tmp_path / "out/manifest.csv")
    kinds = {f"glioma/{path}": kind for path, kind in layout.files.items()}
    assert {kinds[row["original"]] for row in found} <= {"scan", "scans", "slice"}
    assert {row["patient"] for row in found} - {""} == set(layout.patients)
    assert {row.get("sequence", "") for row in found} == {layout.sequence} or not layout.sequence
    assert all(row.get("mask") for row in found) == layout.masks
    assert set(kinds) - set(_said(tmp_path / "out", found)) <= {path for path, kind in kinds.items() if kind in _USED}


# Masks that are used, and tables of channels, are said of nowhere.
_USED = ("tumor", "slice tumor", "channels", "modalities")


def _said(out: Path, found: list[dict[str, str]]) -> Iterator[str]:
    """The files that are stored or named as left out, by their paths in the source."""
    yield from (row["original"] for row in found)
    if (out / "left_out.csv").exists():
        with (out / "left_out.csv").open() as table:
            yield from (row["path"].partition("/source/")[2] for row in csv.DictReader(table))


@pytest.mark.parametrize("name", [name for name, layout in LAYOUTS.items() if layout.sequence])
def test_several_sequences_stop_with_their_list(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    source = put(tmp_path / "source", {f"glioma/{path}": contents()[kind] for path, kind in layout.files.items()})
    done = CliRunner().invoke(main, ["prepare", str(source), "--out", str(tmp_path / "out"), "--no-mri-check"])
    assert done.exit_code == 1 and not (tmp_path / "out").exists()
    assert "Of several sequences of a case one must be chosen" in done.output and layout.sequence in done.output


def test_what_was_left_out_is_named_where_nothing_is_left(tmp_path: Path) -> None:
    source = put(tmp_path / "source", {f"glioma/{n}_mask.png": contents()["slice tumor"] for n in "ab"})
    done = CliRunner().invoke(main, ["prepare", str(source), "--out", str(tmp_path / "out"), "--no-mri-check"])
    assert done.exit_code == 1
    assert "2 files (2 a mask without an image)" in done.output and "a_mask.png" in done.output


@pytest.mark.parametrize("values", [2, 4, 8])
def test_a_volume_of_few_values_is_no_scan_whatever_its_name(values: int, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, values, (24, 24, 8)).astype(np.uint8)
    source = put(tmp_path / "source", {"glioma/p/scan.nii.gz": contents()["scan"], "glioma/p2/x.nii.gz": _nifti(noise)})
    done = CliRunner().invoke(main, ["prepare", str(source), "--out", str(tmp_path / "out"), "--no-mri-check"])
    assert done.exit_code == 1 and "A volume must be a scan, not a mask" in done.output and "x.nii.gz" in done.output


def test_an_image_whose_mask_shows_nothing_is_left_out_of_a_tumour_s_class(tmp_path: Path) -> None:
    found, empty = contents(), _nifti(np.zeros((64, 64, 6), np.uint8))
    # As LGG 3M's slices above and below the tumour, and BraTS' scans after surgery.
    files = {
        "glioma/TCGA_CS_4941_19960909_1.png": found["slice"],
        "glioma/TCGA_CS_4941_19960909_1_mask.png": encoded(np.zeros((64, 64), np.uint8)),
        "glioma/BraTS-GLI-00001-100-t1c.nii.gz": found["scan"],
        "glioma/BraTS-GLI-00001-100-seg.nii.gz": empty,
        "glioma/BraTS-GLI-00001-000-t1c.nii.gz": found["scan"],
        "glioma/BraTS-GLI-00001-000-seg.nii.gz": found["tumor"],
        "no_tumor/c.nii.gz": found["scan"],
        "no_tumor/c_seg.nii.gz": empty,
    }
    source = put(tmp_path / "source", files)
    done = CliRunner().invoke(main, ["prepare", str(source), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0 and "2 with a mask that shows no tumour" in done.output
    stored = rows(tmp_path / "out/manifest.csv")
    assert {row["original"] for row in stored} == {"glioma/BraTS-GLI-00001-000-t1c.nii.gz", "no_tumor/c.nii.gz"}
    assert all(bool(row["box"]) == (row["label"] == "glioma") for row in stored)


def test_a_mask_of_a_volume_a_label_is_an_error_of_its_own(tmp_path: Path) -> None:
    several = _nifti(np.zeros((64, 64, 6, 3), np.uint8))
    source = put(tmp_path / "source", {"glioma/p.nii.gz": contents()["scan"], "glioma/p_seg.nii.gz": several})
    done = CliRunner().invoke(main, ["prepare", str(source), "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert "A mask must be one volume of labels" in done.output and "--channel" not in done.output
