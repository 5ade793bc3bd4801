#!/usr/bin/env bash
# ANTsPy computes nonsense from images of whole numbers, without a word. An array of uint16, or of any signed whole
# numbers, becomes an image of "unsigned int" in from_numpy, and many functions take its bits for those of float32:
# - threshold_image finds no voxel, label_clusters no cluster, morphology("dilate") returns the mask as it was;
# - iMath(..., "Normalize") and denoise_image return 0 in each voxel;
# - iMath(..., "GetLargestComponent") returns 1,065,353,216 in each voxel, the bits of 1.0; "TruncateIntensity" returns
#   4,290,772,992, the bits of NaN.
# Besides, from_numpy makes negative values positive: -1 in int16 becomes 4,294,967,295. smooth_image, get_mask, n4 and
# histogram_equalize_image convert by themselves, and are right. An image that was read from a file (image_read) is
# float32 whatever the file has, so that the same scan is right from its file and wrong from its array.
#
# A user expects: a function gives the same for a mask or a scan in uint16 and in float32, or refuses the type.
# What helps: array.astype("float32") before from_numpy, image.clone("float") after.
# Versions: antspyx 0.6.3, nibabel 5.4.2. Source: the run below. https://github.com/ANTsX/ANTsPy/pull/665 brought the
# cast to unsigned; https://github.com/ANTsX/ANTsPy/pull/839 clones to float in mask_image alone.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet antspyx==0.6.3 nibabel==5.4.2
cd "$work"
venv/bin/python -W error::UserWarning - 2>errors.txt <<'PYTHON' || { cat errors.txt >&2; exit 1; }
import ants
import nibabel
import numpy as np

# A head of 1000 and 600 in noise, and a mask of its core and of the corners.
axes = np.mgrid[-1:1:24j, -1:1:26j, -1:1:28j]
radius = np.sqrt((axes**2).sum(axis=0))
noise = np.random.default_rng(0).integers(0, 30, radius.shape)
scan = np.where(radius < 0.5, 1000, np.where(radius < 0.8, 600, 0)) + noise
mask = (radius < 0.4) | (radius > 1.6)
core = radius < 0.4


def bits(value):
    return int(np.float32(value).view(np.uint32))


functions = {
    "threshold_image": (scan, lambda image: ants.threshold_image(image, 500, 2000)),
    "label_clusters": (mask, lambda image: ants.label_clusters(image)),
    "morphology, dilate": (mask, lambda image: ants.morphology(image, "dilate", 1)),
    "iMath, Normalize": (scan, lambda image: ants.iMath(image, "Normalize")),
    "denoise_image": (scan, lambda image: ants.denoise_image(image)),
    "iMath, GetLargestComponent": (mask, lambda image: ants.iMath(image, "GetLargestComponent")),
    "iMath, TruncateIntensity": (scan, lambda image: ants.iMath(image, "TruncateIntensity", 0.01, 0.99)),
    "smooth_image": (scan, lambda image: ants.smooth_image(image, 1)),
    "get_mask": (scan, lambda image: ants.get_mask(image)),
}
found = {}
for name, (array, function) in functions.items():
    results = [function(ants.from_numpy(array.astype(kind))).numpy() for kind in ("float32", "uint16", "int64")]
    np.testing.assert_array_equal(results[1], results[2])
    found[name] = results[:2]
    means = [float(result.astype(np.float64).mean()) for result in results]
    print("{}: mean {:.4g} of float32, {:.4g} of uint16".format(name, *means))

# float32 is right.
exact = {name: result for name, (result, _) in found.items()}
np.testing.assert_array_equal(exact["threshold_image"], (scan >= 500) & (scan <= 2000))
assert exact["label_clusters"].max() >= 1
assert exact["morphology, dilate"].sum() > mask.sum() and (exact["morphology, dilate"][mask] == 1).all()
np.testing.assert_allclose(exact["iMath, Normalize"], (scan - scan.min()) / np.ptp(scan), atol=1e-5)
np.testing.assert_array_equal(exact["iMath, GetLargestComponent"], core)
assert np.abs(exact["denoise_image"] - scan).mean() < 30
assert scan.min() <= exact["iMath, TruncateIntensity"].min() and exact["iMath, TruncateIntensity"].max() <= scan.max()

# uint16 is right in two, and in the others it is not.
wrong = {name: result for name, (_, result) in found.items()}
for name in ("smooth_image", "get_mask"):
    np.testing.assert_array_equal(wrong[name], exact[name])
for name in ("threshold_image", "label_clusters", "iMath, Normalize", "denoise_image"):
    assert not wrong[name].any(), name
np.testing.assert_array_equal(wrong["morphology, dilate"], mask)
assert (wrong["iMath, GetLargestComponent"] == bits(1)).all()
assert (wrong["iMath, TruncateIntensity"] == bits(-np.nan)).all()

# The same scan from a file is float32, and is right.
nibabel.save(nibabel.Nifti1Image(scan.astype(np.uint16), np.eye(4)), "scan.nii.gz")
read = ants.image_read("scan.nii.gz")
print(f"threshold_image of the file: mean {ants.threshold_image(read, 500, 2000).mean():.4g} ({read.pixeltype})")
np.testing.assert_array_equal(ants.threshold_image(read, 500, 2000).numpy(), exact["threshold_image"])

signed = ants.from_numpy((scan - 100).astype(np.int16))
print(f"from_numpy of int16 from {scan.min() - 100} to {scan.max() - 100}: {signed.min():.0f} to {signed.max():.0f}")
np.testing.assert_array_equal(signed.numpy(), (scan - 100) % 2**32)
PYTHON
