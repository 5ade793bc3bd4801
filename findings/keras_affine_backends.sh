#!/usr/bin/env bash
# Four of Keras' image operations (keras.ops.image) give another image, or destroy their input, on some backends only:
# - PyTorch: affine_transform writes into the caller's tensor of transforms: it exchanges the axes in it, so that the
#   second call with the same tensor shifts down what the first one shifted to the right, and the third is right again.
# - PyTorch: elastic_transform(seed=7) is another deformation each time: the generator is made for the device "meta"
#   only.
# - JAX, PyTorch, NumPy: affine_transform's c0 and c1 "will be considered as 0 when using other backends" than
#   TensorFlow. They are added to the coordinates, times the number of the channel: the first channel stays, the others
#   are shifted.
# - JAX, PyTorch: sobel_edges pads with black, so that a plain image of 100 has edges of 400 around it. TensorFlow
#   reflects and NumPy repeats the border: both give 0.
# Besides, without data_format gaussian_blur on JAX and PyTorch takes rows for channels, and blurs over the channels
# (mended after this version); map_coordinates(fill_mode="reflect") on TensorFlow is off by a pixel left and above.
#
# A user expects: one operation gives the same on each backend, does not change its arguments, and follows its seed.
# What helps: a copy of the transforms, keras.utils.set_random_seed before each call, a padded image for sobel_edges.
# Versions: keras 3.15.1, tensorflow-cpu 2.21.0, jax 0.10.2, torch 2.13.0 (CPU), scipy 1.17.1, numpy 2.4.6. Source: the
# run below; keras/src/backend/torch/image.py. gaussian_blur: https://github.com/keras-team/keras/pull/23542. No public
# issue found for the others.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet keras==3.15.1 tensorflow-cpu==2.21.0 jax==0.10.2 torch==2.13.0 scipy==1.17.1 \
  numpy==2.4.6
cd "$work"
cat >operations.py <<'PYTHON'
import keras
import numpy as np
import scipy.ndimage
from keras import ops

backend = keras.backend.backend()
image = np.random.default_rng(0).random((1, 12, 12, 3)).astype(np.float32)


def difference(first, second):
    return float(np.abs(ops.convert_to_numpy(first) - ops.convert_to_numpy(second)).max())


right = ops.convert_to_tensor(np.array([[1, 0, -3, 0, 1, 0, 0, 0]], np.float32))
first = ops.image.affine_transform(image, right)
second = ops.image.affine_transform(image, right)
third = ops.image.affine_transform(image, right)
deformed = ops.image.elastic_transform(image, seed=7)
again = ops.image.elastic_transform(image, seed=7)
bent = np.array([[1, 0, 0, 0, 1, 0, 0.5, 0.5]], np.float32)
channels = np.abs(ops.convert_to_numpy(ops.image.affine_transform(image, bent)) - image).max(axis=(0, 1, 2))
plain = np.full((1, 12, 12, 1), 100, np.float32)
blurred = ops.image.gaussian_blur(image, data_format="channels_last")
coordinates = np.stack(np.meshgrid(np.linspace(-5, 6, 23), np.linspace(-5, 6, 23), indexing="ij")).astype(np.float32)
reflected = ops.image.map_coordinates(image[0, :, :, 0], coordinates, order=1, fill_mode="reflect")
reference = scipy.ndimage.map_coordinates(image[0, :, :, 0], coordinates, order=1, mode="reflect")
found = {
    "second call": difference(first, second),
    "third call": difference(first, third),
    "same seed": difference(deformed, again),
    "c0, c1, first channel": channels[0],
    "c0, c1, last channel": channels[2],
    "edges of a plain image": difference(ops.image.sobel_edges(plain), np.zeros(1)),
    "blur without data_format": difference(ops.image.gaussian_blur(image), blurred),
    "reflect": difference(reflected, reference),
}
print(f"{backend}: " + ", ".join(f"{name} {value:.3g}" for name, value in found.items()))
wrong = {
    "second call": ["torch"],
    "third call": [],
    "same seed": ["torch"],
    "c0, c1, first channel": ["tensorflow"],
    "c0, c1, last channel": ["tensorflow", "jax", "torch", "numpy"],
    "edges of a plain image": ["jax", "torch"],
    "blur without data_format": ["jax", "torch"],
    "reflect": ["tensorflow"],
}
for name, value in found.items():
    assert value > 0.1 if backend in wrong[name] else value < 1e-4, (backend, name, value)
PYTHON
for backend in tensorflow jax torch numpy; do
  KERAS_BACKEND=$backend TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python operations.py 2>errors.txt ||
    { cat errors.txt >&2; exit 1; }
done
