"""The field's naming schemes: names, made after the schemes' documents, and what they say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btkeras.datasets.mask_names import is_mask_path, mask_name
from btkeras.datasets.masks import pair_masks
from btkeras.datasets.names_together import parse_names

# Path: patient, session, sequence or channel.
SCANS = {
    # The issue's.
    "glioma/imagesTr/CASE_0000.nii.gz": ("CASE", "", 0),
    "glioma/imagesTr/CASE_0003.nii.gz": ("CASE", "", 3),
    "glioma/BraTS-GLI-00001-000/BraTS-GLI-00001-000-t1c.nii.gz": ("BraTS-GLI-00001", "000", "t1c"),
    "glioma/BraTS-GLI-00001-001/BraTS-GLI-00001-001-t2f.nii.gz": ("BraTS-GLI-00001", "001", "flair"),
    "glioma/sub-01_ses-1_T1w.nii.gz": ("sub-01", "ses-1", "t1"),
    "imagesTr/glioma/CASE4_0001.nii.gz": ("CASE4", "", 1),
    "imagesTr/glioma/CASE4_0003.nii.gz": ("CASE4", "", 3),
    # BIDS.
    "glioma/sub-pat07/ses-pre/anat/sub-pat07_ses-pre_ce-gadolinium_run-1_T1w.nii.gz": ("sub-pat07", "ses-pre", "t1c"),
    "glioma/sub-02/anat/sub-02_acq-mprageGd_T1w.nii": ("sub-02", "", "t1c"),
    "glioma/sub-02/anat/sub-02_acq-space_T1w.nii": ("sub-02", "", "t1"),
    "glioma/sub-02/anat/sub-02_inplaneT2.nii.gz": ("sub-02", "", "inplanet2"),
    "glioma/derivatives/prep/sub-02/anat/sub-02_desc-preproc_T1w.nii.gz": ("sub-02", "", "t1_preproc"),
    "glioma/derivatives/prep/sub-02/anat/sub-02_T2w.nii.gz": ("sub-02", "", "t2_derived"),
    "glioma/sub-03/ses-2/anat/T1c.nii.gz": ("sub-03", "ses-2", "t1c"),
    # BraTS.
    "meningioma/BraTS-MEN-RT-0034-1/BraTS-MEN-RT-0034-1_t1c.nii.gz": ("BraTS-MEN-RT-0034", "1", "t1c"),
    "glioma/BraTS-PED-00012-000-t1n.nii.gz": ("BraTS-PED-00012", "000", "t1"),
    "glioma/BraTS2021_00495/BraTS2021_00495_flair.nii.gz": ("BraTS2021_00495", "", "flair"),
    "glioma/BraTS20_Training_001/BraTS20_Training_001_t1ce.nii": ("BraTS20_Training_001", "", "t1c"),
    "glioma/HGG/Brats18_TCIA01_131_1/Brats18_TCIA01_131_1_t1ce.nii.gz": ("Brats18_TCIA01_131", "1", "t1c"),
    "glioma/HGG/Brats18_2013_0_1/Brats18_2013_0_1_t2.nii.gz": ("Brats18_2013_0", "1", "t2"),
    "glioma/BraTS19_TMC_06643_1_t1.nii.gz": ("BraTS19_TMC_06643", "1", "t1"),
    "glioma/BraTSReg_001/BraTSReg_001_01_0106_t1ce.nii.gz": ("BraTSReg_001", "01_0106", "t1c"),
    # Archives.
    "glioma/UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_T1c.nii.gz": ("UCSF-PDGM-0004", "", "t1c"),
    "glioma/UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_T1c_bias.nii.gz": ("UCSF-PDGM-0004", "", "t1c_bias"),
    "glioma/UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_DTI_eddy_FA.nii.gz": ("UCSF-PDGM-0004", "", "dti_eddy_fa"),
    "glioma/UCSF-PDGM-0315_FU003d_nifti/UCSF-PDGM-0315_FU003d_FLAIR.nii.gz": ("UCSF-PDGM-0315", "FU003d", "flair"),
    "glioma/images_structural/UPENN-GBM-00001_11/UPENN-GBM-00001_11_T1GD.nii.gz": ("UPENN-GBM-00001", "11", "t1c"),
    "glioma/UPENN-GBM-00630_21/UPENN-GBM-00630_21_T2_unstripped.nii.gz": ("UPENN-GBM-00630", "21", "t2_unstripped"),
    "glioma/TCGA-02-0006/TCGA-02-0006_1996.08.23_t1Gd.nii.gz": ("TCGA-02-0006", "1996.08.23", "t1c"),
    "glioma/TCGA_CS_4941_19960909/TCGA_CS_4941_19960909_12.tif": ("TCGA_CS_4941", "19960909", ""),
    "glioma/TCGA-02-0003/06-08-1997-NA-MRI BRAIN-81239/5.000000-AX T1 POST-20475/1-01.png": (
        *("TCGA-02-0003", "06-08-1997", "t1c"),
    ),
    "glioma/EGD-0001/2_T1GD/NIFTI/T1GD.nii.gz": ("EGD-0001", "", "t1c"),
    "no_tumor/IXI002-Guys-0828-T1.nii.gz": ("IXI002", "", "t1"),
    "no_tumor/OAS30001_MR_d0129/OAS30001_MR_d0129_T2w.nii.gz": ("OAS30001", "MR_d0129", "t2"),
    "no_tumor/ADNI_002_S_0413_T1.nii": ("002_S_0413", "", "t1"),
    # No scheme.
    "glioma/P1/P1_t1.nii.gz": ("P1", "", "t1"),
    "glioma/P1/P1_x_flair.nii.gz": ("P1", "", "flair"),
    "glioma/P7_preop_T1_Gd.nii.gz": ("P7", "preop", "t1c"),
    "glioma/P7_20200131_T2_FLAIR.nii.gz": ("P7", "20200131", "flair"),
    "glioma/Patient-001/week-000-1/CT1.nii.gz": ("Patient-001", "week-000-1", "t1c"),
    "glioma/P8/visit2/t2.nii.gz": ("P8", "visit2", "t2"),
    "glioma/P9/TP2/FLAIR.nii.gz": ("P9", "TP2", "flair"),
    "glioma/cohort/TP01_t1.nii.gz": ("TP01", "", "t1"),
    "glioma/cohort/P10_tp2_t1.nii.gz": ("P10", "tp2", "t1"),
    "glioma/P 11 follow-up T1.nii.gz": ("P 11", "follow-up", "t1"),
    "glioma/P12/AX_T1_POST_3.nii.gz": ("P12", "", "t1c"),
    "glioma/P12/SAG 3D FLAIR.nii.gz": ("P12", "", "flair"),
    "glioma/P12/T1_SAG_4.nii.gz": ("P12", "", "t1_sag"),
    "glioma/P12/T2_5.nii.gz": ("P12", "", "t2"),
    "glioma/P13/20200131/AX T2 FLAIR.nii.gz": ("P13", "20200131", "flair"),
    "glioma/HF1708/HF1708_T1_LPS.nii.gz": ("HF1708", "", "t1_lps"),
    "glioma/T1_017.nii.gz": ("017", "", "t1"),
    "glioma/scan_001.nii.gz": ("scan_001", "", ""),
    "glioma/glioma_007.nii.gz": ("glioma_007", "", ""),
    "glioma/a.nii.gz": ("a", "", ""),
    "glioma/one/scan.nii.gz": ("one", "", ""),
    "glioma/two/scan.nii.gz": ("two", "", ""),
    "glioma/three/FLAIR/brain.nii.gz": ("three", "", "flair"),
    "glioma/four_t2/brain.nii.gz": ("four", "", "t2"),
    "meningioma/native/P21.nii.gz": ("P21", "", ""),
    "meningioma/native/P22.nii.gz": ("P22", "", ""),
    "meningioma/enhanced/P21.nii.gz": ("P21", "", ""),
    "meningioma/T1 post/P22.nii.gz": ("P22", "", "t1c"),
    "glioma/Q_0000.nii": ("Q", "", 0),
    "glioma/Q_0001.nii": ("Q", "", 1),
    # Series' numbers and visits.
    "glioma/EGD-0002/3_T1_POST/NIFTI/3_T1_POST.nii.gz": ("EGD-0002", "", "t1c"),
    "glioma/P35/3_T1.nii.gz": ("P35", "", "t1"),
    "glioma/P35/5_T1c.nii.gz": ("P35", "", "t1c"),
    "glioma/numbered/31_T1.nii.gz": ("31", "", "t1"),
    "glioma/numbered/32_T1.nii.gz": ("32", "", "t1"),
    "glioma/P31/V1/t1.nii.gz": ("P31", "V1", "t1"),
    "meningioma/P32/V1/t1.nii.gz": ("P32", "V1", "t1"),
    "glioma/P31/M12/t1.nii.gz": ("P31", "M12", "t1"),
    "glioma/P33/M12/flair.nii.gz": ("P33", "M12", "flair"),
    "glioma/P31/2/t1.nii.gz": ("P31", "2", "t1"),
    "glioma/P33/2/t1.nii.gz": ("P33", "2", "t1"),
    "glioma/P37/2001_02_03/T1.nii.gz": ("P37", "2001_02_03", "t1"),
    "glioma/ABC12_V2.nii.gz": ("ABC12", "V2", ""),
    "glioma/P36_BL_t1.nii.gz": ("P36", "BL", "t1"),
    "glioma/P36_03.02.2002_t1.nii.gz": ("P36", "03.02.2002", "t1"),
    # Patients of hospitals.
    **{f"pituitary/site {s}/X{n:03}/t1.nii.gz": (f"X{n:03}", "", "t1") for s in "AB" for n in range(40)},
    # Plain numbers.
    "glioma/imagesTr/BRATS_001.nii.gz": ("BRATS_001", "", ""),
    "glioma/imagesTr/R_0005.nii.gz": ("R_0005", "", ""),
    "glioma/S_0000.nii": ("S_0000", "", ""),
    "glioma/S_0003.nii": ("S_0003", "", ""),
    # Slices of no strict scheme.
    "glioma/Tr-gl_0010.jpg": ("", "", ""),
    "glioma/P1_t1_12.png": ("", "", ""),
    "glioma/T_0000.png": ("", "", ""),
    "glioma/T_0001.png": ("", "", ""),
    "glioma/BraTS-GLI-00001-000-t1c_75.png": ("BraTS-GLI-00001", "000", "t1c"),
}

# Path: what it is a mask of.
MASKS = {
    "glioma/labelsTr/CASE.nii.gz": "tumor",
    "glioma/labelsTr/R_0005.nii.gz": "tumor",
    "labelsTs/x.nii.gz": "tumor",
    "P1-seg.nii": "tumor",
    "derivatives/manual/sub-01/anat/sub-01_label-lesion_mask.nii.gz": "tumor",
    "sub-r001_space-MNI_label-L_desc-T1lesion_mask.nii.gz": "tumor",
    "sub-01_desc-tumor_dseg.nii.gz": "tumor",
    "sub-01_space-T1w_desc-brain_mask.nii.gz": "brain",
    "sub-01_label-GM_probseg.nii.gz": "brain",
    "sub-01_desc-aparcaseg_dseg.nii.gz": "brain",
    "UCSF-PDGM-0004_tumor_segmentation.nii.gz": "tumor",
    "UCSF-PDGM-0004_brain_parenchyma_segmentation.nii.gz": "brain",
    "automated_segm/UPENN-GBM-00001_11_automated_approx_segm.nii.gz": "tumor",
    "TCGA-02-0006_1996.08.23_GlistrBoost_ManuallyCorrected.nii.gz": "tumor",
    "EGD-0001/MASK/NIFTI/MASK.nii.gz": "tumor",
    "BraTS-MEN-RT-0034-1_gtv.nii.gz": "tumor",
    "mri/aparc+aseg.nii.gz": "brain",
    "mri/brainmask.nii.gz": "brain",
    "x/P1_t1_bet_mask.nii.gz": "brain",
    "glioma/TCGA_CS_4941_19960909_1_mask.tif": "tumor",
    "segmentation_task/train/masks/a.png": "tumor",
    "glioma/benign (1)_mask_1.png": "tumor",
    "glioma/mask_001.png": "tumor",
    "glioma/tumorMask.png": "tumor",
    "Ground Truth/7.bmp": "tumor",
    "tumor_masks/7.png": "tumor",
    "P1_prob.nii.gz": "tumor",
    "P1_tumor_probability.nii.gz": "tumor",
    "P1_softmax.nii": "tumor",
}
NO_MASKS = (
    *(
        "segmentation_task/train/images/a.jpg",
        "glioma_tumor/image(1).jpg",
        "glioma/P1_t1_bet.nii.gz",
        "P1_brain.nii.gz",
    ),
    *("OAS1_0001_MR1_mpr_n4_anon_111_t88_masked_gfc.nii", "glioma/Te-no_0010.jpg", "labels.png.d/a.png", "no/no 1.jpg"),
)
NAMES = parse_names([*SCANS, *MASKS])


@pytest.mark.parametrize("path", SCANS)
def test_a_scan_s_name(path: str) -> None:
    patient, session, kind = SCANS[path]
    found = NAMES[path]
    assert (found.patient, found.session) == (patient, session)
    assert (found.channel if isinstance(kind, int) else found.sequence) == kind
    assert not is_mask_path(path)


@pytest.mark.parametrize("path", MASKS)
def test_a_mask_s_name(path: str) -> None:
    found = mask_name(path)
    assert found is not None and found.kind == MASKS[path]


@pytest.mark.parametrize("path", NO_MASKS)
def test_no_mask_s_name(path: str) -> None:
    assert not is_mask_path(path)


PAIRS = {
    "glioma/imagesTr/CASE_0001.nii.gz": "glioma/labelsTr/CASE.nii.gz",
    "glioma/imagesTr/R_0005.nii.gz": "glioma/labelsTr/R_0005.nii.gz",
    "glioma/images_structural/UPENN-GBM-00001_11/UPENN-GBM-00001_11_T1GD.nii.gz": (
        "glioma/images_segm/UPENN-GBM-00001_11_segm.nii.gz"
    ),
    "glioma/UPENN-GBM-00630_21/UPENN-GBM-00630_21_T2.nii.gz": (
        "glioma/automated_segm/UPENN-GBM-00630_21_automated_approx_segm.nii.gz"
    ),
    "glioma/sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz": (
        "derivatives/lesions/sub-01/ses-1/anat/sub-01_ses-1_label-lesion_mask.nii.gz"
    ),
    "glioma/sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz": "glioma/derivatives/sub-02_label-tumor_mask.nii.gz",
    "glioma/EGD-0001/2_T1GD/NIFTI/T1GD.nii.gz": "glioma/EGD-0001/MASK/NIFTI/MASK.nii.gz",
    "glioma/P1/P1_2_t1.nii.gz": "glioma/P1/P1_2_seg.nii.gz",
    "glioma/P1/P1_3_t1.nii.gz": "glioma/P1/P1_seg.nii.gz",
    "glioma/P10/P10_t1.nii.gz": "",
    "glioma/P11/P11_t1.nii.gz": "glioma/P11/P11_WT_mask.nii.gz",
    "images.zip/glioma/P12_t1.nii.gz": "masks.zip/glioma/P12.nii.gz",
    "glioma/LiTS/volume-7.nii": "glioma/LiTS/segmentation-7.nii",
    "glioma/1.png": "masks/glioma/1.png",
    "meningioma/1.png": "",
    "glioma/unique.png": "labels/unique.png",
    "pituitary/images/image_004.jpg": "pituitary/masks/mask_004.png",
    "pituitary/images/image_005.jpg": "",
    "pituitary/TCGA_CS_4941_19960909_1.tif": "pituitary/TCGA_CS_4941_19960909_1_mask.tif",
    "pituitary/TCGA_CS_4941_19960909_11.tif": "",
}
UNUSED = {
    "glioma/P11/P11_ET_mask.nii.gz": "a mask beside a better one",
    "glioma/automated_segm/UPENN-GBM-00001_11_automated_approx_segm.nii.gz": "a mask beside a better one",
    "glioma/UPENN-GBM-00001_11_brain_mask.nii.gz": "a mask of the head or its tissues",
    "glioma/sub-01_ses-3_label-lesion_mask.nii.gz": "a mask without an image",
}


def test_masks_go_to_the_images_of_their_case() -> None:
    found = pair_masks(parse_names([*PAIRS, *filter(None, PAIRS.values()), *UNUSED]))
    assert found.mask_of == {path: mask for path, mask in PAIRS.items() if mask}
    assert found.left_out == UNUSED


@given(st.lists(st.text("ab/_-.01sub t1mask", max_size=40).map(lambda text: f"{text}.nii.gz"), max_size=6))
def test_every_name_is_parsed_and_a_volume_has_a_patient(paths: list[str]) -> None:
    names = parse_names(paths)
    assert all(name.patient for name in names.values())
    assert pair_masks(names).mask_of.keys() <= set(paths)
