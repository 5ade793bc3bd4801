#!/usr/bin/env bash
# One 12-bit MR slice, stored as 16-bit PNG, has three brightnesses in Keras: image_dataset_from_directory gives 16 nearly
# black levels (0 to 15), load_img in its default color mode gives everything above 255 as white, and in grayscale the
# values themselves. A network trained through the one and used through another sees different images; nothing warns.
#
# A reader expects: one file has one brightness, whichever of the library's loaders reads it.
# Versions: keras 3.15.1, tensorflow 2.21.0, pillow 12.1.0. Source: the loaders' code (tf.io.decode_image keeps the high
# byte, Pillow's convert clips); https://github.com/keras-team/keras/issues/13023 has the clipped half.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet keras==3.15.1 tensorflow==2.21.0 pillow==12.1.0
cd "$work"
mkdir -p slices/glioma
CUDA_VISIBLE_DEVICES= TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python - 2>stderr.txt <<'PYTHON' || { cat stderr.txt; exit 1; }
import keras
import numpy as np
from PIL import Image

values = np.linspace(0, 4095, 64 * 64).round().astype(np.uint16).reshape(64, 64)
Image.fromarray(values).save("slices/glioma/slice.png")


def report(name, pixels):
    kept = len(np.unique(pixels))
    print(f"{name}: {pixels.min():g} to {pixels.max():g}, {kept} levels, {(pixels == pixels.max()).mean():.0%} brightest")
    return float(pixels.max()), kept


def directory(mode):
    batches = keras.utils.image_dataset_from_directory(
        "slices", labels=None, color_mode=mode, image_size=(64, 64), verbose=False
    )
    return next(iter(batches)).numpy()


def single(mode):
    return keras.utils.img_to_array(keras.utils.load_img("slices/glioma/slice.png", color_mode=mode))


assert report("the file", values) == (4095, 4096)
assert report("image_dataset_from_directory, grayscale", directory("grayscale")) == (15, 16)
assert report("image_dataset_from_directory, rgb", directory("rgb")) == (15, 16)
assert report("load_img, rgb (the default)", single("rgb")) == (255, 256)
assert report("load_img, grayscale", single("grayscale")) == (4095, 4096)
PYTHON
