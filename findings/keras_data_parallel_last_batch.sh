#!/usr/bin/env bash
# Under keras.distribution.DataParallel (JAX backend), `fit`, `evaluate` and `predict` fail at a batch that the devices do not
# divide evenly, so at the last batch of most datasets (known: github.com/keras-team/keras/issues/21167). What is not said there:
# after a failed `evaluate` or `predict` the model cannot be called any more, with any batch; after a failed `fit` it can.
#
# A user expects: 9 images in batches of 4 are evaluated on two devices as on one, and an error leaves the model as it was.
# Versions: Keras 3.15.1, JAX 0.10.2, NumPy 2.4.6; two virtual CPU devices, as with two GPUs.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet keras==3.15.1 jax==0.10.2 numpy==2.4.6
cd "$work"
KERAS_BACKEND=jax JAX_PLATFORMS=cpu XLA_FLAGS=--xla_force_host_platform_device_count=2 venv/bin/python - <<'PYTHON'
import keras
import numpy as np

images, targets = np.ones((9, 3), "float32"), np.ones((9, 1), "float32")


def network():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def outcome(call, *data, **options):
    try:
        call(*data, **options)
    except Exception as error:
        return type(error).__name__
    return "done"


def outcomes():
    found = {}
    for method, data in {"fit": (images, targets), "evaluate": (images, targets), "predict": (images,)}.items():
        model = network()
        found[method] = [outcome(getattr(model, method), *data, batch_size=4, verbose=0), outcome(model, images[:4])]
    return found


for distribution in (None, keras.distribution.DataParallel()):
    keras.distribution.set_distribution(distribution)
    found = outcomes()
    print(f"{type(distribution).__name__}: 9 images in batches of 4, and the model called afterwards: {found}")
    failed = "done" if distribution is None else "IndivisibleError"
    called = "done" if distribution is None else "TypeError"
    assert found == {"fit": [failed, "done"], "evaluate": [failed, called], "predict": [failed, called]}, found
assert outcome(network().predict, images[:8], batch_size=4, verbose=0) == "done"
PYTHON
