"""Temperature scaling inside a network: its logits are divided by one number before the softmax.

Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017. The most probable class stays
what it was. With a temperature the head is Dense ``logits``, Rescaling ``temperature``, Softmax ``probabilities``, all
built-in layers in float32; so a checkpoint, an export and a prediction have it without knowing of it.
"""

from __future__ import annotations

import keras
from keras import layers

from btkeras.errors import ModelError

_NAME = "temperature"


def temperature_of(model: keras.Model) -> float:
    """What a network's logits are divided by; 1 if it has no temperature."""
    found = [layer for layer in model.layers if layer.name == _NAME]
    return 1 / float(found[0].scale) if found else 1.0


def with_temperature(model: keras.Model, temperature: float) -> keras.Model:
    """The same network with a temperature, in place of the one that it may have.

    Args:
        model: From ``build_model``, or from this function. Its layers are shared, but for the head, which is copied.
        temperature: Above 0.

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
    """The network up to its logits, ``[n, classes]`` float32, without softmax and temperature.

    Args:
        model: From ``build_model`` or ``with_temperature``. Its layers are shared, but for the head, which is copied.

    Raises:
        ModelError: If the network has another head.
    """
    head = _head(model)
    dense = layers.Dense(head.units, dtype="float32", name="logits")
    logits = dense(head.input)
    dense.set_weights(head.get_weights())
    return keras.Model(model.input, logits, name=model.name)


def _head(model: keras.Model) -> layers.Dense:
    """The last dense layer."""
    by_name = {layer.name: layer for layer in model.layers}
    last = by_name.get("logits") if _NAME in by_name else model.layers[-1]
    expected = keras.activations.linear if _NAME in by_name else keras.activations.softmax
    if not isinstance(last, layers.Dense) or last.activation is not expected:
        raise ModelError("A network must end in a dense layer with softmax to get a temperature", received=model.name)
    return last
