"""A network's head: its temperature, its logits and features, and a frozen backbone before it."""

from __future__ import annotations

import keras
from keras import layers

from btkeras.errors import ModelError
from btkeras.models.averaging import FEATURES, average_layer

_NAME = "temperature"


def temperature_of(model: keras.Model) -> float:
    """The temperature that a network's logits are divided by; 1 if it has none."""
    found = [layer for layer in model.layers if layer.name == _NAME]
    return 1 / float(found[0].scale) if found else 1.0


def with_temperature(model: keras.Model, temperature: float) -> keras.Model:
    """Makes the same network with a temperature, in place of the one that it may have; layers as ``logits_network``.

    Raises:
        ModelError: If the network has another head, or the temperature is not a number above 0.
    """
    if not 0 < temperature < float("inf"):
        raise ModelError("A temperature must be a number above 0", received=temperature)
    logits = logits_network(model).output
    scaled = layers.Rescaling(1 / temperature, dtype="float32", name=_NAME)(logits)
    probabilities = layers.Softmax(dtype="float32", name="probabilities")(scaled)
    return keras.Model(model.input, probabilities, name=model.name)


def logits_network(model: keras.Model) -> keras.Model:
    """The network up to its logits, ``[n, classes]`` float32; layers are shared, but for the head, which is copied.

    Those of an average are the logarithms of its mean probabilities.

    Raises:
        ModelError: If the network has another head.
    """
    if average := average_layer(model):
        return keras.Model(model.input, average(model.input)[0], name=model.name)
    by_name = {layer.name: layer for layer in model.layers}
    head = by_name.get("logits") if _NAME in by_name else model.layers[-1]
    expected = keras.activations.linear if _NAME in by_name else keras.activations.softmax
    if not isinstance(head, layers.Dense) or head.activation is not expected:
        raise ModelError("A network must end in a dense layer with softmax to get a temperature", received=model.name)
    dense = layers.Dense(head.units, dtype="float32", name="logits")
    logits = dense(head.input)
    dense.set_weights(head.get_weights())
    return keras.Model(model.input, logits, name=model.name)


def with_features(model: keras.Model) -> keras.Model:
    """The network with its features concatenated to the probabilities: float32 ``[n, classes + d]``."""
    outputs = [model.output, features_network(model).output]
    return keras.Model(model.input, layers.Concatenate(dtype="float32", name="observed")(outputs))


def features_network(model: keras.Model) -> keras.Model:
    """The network up to its features, ``[n, d]``."""
    average = average_layer(model)
    return keras.Model(model.input, average(model.input)[1] if average else model.get_layer(FEATURES).output)


def backbone_layers(model: keras.Model) -> list[keras.Layer]:
    """All layers up to the last feature map; the head follows, from pooling or flattening on."""
    last = max(i for i, layer in enumerate(model.layers) if len(layer.output.shape) == 4)
    return model.layers[: last + 1]


def set_backbone_trainable(model: keras.Model, trainable: bool) -> None:
    """Freezes or frees the backbone; takes effect when the model is compiled.

    Frozen batch normalisation uses its moving statistics unchanged; stochastic depth (EfficientNetV2) goes on dropping.
    """
    for layer in backbone_layers(model):
        layer.trainable = trainable
