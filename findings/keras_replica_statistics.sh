#!/usr/bin/env bash
# Under tf.distribute.MirroredStrategy each replica has moving statistics of batch normalisation of its own. tf_keras
# (Keras 2) saves their mean; Keras 3 saves the first replica's, and what the others have seen is lost. In both, `evaluate`
# before saving uses each replica's own, so that the loaded model gives another loss on the same data.
#
# A user expects: a saved model has statistics of all data, and evaluates as before it was saved.
# Versions: TensorFlow 2.21.0, Keras 3.15.1, tf_keras 2.21.0; two virtual CPU devices, as with two GPUs.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet tensorflow==2.21.0 keras==3.15.1 tf_keras==2.21.0
cd "$work"
TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python - <<'PYTHON'
import keras
import numpy as np
import tensorflow as tf
import tf_keras

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
draws = np.random.default_rng(0)
# Of each batch the first half goes to one replica, the second to the other.
inputs = (draws.normal(size=(64, 3)) + np.arange(64)[:, None] % 8).astype("float32")
targets = inputs[:, :1]


def trained(library):
    library.utils.set_random_seed(0)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        layers = [library.layers.BatchNormalization(momentum=0.5), library.layers.Dense(1)]
        model = library.Sequential([library.layers.InputLayer((3,)), *layers])
        model.compile("sgd", "mse")
        model.fit(inputs, targets, batch_size=8, shuffle=False, verbose=0)
        model.save(f"{library.__name__}.keras")
        losses = [model.evaluate(inputs, targets, batch_size=8, verbose=0)]
        again = library.models.load_model(f"{library.__name__}.keras")
        losses.append(again.evaluate(inputs, targets, batch_size=8, verbose=0))
    mean = layers[0].moving_mean
    mirrored = mean.value if library is keras else mean
    return np.array([each.numpy() for each in mirrored.values]), again.layers[-2].moving_mean, losses


for library in (keras, tf_keras):
    means, saved, (before, after) = trained(library)
    saved = np.asarray(saved)
    print(f"{library.__name__} {library.__version__}: moving means of the replicas {np.float64(means).round(2).tolist()}")
    print(f"  saved: {np.float64(saved).round(2).tolist()}; loss before saving {before:.2f}, loaded again {after:.2f}")
    assert abs(means[0] - means[1]).min() > 1 and abs(before - after) > 1
    np.testing.assert_allclose(saved, means[0] if library is keras else means.mean(axis=0), rtol=1e-5)
PYTHON
