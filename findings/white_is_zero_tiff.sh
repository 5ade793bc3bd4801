#!/usr/bin/env bash
# Pillow and OpenCV turn a TIFF with PhotometricInterpretation 0 (white is zero) the right way round if it has 8 bits, and
# return the negative if it has 16. tifffile, scikit-image and imageio return the stored values of both.
#
# A reader expects: the bit depth does not decide whether bone is black; Image.open gives 0 for black.
# Versions: pillow 12.1.0, opencv-python-headless 5.0.0.93, tifffile 2026.3.3, scikit-image 0.26.0, imageio 2.38.1.
# Source: TIFF 6.0, tag 262; Pillow's table of modes, which inverts only "L;I"
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pillow==12.1.0 opencv-python-headless==5.0.0.93 tifffile==2026.3.3 \
  scikit-image==0.26.0 imageio==2.38.1
cd "$work"
venv/bin/python - <<'PYTHON'
import cv2
import imageio.v3
import numpy as np
import skimage.io
import tifffile
from PIL import Image

READERS = {
    "Pillow": lambda file: np.asarray(Image.open(file)),
    "OpenCV": lambda file: cv2.imread(file, cv2.IMREAD_UNCHANGED),
    "tifffile": tifffile.imread,
    "scikit-image": skimage.io.imread,
    "imageio": imageio.v3.imread,
}
INVERTS_EIGHT_BITS = ("Pillow", "OpenCV")

for kind in (np.uint8, np.uint16):
    white = np.iinfo(kind).max
    shown = np.zeros((64, 64), kind)
    shown[16:48, 16:48] = white
    # Black around a white square, as this interpretation stores it.
    tifffile.imwrite("slice.tif", white - shown, photometric="miniswhite")
    for name, read in READERS.items():
        found = read("slice.tif")
        right = np.array_equal(found, shown)
        print(f"{np.dtype(kind).name}, {name}: corner {found[0, 0]}, center {found[32, 32]}: {'right' if right else 'negative'}")
        assert found.dtype == kind and (right or np.array_equal(found, white - shown))
        assert right == (kind == np.uint8 and name in INVERTS_EIGHT_BITS)
PYTHON
