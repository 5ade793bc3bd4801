#!/usr/bin/env bash
# Of a NIfTI file's two affines nibabel takes the sform, whatever its code. SimpleITK takes it only where its code is 1
# (the scanner's coordinates) or the qform has code 0; beside a qform, an sform of code 2 (aligned), 3 (Talairach) or 4
# (MNI) counts for nothing. Registration writes just that: the scanner's qform, and an sform to a template. Where they
# turn the axes differently, both libraries read one file with left and right exchanged, without a word. A mask made with
# one of them, and a scan read with the other, then lie mirrored. An exception: a mirrored sform whose origin is the
# qform's counts as equal to it, and is taken.
#
# A reader expects: both prefer the sform where it has a code (the guess before the run), as nibabel documents.
# Versions: nibabel 5.4.2, SimpleITK 2.5.7, numpy 2.4.6. Source: the run below. Where the first plane of voxels lies:
#   sform 1, qform 1: nibabel right, SimpleITK right
#   sform 2, qform 1: nibabel right, SimpleITK left
#   sform 3, qform 1: nibabel right, SimpleITK left
#   sform 4, qform 1: nibabel right, SimpleITK left
#   sform 4, qform 0: nibabel right, SimpleITK right
#   sform 4, qform 1, one origin: nibabel right, SimpleITK right
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet nibabel==5.4.2 SimpleITK==2.5.7 numpy==2.4.6
cd "$work"
venv/bin/python - <<'PYTHON'
import nibabel as nib
import numpy as np
import SimpleITK as sitk

voxels = np.zeros((6, 5, 4), np.int16)
to_right, to_left = np.diag([1.0, 1, 1, 1]), np.diag([-1.0, 1, 1, 1])
# The other way round, in the same place.
same_place = to_left.copy()
same_place[0, 3] = 5


def side(first, last):
    """Where the first plane lies, by the places of the first and the last one in mm, to the right in nibabel's axes."""
    return "right" if first > last else "left"


def by_nibabel():
    affine = nib.load("scan.nii").affine
    return side(*((affine @ [x, 0, 0, 1])[0] for x in (0, 5)))


def by_itk():
    image = sitk.ReadImage("scan.nii")
    # ITK's first axis runs to the left.
    return side(*(-image.TransformIndexToPhysicalPoint((x, 0, 0))[0] for x in (0, 5)))


found = []
for sform, qform, affine, note in (
    (1, 1, same_place, ""),
    (2, 1, same_place, ""),
    (3, 1, same_place, ""),
    (4, 1, same_place, ""),
    (4, 0, same_place, ""),
    (4, 1, to_left, ", one origin"),
):
    image = nib.Nifti1Image(voxels, None)
    image.set_qform(to_right, qform)
    image.set_sform(affine, sform)
    nib.save(image, "scan.nii")
    one, other = by_nibabel(), by_itk()
    found.append(one == other)
    print(f"sform {sform}, qform {qform}{note}: nibabel {one}, SimpleITK {other}")
assert found == [True, False, False, False, True, True], found
PYTHON
