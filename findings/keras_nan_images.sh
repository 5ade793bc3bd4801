#!/usr/bin/env bash
# Keras on TensorFlow (Linux, x86) gives an image of nothing but NaN ordinary probabilities, and trains on without a
# word after one such pixel has destroyed the network: oneDNN computes convolution, bias and ReLU as one kernel, and its
# ReLU makes 0 of NaN. One missing pixel in one of 64 training images puts NaN into each kernel of the first layer in
# the first epoch. From then on that layer gives 0 for every image, the loss stays finite at log(2), TerminateOnNaN sees
# nothing in 15 epochs, and `predict` gives one constant for all images.
# It happens in graphs (fit, evaluate, predict), with activation="relu" or "relu6" in Conv2D or Dense. The call
# model(image) returns NaN, XLA does, everything does with TF_ENABLE_ONEDNN_OPTS=0, and so do Keras' JAX and PyTorch
# backends. Through batch normalization between convolution and ReLU the NaN passes. Slices made of NIfTI files have NaN
# where an earlier step divided by 0, or outside of a mask.
#
# A user expects: NaN in, NaN out, and a callback that "terminates training when a NaN loss is encountered" to do so.
# What helps: np.isfinite of images and weights, or TF_ENABLE_ONEDNN_OPTS=0.
# Versions: keras 3.15.1, tensorflow-cpu 2.21.0, numpy 2.4.6. Source: the run below, on a processor with AVX-512 VNNI,
# where oneDNN is on by default. The same symptom without its cause (closed as stale):
# https://github.com/tensorflow/tensorflow/issues/63391 and 63392. ReLU alone on GPUs (closed):
# https://github.com/tensorflow/tensorflow/issues/40072
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet tensorflow-cpu==2.21.0 keras==3.15.1 numpy==2.4.6
cd "$work"
cat > program.py <<'PYTHON'
import os

import keras
import numpy as np
import tensorflow as tf

random = np.random.default_rng(0)
rows, columns = np.mgrid[:24, :24]


def images(count):
    """Noise, and in each second image a bright disc."""
    labels = np.arange(count) % 2
    disc = (rows - 12) ** 2 + (columns - 12) ** 2 < 30
    made = random.normal(0, 0.3, (count, 24, 24)) + labels[:, None, None] * disc
    return made[..., None].astype(np.float32), labels


def network():
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((24, 24, 1)),
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(2, activation="softmax"),
    ]
    model = keras.Sequential(layers)
    adam = keras.optimizers.Adam(0.01)
    model.compile(adam, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    return model


def train(x, y):
    model = network()
    history = model.fit(x, y, epochs=15, batch_size=8, callbacks=[keras.callbacks.TerminateOnNaN()], verbose=0).history
    return model, history["loss"], np.isnan(model.get_weights()[0]).any(axis=(0, 1, 2)).mean()


def some(values):
    return "NaN" if np.isnan(values).any() else f"{np.min(values):.3f} to {np.max(values):.3f}"


x, y = images(64)
test, truth = images(200)
model, losses, lost = train(x, y)
missing = np.full_like(test[:1], np.nan)
compiled = tf.function(model, jit_compile=True)
print(f"  trained on good images: {len(losses)} epochs, loss {losses[-1]:.3f}, first kernels with NaN {lost:.0%}")
print(f"    test accuracy {model.evaluate(test, truth, verbose=0)[1]:.2f}")
for name, predict in (("predict", lambda x: model.predict(x, verbose=0)), ("call", model), ("XLA", compiled)):
    print(f"    probabilities of an image of NaN, {name}: {some(np.asarray(predict(missing)))}")
x[40, 0, 0] = np.nan
destroyed, losses, lost = train(x, y)
accuracy = destroyed.evaluate(test, truth, verbose=0)[1]
predicted = destroyed.predict(test, verbose=0)
print(f"  one NaN in 64 images: {len(losses)} epochs, loss {losses[-1]:.3f}, first kernels with NaN {lost:.0%}")
print(f"    test accuracy {accuracy:.2f}, probabilities of all test images {some(predicted)}")
finite = np.isfinite(model.predict(missing, verbose=0)).all()
assert np.isnan(np.asarray(model(missing))).any() and np.isnan(np.asarray(compiled(missing))).any() and lost == 1
if os.environ["TF_ENABLE_ONEDNN_OPTS"] == "1":
    assert finite and len(losses) == 15 and abs(losses[-1] - np.log(2)) < 0.02 and accuracy == 0.5
    assert np.isfinite(predicted).all() and np.ptp(predicted, axis=0).max() == 0
else:
    assert not finite and len(losses) == 1 and np.isnan(losses[0]) and np.isnan(predicted).any()
PYTHON
for onednn in 1 0; do
    echo "TF_ENABLE_ONEDNN_OPTS=$onednn"
    TF_ENABLE_ONEDNN_OPTS=$onednn TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python program.py 2>errors.txt ||
        { cat errors.txt >&2; exit 1; }
done
