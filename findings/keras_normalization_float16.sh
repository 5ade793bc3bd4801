#!/usr/bin/env bash
# Keras' Normalization layer gives 0 for every pixel in mixed_float16 if the values' standard deviation is above 256, as
# of 12-bit MR slices: it casts the variance to float16, whose largest number is 65,504, and divides by infinity.
# Nothing warns; the network learns a constant, and the saved file predicts it for every image. Small units have the
# reverse: for diffusion in mm^2/s the variance is rounded to one of a few numbers or to 0, and the scale is wrong. The
# layer's weights hold the right variance in float32. Batch and layer normalization compute in float32 for this reason.
#
# A user expects: values of 0 to 4095, which float16 holds, are normalized under each policy to mean 0, deviation 1.
# What helps: Normalization(dtype="float32"), or Rescaling before it.
# Versions: keras 3.15.1, tensorflow-cpu 2.21.0, numpy 2.4.6. Source: the run below; why the other layers use
# float32: https://github.com/keras-team/keras-core/pull/412. Deviation of what the layer gives:
#   12-bit slices (deviation 517): float32 1.000, mixed_bfloat16 1.002, mixed_float16 0.000
#   8-bit slices (deviation 32.3): float32 1.000, mixed_bfloat16 1.002, mixed_float16 1.000
#   diffusion in mm^2/s (deviation 0.000199): float32 1.000, mixed_bfloat16 0.999, mixed_float16 0.816
#   network, float32: accuracy 1.00, probabilities of all images within 1.000
#   network, mixed_float16: accuracy 0.50, probabilities of all images within 0.000
#   network, mixed_float16 with a float32 layer: accuracy 1.00, probabilities of all images within 1.000
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet keras==3.15.1 tensorflow-cpu==2.21.0 numpy==2.4.6
cd "$work"
TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python - 2>errors.txt <<'PYTHON' || { cat errors.txt >&2; exit 1; }
import warnings

import keras
import numpy as np

POLICIES = "float32", "mixed_bfloat16", "mixed_float16"
warnings.filterwarnings("error", category=RuntimeWarning)  # An overflow that is reported would end the run.
rng = np.random.default_rng(0)
slices = np.minimum(rng.gamma(2, 300, (200, 16, 16, 1)), 4095).round().astype("float32")
labels = np.arange(200) % 2
slices[labels == 1, 4:12, 4:12] = np.minimum(slices[labels == 1, 4:12, 4:12] + 900, 4095)
kinds = {
    "12-bit slices": slices,
    "8-bit slices": (slices / 16).round(),
    "diffusion in mm^2/s": rng.normal(0.8e-3, 2e-4, (20, 16, 16, 1)).astype("float32"),
}


def deviation(images, policy):
    layer = keras.layers.Normalization(axis=None, dtype=policy)
    layer.adapt(images)
    np.testing.assert_allclose(layer.adapt_variance, images.var(), rtol=1e-3)
    return float(np.asarray(layer(images)).astype("float64").std())


found = {name: [deviation(images, policy) for policy in POLICIES] for name, images in kinds.items()}
for name, images in kinds.items():
    values = ", ".join(f"{policy} {value:.3f}" for policy, value in zip(POLICIES, found[name], strict=True))
    print(f"{name} (deviation {images.std():.3g}): {values}")


def accuracy(policy, layer_policy):
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    layer = keras.layers.Normalization(axis=None, dtype=layer_policy)
    layer.adapt(slices)
    network = keras.Sequential(
        [
            keras.Input((16, 16, 1)),
            layer,
            keras.layers.Conv2D(8, 5, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2, activation="softmax", dtype="float32"),
        ]
    )
    network.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    network.optimizer.learning_rate = 0.02
    network.fit(slices, labels, epochs=10, verbose=0)
    network.save("network.keras")
    probabilities = keras.models.load_model("network.keras").predict(slices, verbose=0)
    return float((probabilities.argmax(axis=1) == labels).mean()), float(np.ptp(probabilities, axis=0).max())


trained = {
    "float32": accuracy("float32", None),
    "mixed_float16": accuracy("mixed_float16", None),
    "mixed_float16 with a float32 layer": accuracy("mixed_float16", "float32"),
}
for name, (right, spread) in trained.items():
    print(f"network, {name}: accuracy {right:.2f}, probabilities of all images within {spread:.3f}")
for name, (single, brain, half) in found.items():
    assert abs(single - 1) < 0.001 and abs(brain - 1) < 0.02, name
    assert abs(half - 1) < 0.01 if name == "8-bit slices" else abs(half - 1) > 0.1, name
assert found["12-bit slices"][2] == 0
assert trained["mixed_float16"] == (0.5, 0)
assert trained["float32"][0] > 0.95 and trained["mixed_float16 with a float32 layer"][0] > 0.95
PYTHON
