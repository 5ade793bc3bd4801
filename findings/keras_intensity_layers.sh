#!/usr/bin/env bash
# Three of Keras' layers for brightness and contrast give wrong pixels without a word:
#   RandomBrightness in a network whose input is uint8 counts modulo 256: 220 made brighter by 20 % of 255 becomes 15,
#     nearly black, where tf.data and float images give 255. The network's own specification says that it gives float32;
#   AutoContrast(data_format="channels_first") stretches each column of an image by itself, all channels together,
#     instead of each channel: stripes;
#   RandomSharpness pads with black for its blur and so draws a frame of one pixel around each image: a plain image of
#     100 gets a border of 62 to 77 when it is blurred, and of 123 to 138 when sharpened. Pillow leaves it alone.
#
# A user expects: the documented "float or int dtype" with clipping, one result in both formats, and plain stays plain.
# Versions: keras 3.15.1, tensorflow-cpu 2.21.0, pillow 13.0.0, numpy 2.4.6. Source: the run below.
#   RandomBrightness, 220 + 51: network of uint8 15, layer, uint8 15, layer, float32 255, tf.data, uint8 255
#   AutoContrast from the reference: channels_last 0.00 levels, channels_first 61, from each column's own 0.00
#   RandomSharpness 0.0: corner 62, side 77, middle 100; Pillow 100
#   RandomSharpness 1.0: corner 138, side 123, middle 100; Pillow 100
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet keras==3.15.1 tensorflow-cpu==2.21.0 pillow==13.0.0 numpy==2.4.6
cd "$work"
TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python - 2>errors.txt <<'PYTHON' || { cat errors.txt >&2; exit 1; }
import keras
import numpy as np
import tensorflow as tf
from PIL import Image, ImageEnhance


def value(result):
    return float(np.asarray(result).flat[0])


# Brightness: 220 and 20 % of 255 more, which is 271 and cut to 255.
bright = np.full((1, 8, 8, 1), 220, "uint8")
layer = keras.layers.RandomBrightness((0.2, 0.2))
inputs = keras.Input((8, 8, 1), dtype="uint8")
network = keras.Model(inputs, layer(inputs))
pipeline = tf.data.Dataset.from_tensors(bright).map(lambda images: layer(images, training=True))
brightness = {
    "network of uint8": value(network(bright, training=True)),
    "layer, uint8": value(layer(bright, training=True)),
    "layer, float32": value(layer(bright.astype("float32"), training=True)),
    "tf.data, uint8": value(next(iter(pipeline))),
}
print("RandomBrightness, 220 + 51:", ", ".join(f"{name} {found:.0f}" for name, found in brightness.items()))
print("the network says that it returns", network.output.dtype)
assert list(brightness.values()) == [15, 15, 255, 255] and network.output.dtype == "float32"

# Contrast: the reference stretches each channel to 0..255.
rng = np.random.default_rng(0)
images = (rng.random((2, 32, 48, 3)) * [60, 90, 120] + [20, 60, 100]).astype("float32")
low, high = images.min(axis=(1, 2), keepdims=True), images.max(axis=(1, 2), keepdims=True)
reference = (images - low) / (high - low) * 255
last = np.asarray(keras.layers.AutoContrast()(images))
first = keras.layers.AutoContrast(data_format="channels_first")(np.moveaxis(images, -1, 1))
first = np.moveaxis(np.asarray(first), 1, -1)
columns = images.min(axis=(1, 3), keepdims=True), images.max(axis=(1, 3), keepdims=True)
stripes = (images - columns[0]) / (columns[1] - columns[0]) * 255
wrong = np.abs(first - reference).mean()
print(f"AutoContrast from the reference: channels_last {np.abs(last - reference).mean():.2f} levels,", end=" ")
print(f"channels_first {wrong:.0f}, from each column's own {np.abs(first - stripes).mean():.2f}")
np.testing.assert_allclose(last, reference, atol=0.01)
np.testing.assert_allclose(first, stripes, atol=0.01)
assert wrong > 20

# Sharpness: a plain image has nothing to blur or to sharpen.
plain = np.full((16, 16, 3), 100, "float32")
for factor, pillow_factor in (0.0, 0.0), (1.0, 2.0):
    found = np.asarray(keras.layers.RandomSharpness((factor, factor))(plain, training=True))
    pillow = np.asarray(ImageEnhance.Sharpness(Image.fromarray(plain.astype("uint8"))).enhance(pillow_factor))
    corner, side, middle = found[0, 0, 0], found[0, 8, 0], found[8, 8, 0]
    print(f"RandomSharpness {factor}: corner {corner:.0f}, side {side:.0f}, middle {middle:.0f}; Pillow {pillow.max()}")
    assert (pillow == 100).all() and abs(middle - 100) < 0.01 and min(abs(corner - 100), abs(side - 100)) > 20
PYTHON
