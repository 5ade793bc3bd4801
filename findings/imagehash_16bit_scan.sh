#!/usr/bin/env bash
# ImageHash tells 16-bit slices (PNG or TIFF of MR intensities) by their outline at most: it converts an image to mode
# "L" first, and for 16 bits Pillow then cuts every value above 255 to 255 instead of scaling. Of scans whose tissue is
# brighter than that, what is hashed is white. Six different slices are 15 to 32 bits of 64 apart by average_hash in 8
# bits, and at most 8 apart in 16 bits, within the thresholds that are usual for near-duplicates.
#
# A reader expects: a perceptual hash is of what one sees, so that a slice has about the same hash in 8 and in 16 bits.
# Remedy: scale to 8 bits before hashing.
# Versions: ImageHash 4.3.2, Pillow 13.0.0, numpy 2.4.6. Source: the run below.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet ImageHash==4.3.2 pillow==13.0.0 numpy==2.4.6
cd "$work"
venv/bin/python - <<'PYTHON'
import imagehash
import numpy as np
from PIL import Image

rows, columns = np.mgrid[:256, :256]


def scan(seed):
    """Eight blobs, 0 to 1."""
    rng, image = np.random.default_rng(seed), np.zeros((256, 256))
    for _ in range(8):
        column, row, width = rng.uniform((40, 40, 10), (216, 216, 60))
        image += np.exp(-((columns - column) ** 2 + (rows - row) ** 2) / (2 * width**2))
    return image / image.max()


def hashes(dtype, most):
    found = []
    for seed in range(6):
        Image.fromarray((scan(seed) * most).astype(dtype)).save("slice.png")
        with Image.open("slice.png") as image:
            found.append(imagehash.average_hash(image))
    return found


def apart(found):
    return [int(one - other) for i, one in enumerate(found) for other in found[:i]]


narrow, wide = hashes(np.uint8, 255), hashes(np.uint16, 40_000)
between = [int(one - other) for one, other in zip(narrow, wide)]
print("8 bits, different slices:", sorted(apart(narrow)))
print("16 bits, different slices:", sorted(apart(wide)))
print("the same slices in 8 and 16 bits:", between)
assert min(apart(narrow)) >= 12 and max(apart(wide)) <= 10
assert min(between) > max(apart(wide))
PYTHON
