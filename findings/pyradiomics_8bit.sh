#!/usr/bin/env bash
# With NumPy 2, pyradiomics puts all grey levels of an 8-bit image into one or two bins, if the region has values above
# 205 and below 50 or so (the default bin width is 25): the entropy of a lesion of 10 to 255 is 0.02, not 2.61, and 77
# of its 107 features (histogram and texture) are wrong. It adds two bin widths to the largest value to get the end of
# the last bin, and in uint8 255 + 50 is 49. The same values in int16 are right, and so is uint8 with NumPy 1.26, which
# took a wider integer. One grey level decides: up to 205 all is right, with 206 the extraction fails ("Calculation of
# GLCM Failed"), with 230 it is wrong. If the region's darkest value is above the wrapped end, a second overflow makes
# it right again. All that is said is NumPy's RuntimeWarning of an overflow, once in a process.
#
# A user expects: the type in which the same values are stored does not matter.
# What helps: sitk.Cast(image, sitk.sitkFloat32) before execute, or binCount instead of binWidth.
# Versions: pyradiomics 3.0.1 (which an unpinned pip install gave), numpy 2.4.6 and 1.26.4, SimpleITK 2.5.7.
# Source: the run below; getBinEdges in radiomics/imageoperations.py. No public issue found.
#   numpy 2.4.6, 10 to 205: entropy by hand 2.29, uint8 2.29, int16 2.29; 0 of 107 differ
#   numpy 2.4.6, 10 to 206: uint8 Calculation of GLCM Failed.
#   numpy 2.4.6, 10 to 230: entropy by hand 2.45, uint8 -0.00, int16 2.45; 77 of 107 differ
#   numpy 2.4.6, 10 to 255: entropy by hand 2.61, uint8 0.02, int16 2.61; 77 of 107 differ
#   numpy 2.4.6, 60 to 255: entropy by hand 2.29, uint8 2.29, int16 2.29; 0 of 107 differ
#   numpy 1.26.4, each of the five: 0 of 107 differ
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for numpy in 2.4.6 1.26.4; do
  python3 -m venv "$work/$numpy"
  "$work/$numpy/bin/pip" install --quiet numpy==$numpy SimpleITK==2.5.7 PyWavelets==1.8.0 setuptools==75.8.0 \
    wheel==0.45.1
  "$work/$numpy/bin/pip" install --quiet --no-build-isolation pyradiomics==3.0.1
done
cd "$work"
cat >run.py <<'PYTHON'
import warnings

import numpy as np
import SimpleITK as sitk
from radiomics import featureextractor, setVerbosity

setVerbosity(60)
z, y, x = np.mgrid[:12, :40, :40]
distance = np.sqrt((3 * (z - 6)) ** 2 + (y - 20) ** 2 + (x - 20) ** 2)
mask = (distance < 14).astype(np.uint8)
noise = np.random.default_rng(0).normal(0, 0.1, mask.shape)


def lesion(low, high):
    """A dark centre and a bright rim, from `low` to `high`."""
    values = distance / 14 + noise
    inside = values[mask > 0]
    scaled = (values - inside.min()) / np.ptp(inside) * (high - low) + low
    return np.clip(np.round(scaled), 0, 255)


def features(image, kind):
    extractor = featureextractor.RadiomicsFeatureExtractor()
    try:
        found = extractor.execute(sitk.GetImageFromArray(image.astype(kind)), sitk.GetImageFromArray(mask))
    except IndexError as error:
        return str(error)
    return {name[9:]: float(value) for name, value in found.items() if name.startswith("original_")}


def entropy(image):
    shares = np.unique(np.floor(image[mask > 0] / 25), return_counts=True)[1] / mask.sum()
    return float(-(shares * np.log2(shares)).sum())


two = np.__version__.startswith("2")
for low, high in ((10, 205), (10, 206), (10, 230), (10, 255), (60, 255)):
    image = lesion(low, high)
    assert (image[mask > 0].min(), image[mask > 0].max()) == (low, high)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bits8 = features(image, np.uint8)
    bits16 = features(image, np.int16)
    np.testing.assert_allclose(bits16["firstorder_Entropy"], entropy(image))
    head = f"numpy {np.__version__}, {low} to {high}"
    if isinstance(bits8, str):
        print(f"{head}: uint8 {bits8}")
        assert two and high == 206
        continue
    wrong = [name for name in bits16 if not np.isclose(bits8[name], bits16[name], rtol=1e-3, atol=1e-9)]
    rows = [f"{kind} {row['firstorder_Entropy']:.2f}" for kind, row in (("uint8", bits8), ("int16", bits16))]
    print(f"{head}: entropy by hand {entropy(image):.2f}, {', '.join(rows)}; {len(wrong)} of {len(bits8)} differ")
    assert len(wrong) == (77 if two and high > 206 and low < 50 else 0), wrong
PYTHON
2.4.6/bin/python run.py
1.26.4/bin/python run.py
