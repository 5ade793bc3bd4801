"""Public collections as they are unpacked: no mask becomes an image, no channel a patient, no file goes without a word.

Layouts and names are those of the collections' own pages and descriptors; the contents are synthetic heads.
"""

from __future__ import annotations

import pytest

from btkeras.datasets.mask_names import BRAIN, TUMOR, mask_name

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
