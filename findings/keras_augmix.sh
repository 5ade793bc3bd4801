#!/usr/bin/env bash
# Keras' AugMix layer draws its operations once for a whole training: with Python's random.choice, which runs while
# tf.data or fit traces the function, not for each batch. Which operations there are is then part of the graph, and only
# their strength is random. With one chain of one operation, of which a third changes a plain grey image, either all of
# 200 images are changed or none, in both epochs; called outside of a graph, a third are. By default, with three chains
# of three, nine draws serve the whole training, and some operations never occur in it. `seed` does not fix them.
#
# A user expects: another mixture for each batch, as in the paper, and as RandAugment beside it has, since the layer's
# documentation says that it "is safe to use inside a `tf.data` pipeline". What helps: RandAugment.
# Versions: keras 3.15.1, tensorflow-cpu 2.21.0, numpy 2.4.6. Source: the run below; aug_mix.py imports `random`.
#   AugMix, called image by image: 32% of the images changed
#   AugMix in tf.data, 12 runs: all or none of the images changed
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet keras==3.15.1 tensorflow-cpu==2.21.0 numpy==2.4.6
cd "$work"
TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python - 2>errors.txt <<'PYTHON' || { cat errors.txt >&2; exit 1; }
import random

import keras
import numpy as np
import tensorflow as tf

# Geometry, contrast and colour leave a grey image of one level as it is; brightness, solarization, posterization and
# sharpness (at the border) do not. They are 4 of the layer's 11 operations, beside which it draws "none": 33 %.
GREY = np.full((1, 16, 16, 3), 101, "float32")
IMAGES = 200


def augmix(**settings):
    return keras.layers.AugMix(value_range=(0, 255), factor=(0.2, 0.4), seed=1, **settings)


def share(results):
    return float(np.mean([np.abs(result - GREY).max() > 0.05 for result in results]))


def pipeline(layer):
    grey = tf.data.Dataset.from_tensors(GREY).repeat(IMAGES)
    dataset = grey.map(lambda images: layer(images, training=True))
    return [share(dataset.as_numpy_iterator()) for _ in range(2)]


def fitted(layer):
    """The share of changed images in each of two epochs of fit."""
    network = keras.Sequential([keras.Input(GREY.shape[1:]), layer, keras.layers.GlobalAveragePooling2D()])
    network.compile(keras.optimizers.SGD(), loss=lambda true, level: keras.ops.abs(level - 101) > 0.05)
    data = np.repeat(GREY, IMAGES, axis=0), np.zeros((IMAGES, 3), "float32")
    return network.fit(*data, batch_size=1, epochs=2, verbose=0).history["loss"]


random.seed(0)
single = {"num_chains": 1, "chain_depth": 1}
layer = augmix(**single)
eager = share(np.asarray(layer(GREY, training=True)) for _ in range(IMAGES))
print(f"AugMix, called image by image: {eager:.0%} of the images changed")
runs = [pipeline(augmix(**single)) for _ in range(12)]
print("AugMix in tf.data, 12 runs of two epochs:", ", ".join(f"{first:.0%} and {last:.0%}" for first, last in runs))
fits = [fitted(augmix(**single)) for _ in range(8)]
print("AugMix in fit, 8 runs of two epochs:", ", ".join(f"{first:.0%} and {last:.0%}" for first, last in fits))
other = pipeline(keras.layers.RandAugment(value_range=(0, 255), num_ops=1, seed=1))
print("RandAugment in tf.data:", " and ".join(f"{value:.0%}" for value in other))
assert 0.23 < eager < 0.43
for epochs in (*runs, *fits):
    assert max(epochs) == 0 or min(epochs) > 0.9, epochs
assert len({round(epochs[0]) for epochs in runs}) == 2, "The same layer with the same seed differs from run to run."
assert all(0.1 < value < 0.9 for value in other), other

drawn = []
layer = augmix()
for name in layer._augment_layers:
    part = getattr(layer, name)

    def draw(*inputs, name=name, function=part.get_random_transformation, **settings):
        drawn.append(name)
        return function(*inputs, **settings)

    part.get_random_transformation = draw
pipeline(layer)
print(f"three chains of three, {2 * IMAGES} images: drawn {len(drawn)} times, {len(set(drawn))} of 11 operations")
assert len(drawn) <= 9
PYTHON
