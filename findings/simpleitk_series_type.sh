#!/usr/bin/env bash
# SimpleITK's ImageSeriesReader takes the type of the voxels from the first slice. Where that one's rescale gives whole
# positive numbers, negative values of later slices wrap around (-1 to 65,535) and fractions are cut off, without a
# warning; each file read alone is right. MR files of some vendors have such rescales, another one each slice.
#
# A reader expects: a series has the values of its slices, in a type that holds them.
# Versions: SimpleITK 2.5.7, pydicom 3.0.2, dcm2niix 1.0.20260724 (which is right). Source:
# https://github.com/SimpleITK/SimpleITK/issues/1636 (fractions; the wrap is not in it)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet SimpleITK==2.5.7 pydicom==3.0.2 dcm2niix==1.0.20260724 nibabel==5.4.2
cd "$work"
venv/bin/python - <<'PYTHON'
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

STORED = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32)
SAME = {
    "Modality": "MR", "Manufacturer": "x", "ImageType": ["ORIGINAL", "PRIMARY", "M"], "PatientPosition": "HFS",
    "PatientName": "", "PatientID": "1", "PatientBirthDate": "", "PatientSex": "", "StudyID": "1", "SeriesNumber": 1,
    "StudyDate": "20200101", "StudyTime": "101010", "AccessionNumber": "", "ReferringPhysicianName": "",
    "ScanningSequence": "SE", "SequenceVariant": "NONE", "ScanOptions": "", "MRAcquisitionType": "2D",
    "EchoTime": "10", "RepetitionTime": "500", "SliceThickness": "5", "PositionReferenceIndicator": "",
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1], "Rows": 32, "Columns": 32,
    "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 16,
    "HighBit": 15, "PixelRepresentation": 0, "PixelData": STORED.tobytes(), "RescaleType": "US",
}  # fmt: skip


def write(folder, rescales):
    Path(folder).mkdir()
    uids = [generate_uid() for _ in range(3)]
    for number, (slope, intercept) in enumerate(rescales):
        made = Dataset()
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        for key, value in SAME.items():
            setattr(made, key, value)
        made.StudyInstanceUID, made.SeriesInstanceUID, made.FrameOfReferenceUID = uids
        made.SOPClassUID, made.SOPInstanceUID = MRImageStorage, generate_uid()
        made.InstanceNumber, made.ImagePositionPatient = number + 1, [0, 0, 5 * number]
        made.RescaleSlope, made.RescaleIntercept = slope, intercept
        made.save_as(f"{folder}/{number}.dcm", enforce_file_format=True)


def report(name, slices):
    ranges = [(round(float(found.min()), 3), round(float(found.max()), 3)) for found in slices]
    print(f"  {name}: {ranges}")
    return ranges


for folder, rescales, wrong in (
    ("intercepts", (("1", "0"), ("1", "-500"), ("1", "-2000")), [(0, 1023), (0, 65535), (63536, 64559)]),
    ("slopes", (("1", "0"), ("0.1", "0"), ("0.001", "0")), [(0, 1023), (0, 102), (0, 1)]),
):
    write(folder, rescales)
    print(f"{folder}: {rescales}, lowest and highest value of each slice")
    files = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(folder)
    datasets = [dcmread(file) for file in files]
    right = report("pydicom", [apply_modality_lut(found.pixel_array, found) for found in datasets])
    alone = [SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(file)) for file in files]
    assert report("SimpleITK, each file", alone) == right
    subprocess.run(["venv/bin/dcm2niix", "-o", ".", "-f", folder, folder], check=True, capture_output=True)
    converted = nibabel.load(f"{folder}.nii").get_fdata()
    assert report("dcm2niix", np.moveaxis(converted, -1, 0)) == right
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(files)
    image = reader.Execute()
    print(f"  SimpleITK's series: {image.GetPixelIDTypeAsString()}")
    assert report("SimpleITK, the series", SimpleITK.GetArrayFromImage(image)) == wrong
PYTHON
