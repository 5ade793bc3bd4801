#!/usr/bin/env bash
# Enhanced MR files scale each frame by a slope of its own; four readers give three results. pydicom's apply_modality_lut
# and dcm2niix return the stored values, SimpleITK scales all frames by the first one's slope, only highdicom is right.
#
# A reader expects: the functions that are named for it apply the scale of each frame, or refuse.
# Versions: pydicom 3.0.2, SimpleITK 2.5.7, dcm2niix 1.0.20260724, highdicom 0.28.2 (which writes the file).
# Source: DICOM PS3.3 C.7.6.16.2.9; https://github.com/pydicom/pydicom/issues/2353 (pydicom's part)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pydicom==3.0.2 highdicom==0.28.2 SimpleITK==2.5.7 dcm2niix==1.0.20260724 \
  nibabel==5.4.2
cd "$work"
mkdir enhanced
venv/bin/python - <<'PYTHON'
import subprocess
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

SLOPES = (1, 0.5, 0.25)
STORED = np.full((64, 64), 1000, np.uint16)
STORED[16:48, 16:48] = 2000
SAME = {
    **dict.fromkeys(("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")),
    "Modality": "MR", "Manufacturer": "x", "ImageType": ["ORIGINAL", "PRIMARY", "M"], "PatientPosition": "HFS",
    "PatientName": "", "PatientID": "1", "PatientBirthDate": "", "PatientSex": "", "StudyID": "1", "SeriesNumber": 1,
    "StudyDate": "20200101", "StudyTime": "101010", "AccessionNumber": "", "ReferringPhysicianName": "",
    "ScanningSequence": "SE", "SequenceVariant": "NONE", "ScanOptions": "", "MRAcquisitionType": "2D",
    "EchoTime": "10", "RepetitionTime": "500", "SliceThickness": "5", "PositionReferenceIndicator": "",
    "MagneticFieldStrength": "3", "ImagedNucleus": "1H", "BodyPartExamined": "BRAIN", "Laterality": "",
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1], "Rows": 64, "Columns": 64,
    "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 16,
    "HighBit": 15, "PixelRepresentation": 0, "PixelData": STORED.tobytes(), "RescaleIntercept": "0",
    "RescaleType": "US", "SeriesDescription": "t1", "WindowCenter": "1000", "WindowWidth": "2000",
}  # fmt: skip


def classic(number, slope, uids):
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for key, value in {**SAME, **uids}.items():
        setattr(made, key, value)
    made.SOPClassUID, made.SOPInstanceUID = MRImageStorage, generate_uid()
    made.InstanceNumber, made.ImagePositionPatient, made.RescaleSlope = number + 1, [0, 0, 5 * number], str(slope)
    return made


uids = {key: generate_uid() for key, value in SAME.items() if value is None}
slices = [classic(number, slope, uids) for number, slope in enumerate(SLOPES)]
made = highdicom.legacy.LegacyConvertedEnhancedMRImage(slices, generate_uid(), 2, generate_uid(), 1)
made.save_as("enhanced/mr.dcm")

dataset = pydicom.dcmread("enhanced/mr.dcm")
slopes = [
    float(frame.PixelValueTransformationSequence[0].RescaleSlope)
    for frame in dataset.PerFrameFunctionalGroupsSequence
]
assert sorted(slopes) == sorted(SLOPES) and (dataset.pixel_array.max(axis=(1, 2)) == 2000).all()
expected = [2000 * slope for slope in slopes]
print(f"{dataset.SOPClassUID.name}, maxima of the frames by their slopes: {expected}")


def report(name, frames):
    maxima = [float(frame.max()) for frame in frames]
    print(f"{name}: {maxima}")
    return maxima


image = highdicom.imread("enhanced/mr.dcm")
assert report("highdicom", [image.get_frame(number + 1) for number in range(3)]) == expected
stored = [2000.0] * 3
assert report("pydicom's apply_modality_lut", apply_modality_lut(dataset.pixel_array, dataset)) == stored
volume = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage("enhanced/mr.dcm"))
assert report("SimpleITK", volume) == [2000 * slopes[0]] * 3
subprocess.run(["venv/bin/dcm2niix", "-o", ".", "-f", "made", "enhanced"], check=True, capture_output=True)
converted = nibabel.load(*Path().glob("made*.nii")).get_fdata()
assert report("dcm2niix", np.moveaxis(converted, -1, 0)) == stored
PYTHON
