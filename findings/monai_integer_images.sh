#!/usr/bin/env bash
# Images of whole numbers (uint8, int16) come out of four of MONAI's transforms as something else than in float32,
# without a word, though none of them speaks of types. Each casts what lies between 0 and 1 to the image's type first:
# - RandHistogramShift returns the image as it was: its control points become 0 and 1, which is the identity. (In int32,
#   which holds no infinity, it gives a mean of -164 million.)
# - RandSmoothFieldAdjustIntensity with its default gamma gives a black image: the field of 0.1 to 1 becomes 0. Its
#   documentation calls the default sensible "in that values will not be zeroed out".
# - SobelGradients gives 0 everywhere.
# - RandAdjustContrast and AdjustContrast with invert_image=True negate uint8, where -1 is 255: the result is negative.
# Noise, smoothing, scaling and normalisation turn whole numbers into float32 themselves, and are right.
#
# A user expects: an image has the same augmentation in uint8 and in float32, up to rounding, as for the others.
# What helps: EnsureTyped(dtype=torch.float32) first; LoadImage does it, arrays in memory do not pass it.
# Versions: monai 1.6.1, torch 2.13.0, numpy 2.4.6. Source: the run below; convert_to_dst_type in
# monai/transforms/intensity/array.py and smooth_field/array.py. No public issue found. Mean absolute differences from
# the result in float32, grey levels of 255:
#   RandHistogramShift: uint8 18.9, int16 18.9
#   RandSmoothFieldAdjustIntensity: uint8 26.1, int16 26.1
#   SobelGradients: uint8 4.9, int16 4.9
#   AdjustContrast, inverted: uint8 224.0, int16 0.0
#   GaussianSmooth: uint8 0.0, int16 0.0
#   ScaleIntensity: uint8 0.0, int16 0.0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet monai==1.6.1 torch==2.13.0 numpy==2.4.6
cd "$work"
venv/bin/python -W error::UserWarning - 2>errors.txt <<'PYTHON' || { cat errors.txt >&2; exit 1; }
import numpy as np
import torch
from monai.transforms import (
    AdjustContrast,
    GaussianSmooth,
    RandHistogramShift,
    RandSmoothFieldAdjustIntensity,
    ScaleIntensity,
    SobelGradients,
)

rows, columns = np.mgrid[:64, :64]
noise = np.random.default_rng(0).normal(0, 10, (64, 64))
image = (60 + 80 * np.sin(rows / 9) * np.cos(columns / 7) + noise).clip(0, 255).round()[None]
transforms = {
    "RandHistogramShift": lambda: RandHistogramShift(prob=1).set_random_state(1),
    "RandSmoothFieldAdjustIntensity": lambda: RandSmoothFieldAdjustIntensity(
        spatial_size=(64, 64), rand_size=(4, 4), prob=1
    ).set_random_state(1),
    "SobelGradients": SobelGradients,
    "AdjustContrast, inverted": lambda: AdjustContrast(gamma=2, invert_image=True),
    "GaussianSmooth": lambda: GaussianSmooth(sigma=2),
    "ScaleIntensity": ScaleIntensity,
}
found, results = {}, {}
for name, make in transforms.items():
    results[name] = {
        kind: np.asarray(make()(torch.tensor(image.astype(kind)))).astype(np.float64)
        for kind in ("float32", "uint8", "int16")
    }
    exact = results[name]["float32"]
    found[name] = [float(np.abs(results[name][kind] - exact).mean()) for kind in ("uint8", "int16")]
    print("{}: uint8 {:.1f}, int16 {:.1f}".format(name, *found[name]))

# float32 does what the names and formulas say.
smallest, largest = image.min(), image.max()
inverted = -((((largest - image) / (largest - smallest)) ** 2) * (largest - smallest) - largest)
np.testing.assert_allclose(results["AdjustContrast, inverted"]["float32"], inverted, atol=0.01)
assert np.abs(results["RandHistogramShift"]["float32"] - image).mean() > 10
assert results["RandSmoothFieldAdjustIntensity"]["float32"][image > 0].min() > 0
for kind in ("uint8", "int16"):
    np.testing.assert_array_equal(results["RandHistogramShift"][kind], image)
    assert not results["RandSmoothFieldAdjustIntensity"][kind].any()
    assert not results["SobelGradients"][kind].any()
assert results["AdjustContrast, inverted"]["uint8"].max() <= 0 and image.min() == 0
np.testing.assert_allclose([found["GaussianSmooth"], found["ScaleIntensity"]], 0, atol=0.01)
np.testing.assert_allclose(found["AdjustContrast, inverted"][1], 0, atol=0.01)
PYTHON
