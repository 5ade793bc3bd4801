#!/usr/bin/env bash
# Quantus scores the explanation of an image by the images beside it, without a word:
# - Its default normalisation (normalise=True, by the largest value) divides all maps of a batch by the largest value of
#   the batch. Beside an image of five times its contrast, an image's Lipschitz estimate falls to a sixth, and its
#   pixels above a fifth of the maximum (EffectiveComplexity, eps=0.2) from 82 to none. Batches are of 64 images, in the
#   data's order, if nothing is said.
# - AttributionLocalisation(weighted=True) divides by the pixels of all images from the batch's third one on, not of one
#   image: the same image scores inf alone, and in a full batch 1/62 of what it scores in one of three.
# - PointingGame counts an image with an empty mask as a hit; the code beside it says "Return NaN".
# AttributionLocalisation without weights and RelevanceRankAccuracy do not depend on the batch.
#
# A reader expects: an image's score is that image's; batch_size changes speed and nothing else.
# Versions: quantus 0.6.0, keras 3.15.1, tensorflow 2.21.0, numpy 2.4.6. Source: the run below; normalise_by_max takes
# the maximum over all axes unless it is told normalise_axes, and no metric tells it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet quantus==0.6.0 keras==3.15.1 tensorflow==2.21.0 numpy==2.4.6
cd "$work"
TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python - 2>errors.txt <<'PYTHON' || { cat errors.txt >&2; exit 1; }
import keras
import numpy as np
import quantus
import tensorflow as tf

keras.utils.set_random_seed(0)
layers = [
    keras.layers.Conv2D(4, 5, padding="same", activation="relu"),
    keras.layers.AveragePooling2D(8),
    keras.layers.Flatten(),
    keras.layers.Dense(3),
]
network = keras.Sequential([keras.Input((32, 32, 1)), *layers])
images = np.random.default_rng(0).normal(size=(64, 32, 32, 1)).astype("float32")
images[3] *= 5
labels = network.predict(images, verbose=0).argmax(axis=1)
masks = np.zeros((64, 1, 32, 32), int)
masks[:, :, 8:20, 8:20] = 1


def explain(model, inputs, targets, **_):
    """Gradient times input."""
    given = tf.convert_to_tensor(np.asarray(inputs), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(given)
        chosen = tf.gather(model(given), targets, axis=1, batch_dims=1)
    return (tape.gradient(chosen, given) * given).numpy()


maps = explain(network, images, labels)


def scores(metric, count, masks=masks):
    """The metric's scores of the first images, all in one batch."""
    np.random.seed(0)
    given = {"x_batch": images[:count], "y_batch": labels[:count], "a_batch": maps[:count], "s_batch": masks[:count]}
    return metric(network, channel_first=False, softmax=False, explain_func=explain, **given)


def first(metric):
    return {count: float(scores(metric, count)[0]) for count in (1, 3, 4, 64)}


quiet = {"disable_warnings": True}
found = {
    "LocalLipschitzEstimate": first(quantus.LocalLipschitzEstimate(nr_samples=5, **quiet)),
    "EffectiveComplexity(eps=0.2)": first(quantus.EffectiveComplexity(eps=0.2, **quiet)),
    "AttributionLocalisation(weighted)": first(quantus.AttributionLocalisation(weighted=True, **quiet)),
    "AttributionLocalisation": first(quantus.AttributionLocalisation(**quiet)),
    "RelevanceRankAccuracy": first(quantus.RelevanceRankAccuracy(**quiet)),
}
for name, row in found.items():
    print(f"{name} of the first image, by images in the batch:", {count: round(v, 5) for count, v in row.items()})


def lipschitz(normalised):
    metric = quantus.LocalLipschitzEstimate(nr_samples=5, normalise=normalised, **quiet)
    return {count: round(float(scores(metric, count)[0]), 3) for count in (3, 4)}


print("LocalLipschitzEstimate(normalise=False):", lipschitz(False))
empty = masks.copy()
empty[0] = 0
hits = {
    name: scores(getattr(quantus, name)(**quiet), 3, empty)[0] for name in ("PointingGame", "RelevanceRankAccuracy")
}
print("empty mask:", hits)

plain = found["AttributionLocalisation"]
inside, total = np.abs(maps[0, 8:20, 8:20]).sum(), np.abs(maps[0]).sum()
by_hand = inside / total
print(f"inside the mask by hand: {by_hand:.5f}, weighted by the share of one image: {by_hand * 144 / 1024:.5f}")
np.testing.assert_allclose(list(plain.values()), by_hand, rtol=1e-4)
assert len(set(found["RelevanceRankAccuracy"].values())) == 1
weighted = found["AttributionLocalisation(weighted)"]
assert np.isinf(weighted[1])
np.testing.assert_allclose([weighted[3], weighted[64]], by_hand * 144 / 1024 / np.array([1, 62]), rtol=1e-4)
estimate, pixels = found["LocalLipschitzEstimate"], found["EffectiveComplexity(eps=0.2)"]
assert estimate[4] < 0.3 * estimate[3] and pixels[4] < 0.1 * pixels[3], (estimate, pixels)
assert bool(hits["PointingGame"]) is True and np.isnan(hits["RelevanceRankAccuracy"])
PYTHON
