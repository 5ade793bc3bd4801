#!/usr/bin/env bash
# Of medicai's transforms of volumes, only Spacing and Orientation keep `meta["affine"]` and the voxels together. Flip,
# Rotate90, Resize, SpatialCrop and CropForeground change the voxels and leave the affine as it was, without a word: what
# lay at one place of the patient now seems to lie at another, and an Orientation or Spacing behind them works from a wrong
# matrix. A Flip before Orientation("RAS") gives a volume that calls itself RAS with left and right exchanged.
#
# A user expects: the affine says where the voxels are after each transform, as it does after the two that need it.
# Versions: medicai 0.0.4, TensorFlow 2.21.0, Keras 3.15.1.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet medicai==0.0.4 tensorflow==2.21.0 keras==3.15.1
cd "$work"
TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python - 2>errors.txt <<'PYTHON' || { cat errors.txt >&2; exit 1; }
import numpy as np
import tensorflow as tf
from medicai import transforms

# Voxels (depth, height, width) of 3 x 0.8 x 0.8 mm; width runs to the patient's right.
AFFINE = np.array([[0, 0, 0.8, -20], [0, 0.8, 0, -30], [3, 0, 0, -15], [0, 0, 0, 1]], "float32")
grid = np.indices((16, 48, 48))
# A lesion within a head of little brightness.
lesion = np.exp(-sum((axis - centre) ** 2 for axis, centre in zip(grid, (7, 20, 28))) / 12.5)
volume = np.where(lesion > 0.05, lesion, 0)[..., None].astype("float32")


def place(voxels, affine):
    """Centre of mass, millimetres: right, anterior, superior."""
    values = np.asarray(voxels, "float64")[..., 0]
    centre = [(axis * values).sum() / values.sum() for axis in np.indices(values.shape)]
    return (np.asarray(affine) @ [*centre, 1])[:3]


def moved(*steps):
    """How far the lesion's place moves, millimetres."""
    bundle = transforms.TensorBundle({"image": tf.constant(volume)}, {"affine": tf.constant(AFFINE)})
    for step in steps:
        bundle = step(bundle)
    return np.linalg.norm(place(bundle.data["image"], bundle.meta["affine"]) - place(volume, AFFINE))


one = {"keys": ["image"]}
found = {
    "Orientation": moved(transforms.Orientation(axcodes="LPS", **one)),
    "Spacing": moved(transforms.Spacing(pixdim=(1.0, 1.0, 1.0), **one)),
    "Flip of the width": moved(transforms.Flip(spatial_axis=[2], **one)),
    "Flip, then Orientation": moved(transforms.Flip(spatial_axis=[2], **one), transforms.Orientation(axcodes="RAS", **one)),
    "Rotate90": moved(transforms.Rotate90(k=1, spatial_axis=(1, 2), **one)),
    "Resize": moved(transforms.Resize(interpolation="trilinear", target_shape=(16, 24, 24), **one)),
    "SpatialCrop": moved(transforms.SpatialCrop(crop_size=(12, 24, 24), crop_start=(2, 8, 16), **one)),
    "CropForeground": moved(transforms.CropForeground(source_key="image", **one)),
}
for name, distance in found.items():
    print(f"{name}: the lesion seems to move {distance:.1f} mm")
for name, distance in found.items():
    assert (distance < 0.5) == (name in ("Orientation", "Spacing")), name
PYTHON
