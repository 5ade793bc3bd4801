#!/usr/bin/env bash
# Under tf.distribute.MirroredStrategy, Keras 3 leaves each replica its own moving statistics of batch normalisation. They
# drift apart, `evaluate` uses them all, and a saved model has the first replica's: loaded again, with the same weights in
# all replicas, it gives another loss on the same data. tf_keras (Keras 2) keeps their mean in all replicas.
#
# A user expects: mirrored variables are equal in all replicas, and a model that was saved and loaded evaluates alike.
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
    return [np.round(each.numpy(), 3).tolist() for each in mirrored.values], losses


for library in (keras, tf_keras):
    means, (before, after) = trained(library)
    print(f"{library.__name__} {library.__version__}: moving means of the replicas {means}")
    print(f"  loss before saving {before:.4f}, loaded again {after:.4f}")
    # True of tf_keras alone.
    same = means[0] == means[1], abs(before - after) < 1e-6
    assert same == ((library is tf_keras,) * 2), same
PYTHON
