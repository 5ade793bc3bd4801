"""How the field's collections name their scans, as data."""

from __future__ import annotations

import re
from collections.abc import Mapping

# How the names of public collections begin: patient, and where there are some, session; then the sequence.
SCHEMES: Mapping[str, re.Pattern[str]] = {
    name: re.compile(rf"{pattern}(?![A-Za-z0-9])", re.IGNORECASE)
    for name, pattern in {
        # https://www.synapse.org/Synapse:syn51156910/wiki/622356 (2023 on), also -MEN-RT-.
        "brats": r"(?P<patient>BraTS(-[A-Z]+)+-\d{4,5})(-(?P<session>\d{1,3}))?",
        # https://www.med.upenn.edu/cbica/brats2021, /brats2020, and of 2017 to 2019, whose last number is the time.
        "brats2021": r"(?P<patient>BraTS2021_\d{5})",
        "brats2020": r"(?P<patient>BraTS20_(Training|Validation|Testing)_\d+)",
        "brats2018": r"(?P<patient>BraTS1[5-9]_[A-Z0-9]+_[A-Z0-9]+)_(?P<session>\d+)",
        # https://arxiv.org/abs/2112.06979: 00 before surgery, and the days after it.
        "bratsreg": r"(?P<patient>BraTSReg_\d+)(_(?P<session>\d\d_\d{4}))?",
        # https://doi.org/10.7937/tcia.bdgf-8v37
        "ucsf-pdgm": r"(?P<patient>UCSF-PDGM-\d+)(_(?P<session>FU\d+d?))?",
        # https://doi.org/10.7937/TCIA.709X-DN49: 11 before surgery, 21 at the second one.
        "upenn-gbm": r"(?P<patient>UPENN-GBM-\d+)(_(?P<session>\d\d))?",
        # https://doi.org/10.7937/K9/TCIA.2017.KLXWJJ1Q and https://www.kaggle.com/datasets/mateuszbuda/lgg-mri-segmentation
        "tcga": r"(?P<patient>TCGA[-_][A-Z0-9]{2}[-_][A-Z0-9]{4})([-_](?P<session>\d{4}\.?\d\d\.?\d\d))?",
        # https://brain-development.org/ixi-dataset/
        "ixi": r"(?P<patient>IXI\d{3})-[A-Z]+-\d{4}",
        # https://sites.wustl.edu/oasisbrains/
        "oasis": r"(?P<patient>OAS\d_?\d{4})_(?P<session>MR\d|MR_d\d{4})",
        # https://doi.org/10.1016/j.dib.2021.107191
        "egd": r"(?P<patient>EGD-\d{4})",
        # https://doi.org/10.7937/4545-c905: 0 before surgery, 1 early after it, 2 at recurrence.
        "rhuh-gbm": r"(?P<patient>RHUH-\d{4})(_(?P<session>\d))?",
        # https://doi.org/10.7937/7k9k-3c83
        "mu-glioma-post": r"(?P<patient>PatientID_\d{4})(_(?P<session>Timepoint_\d+))?(_brain)?",
        # https://doi.org/10.7937/3yat-e768
        "yale-brain-mets": r"(?P<patient>YG_[A-Z0-9]+)(_(?P<session>\d{4}-\d\d-\d\d))?",
        # https://doi.org/10.1148/ryai.230126: a letter for each time.
        "ucsf-bmsr": r"(?P<patient>\d{6})(?P<session>[A-E])",
        # https://www.cancerimagingarchive.net/collection/ucsd-ptgbm/ and /ucsd-vs-longitudinal/
        "ucsd": r"(?P<patient>UCSD-PTGBM-\d{4}|VS_\d{4})_(?P<session>\d\d)",
        # https://adni.loni.usc.edu
        "adni": r"(ADNI_)?(?P<patient>\d{3}_S_\d{4})",
    }.items()
}
# https://bids-specification.readthedocs.io/en/stable/appendices/entities.html
BIDS = re.compile(r"(?P<patient>sub-[A-Za-z0-9]+)(_(?P<session>ses-[A-Za-z0-9]+))?(?![A-Za-z0-9])")
BIDS_CONTRAST = re.compile(
    r"_ce-(?!no|pre)\w|_acq-((?i:gd|gad|contrast)|(?i:post)(?!op)|(?i:ce)(?![a-z])|[A-Za-z0-9]*(Gd|Gad|CE|Post|post)(?=_))"
)
# The folders PATIENT/STUDY/SERIES: https://wiki.cancerimagingarchive.net/display/NBIA/Downloading+TCIA+Images
TCIA_STUDY = re.compile(r"(?P<session>\d\d-\d\d-\d{4})-.*-\d{5}")
TCIA_SERIES = re.compile(r"\d+\.\d+-(?P<description>.*)-\d{5}")
# nnU-Net: https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md
CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
CHANNEL_FOLDERS = ("imagestr", "imagests", "imagesval")
MOST_CHANNELS = 8

# A time point in a name of no scheme.
SESSION = re.compile(
    r"(?:^|[_ -])(?P<session>(?:ses|session|visit|timepoint|baseline|follow-?up|pre-?op|post-?op|week|month)[_-]?\d*"
    r"(?:-\d+)?|(?:19|20)\d\d[-._]?[01]\d[-._]?[0-3]\d"
    r"|[0-3]\d[-._][01]\d[-._](?:19|20)\d\d)(?=[_ -]|\Z)"
    r"|(?<=[A-Z0-9])[_ -](?P<short>(?:tp|base|bl|fu|(?:scan|time|v)(?=\d))[_-]?\d*)(?=[_ -]|\Z)",
    re.IGNORECASE,
)
# Alone it may be a patient: TP01.
SHORT_SESSION = re.compile(r"(?:tp|base|fu|scan|time)[_-]?\d+", re.IGNORECASE)
# The same in folders of several patients.
VISIT = re.compile(r"(?:v|bl|mo?|day|wk?|yr?)[_-]?\d{0,3}|\d", re.IGNORECASE)
# Words of a protocol, as converters of DICOM name their files: AX_T1_POST_3.
_PROTOCOL = (
    "ax axial sag sagittal cor coronal tra 2d 3d se tse fse ir gre tfe ffe space cube vibe bravo fs fatsat iso brain "
    "head mr mri scan image img volume series w wo with without contrast"
)
NO_PATIENT = frozenset(_PROTOCOL.split())
# Folders that name no case.
NO_CASE = re.compile(
    r"anat|dwi|func|perf|fmap|nifti\d?|nii|dicoms?|mri?|data|derivatives|train|images?|imgs?|scans?|raw|volumes?|slices?|png|"
    r"images?(tr|ts|val)|images?_\w+",
    re.IGNORECASE,
)
# What tells an image from its mask: image_001 and mask_001.
IMAGE_WORD = re.compile(
    r"(?:(?<=[_-])|\A)(image|img|scan|volume|slice)[_ -]?(?=\d)|[_ -](image|img|scan|volume)\Z", re.IGNORECASE
)
# The number of a slice of a scan.
SLICE_WORD = re.compile(r"(slice|sl|z|x|y|axial|coronal|sagittal|ax|cor|sag)?\d*", re.IGNORECASE)
