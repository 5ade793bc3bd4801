#!/usr/bin/env bash
# A mask of 0 and 1 in floats, saved by nibabel with its scan's int16 header, prints as 0 and 1 when read back, and
# .astype(int) makes all of it 0. Labels 1, 2, 4 come back as 1.0000153, 2.0000305, 4: mask == 1 finds no voxel.
#
# A reader expects: small whole numbers, which int16 holds exactly, come back as they were saved.
# Versions: nibabel 5.4.2, numpy 2.4.6, SimpleITK 2.5.7 (its float32 hides the first case, not the last).
# Source: nibabel scales floats to the whole range of the header's type, https://github.com/nipy/nibabel/issues/1001
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet nibabel==5.4.2 numpy==2.4.6 SimpleITK==2.5.7
cd "$work"
venv/bin/python - <<'PYTHON'
import nibabel
import numpy as np
import SimpleITK

scan = nibabel.Nifti1Image(np.zeros((16, 16, 16), np.int16), np.eye(4))


def saved(labels):
    """A cube of each label, as a network's or a scipy filter's float output, with the scan's affine and header."""
    mask = np.zeros(scan.shape)
    for place, label in enumerate(labels):
        mask[place] = label
    nibabel.save(nibabel.Nifti1Image(mask, scan.affine, scan.header), "mask.nii.gz")
    return nibabel.load("mask.nii.gz").get_fdata()


for labels, cast, equal in (((1,), {0}, {1: 0}), ((1, 2, 3), {0, 1, 2}, {3: 0}), ((1, 2, 4), {0, 1, 2, 3}, {1: 0, 4: 0})):
    read = saved(labels)
    counts = {label: int((read == label).sum()) for label in labels}
    print(f"saved {labels}, read {np.unique(read)[1:].tolist()} (printed: {np.unique(read)[1:]})")
    print(f"  voxels equal to each label, of 256: {counts}; after astype(int): {np.unique(read.astype(int)).tolist()}")
    print(f"  SimpleITK: {np.unique(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage('mask.nii.gz'))).tolist()}")
    assert set(np.unique(read.astype(int)).tolist()) == cast
    assert equal.items() <= counts.items(), counts
    # What keeps them: the type of the array in the header, or whole numbers in the array.
    nibabel.save(nibabel.Nifti1Image(np.rint(read).astype(np.uint8), scan.affine, scan.header), "right.nii.gz")
    assert set(np.unique(nibabel.load("right.nii.gz").get_fdata())) == {0, *labels}
PYTHON
