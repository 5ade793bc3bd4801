#!/usr/bin/env bash
# Keras' Equalization layer makes an image depend on its neighbours, and does nothing when a model predicts:
# - It counts one histogram over the whole batch. A dark and a bright image, each equalized to 0..255 when alone, get
#   0..127 and 128..255 as a batch: the dark one stays dark, as if nothing had been equalized, and after
#   `ds.batch(32).map(layer)` an image's pixels depend on the shuffle. (AutoContrast and CLAHE work image by image.)
# - In a network whose call has a `training` argument it works with training=True only; predict gets its input back.
#   Its documentation says: "At inference time, the equalization is consistently applied." (In a network without that
#   argument it is always on; a functional or sequential one cannot be built: "part of a cycle".)
#
# A user expects: a batch gives what its images give one by one, as Pillow's equalize does, in training and in use.
# What helps: `ds.map(layer)` before `ds.batch`, and no Equalization layer in a network.
# Versions: keras 3.15.1, tensorflow-cpu 2.21.0, pillow 13.0.0, numpy 2.4.6. Source: the run below.
#   alone: mean brightness 129 and 129, from Pillow 3.1 levels
#   as a batch: mean brightness 65 and 192, from Pillow 63.8 levels
#   network, training=True: changes its input by 18 levels
#   network, predict: changes its input by 0 levels
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
from PIL import Image, ImageOps


class Network(keras.Model):
    """Equalizes and returns; a convolution would follow."""

    def __init__(self):
        super().__init__()
        self.equalize = keras.layers.Equalization(value_range=(0, 255))

    def call(self, inputs, training=False):
        return self.equalize(inputs)


# Two slices with the same anatomy, one of a dark and one of a bright scanner.
rng = np.random.default_rng(0)
anatomy = rng.beta(2, 3, (128, 128, 1)) * 100
images = np.stack([anatomy + 10, anatomy + 140]).round().astype("float32")
pillow = np.stack(
    [np.asarray(ImageOps.equalize(Image.fromarray(image[..., 0].astype("uint8"))))[..., None] for image in images]
)


def off(first, second):
    return float(np.abs(np.asarray(first, "float32") - np.asarray(second, "float32")).mean())


layer = keras.layers.Equalization(value_range=(0, 255))
found = {
    "alone": np.concatenate([layer(images[i : i + 1]) for i in range(2)]),
    "as a batch": np.asarray(layer(images)),
}
for name, result in found.items():
    dark, bright = result.mean(axis=(1, 2, 3))
    print(f"{name}: mean brightness {dark:.0f} and {bright:.0f}, from Pillow {off(result, pillow):.1f} levels")
assert off(found["alone"], pillow) < 4
assert found["alone"].max(axis=(1, 2, 3)).tolist() == [255, 255]
assert found["as a batch"][0].max() < 128 <= found["as a batch"][1].min() and off(found["as a batch"], pillow) > 50
single = tf.data.Dataset.from_tensor_slices(images).map(layer).batch(2)
np.testing.assert_array_equal(next(single.as_numpy_iterator()), found["alone"])
for name in ("AutoContrast", "ContrastLimitedAdaptiveHistogramEqualization"):
    other = getattr(keras.layers, name)(value_range=(0, 255))
    assert off(np.concatenate([other(images[i : i + 1]) for i in range(2)]), other(images)) < 0.01, name

network = Network()
training = off(network(images, training=True), images)
predict = off(network.predict(images, verbose=0), images)
print(f"network, training=True: changes its input by {training:.0f} levels")
print(f"network, predict: changes its input by {predict:.0f} levels")
assert training > 10 and predict == 0
assert "At inference time,\n    the equalization is consistently applied" in keras.layers.Equalization.__doc__
PYTHON
