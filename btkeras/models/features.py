"""The features that a network decides by, beside its answer."""

from __future__ import annotations

import keras


def with_features(model: keras.Model) -> keras.Model:
    """The network with its features behind the probabilities: float32 ``[n, classes + d]``."""
    outputs = [model.output, model.get_layer("features").output]
    return keras.Model(model.input, keras.layers.Concatenate(dtype="float32", name="observed")(outputs))
