#!/usr/bin/env bash
# Two readers apply a DICOM window wrongly if the Rescale Slope is not 1, each in another way, and neither says a word:
# - pydicom's apply_voi_lut (apply_windowing) returns the negative of an image whose slope is below 0: the darkest value
#   becomes the largest. Two files of the same values, one of them as 4095 minus the values with slope -1 and intercept
#   4095, are equal after apply_modality_lut and each other's negative after it, with all three window functions. It
#   takes the range of its result from the smallest and the largest stored value times the slope, which swaps the two.
# - highdicom's get_frame(apply_voi_transform=True) is right there within 0.3 %, and wrong for slopes far from 1 with
#   the usual function LINEAR: it subtracts the 1 of "width - 1" and the 0.5 of "center - 0.5" in stored units, not in
#   those of the image. A map of diffusion in 0.001 mm^2/s with slope 0.001, center 1 and width 2 gets 0.45 of the range
#   at 0.9, where the standard (and pydicom) has 0.9: other pixels, and half of the contrast.
#
# A user expects: a window is applied to the rescaled values by the standard's formula, however they are stored.
# What helps: the formula with a range of one's own; in new files LINEAR_EXACT, of which highdicom is right.
# Versions: pydicom 3.0.2, highdicom 0.28.2, numpy 2.4.6. Source: the run below; DICOM PS3.3 C.11.2.1.2 and
# C.11.2.1.3. No public issue found.
#   LINEAR, plain slope, 0 to 4095: pydicom 0 to 4095, highdicom 0 to 4095, formula 0 to 4095
#   LINEAR, negative slope, 0 to 4095: pydicom 4095 to 0, highdicom 0 to 4095, formula 0 to 4095
#   LINEAR, slope 0.001, share of the range at 0.9: pydicom 0.90, highdicom 0.45, formula 0.90
#   LINEAR_EXACT, slope 0.001, share of the range at 0.9: pydicom 0.45, highdicom 0.45, formula 0.45
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pydicom==3.0.2 highdicom==0.28.2 numpy==2.4.6
cd "$work"
venv/bin/python - <<'PYTHON'
import highdicom
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

VALUES = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def write(path, stored, slope, intercept, function, window=(1000, 800)):
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID, made.StudyInstanceUID = MRImageStorage, generate_uid(), generate_uid()
    made.SeriesInstanceUID, made.FrameOfReferenceUID, made.Modality = generate_uid(), generate_uid(), "MR"
    made.PatientID, made.PatientName, made.PatientBirthDate, made.PatientSex = "1", "", "", ""
    made.StudyID, made.StudyDate, made.StudyTime, made.AccessionNumber = "1", "20200101", "101010", ""
    made.ReferringPhysicianName, made.Manufacturer, made.SeriesNumber, made.InstanceNumber = "", "x", 1, 1
    made.ImageType, made.ImagePositionPatient = ["ORIGINAL", "PRIMARY"], [0, 0, 0]
    made.ImageOrientationPatient, made.PixelSpacing, made.SliceThickness = [1, 0, 0, 0, 1, 0], [1, 1], 5
    made.Rows, made.Columns, made.SamplesPerPixel, made.PhotometricInterpretation = 64, 64, 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    made.RescaleSlope, made.RescaleIntercept, made.RescaleType = str(slope), str(intercept), "US"
    (made.WindowCenter, made.WindowWidth), made.VOILUTFunction = map(str, window), function
    made.PixelData = stored.tobytes()
    made.save_as(path, enforce_file_format=True)


def formula(x, function, center=1000, width=800):
    """PS3.3 C.11.2.1.2.1 and C.11.2.1.3, with a result from 0 to 4095."""
    if function == "SIGMOID":
        return 4095 / (1 + np.exp(-4 * (x - center) / width))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    return np.clip((x - center) / width + 0.5, 0, 1) * 4095


for function in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
    write("plain.dcm", VALUES, 1, 0, function)
    write("negative.dcm", 4095 - VALUES, -1, 4095, function)
    expected = formula(VALUES.astype(float), function)
    for path in ("plain.dcm", "negative.dcm"):
        dataset = dcmread(path)
        rescaled = apply_modality_lut(dataset.pixel_array, dataset)
        np.testing.assert_array_equal(rescaled, VALUES)
        shown = apply_voi_lut(rescaled, dataset)
        frame = highdicom.imread(path).get_frame(1, apply_voi_transform=True, voi_output_range=(0, 4095))
        ends = [f"{image[0, 0]:.0f} to {image[-1, -1]:.0f}" for image in (shown, frame, expected)]
        print(f"{function}, {path[:-4]} slope, 0 to 4095: pydicom {ends[0]}, highdicom {ends[1]}, formula {ends[2]}")
        np.testing.assert_allclose(frame, expected, atol=12)
        np.testing.assert_allclose(shown, 4095 - expected if path == "negative.dcm" else expected, atol=0.01)
for function in ("LINEAR", "LINEAR_EXACT"):
    write("map.dcm", VALUES, 0.001, 0, function, (1, 2))
    dataset = dcmread("map.dcm")
    shown = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset) / 4.095
    frame = highdicom.imread("map.dcm").get_frame(1, apply_voi_transform=True, voi_output_range=(0, 1))
    expected = formula(VALUES * 0.001, function, 1, 2) / 4095
    at = [f"{image.ravel()[900]:.2f}" for image in (shown, frame, expected)]
    print(f"{function}, slope 0.001, share of the range at 0.9: pydicom {at[0]}, highdicom {at[1]}, formula {at[2]}")
    np.testing.assert_allclose(shown, expected, atol=1e-6)
    np.testing.assert_allclose(frame.ravel()[900], 0.45, atol=0.001)
PYTHON
