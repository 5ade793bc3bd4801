"""TensorFlow: a SavedModel, and a frozen graph, in float32 or bfloat16."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

Call = Callable[[np.ndarray], np.ndarray]


def saved_model(folder: str, form: str) -> tuple[Call, dict[str, Any]]:
    """As a script or a server loads one: the weights are variables."""
    loaded = tf.saved_model.load(f"{folder}/{form}_saved_model")
    # The signature alone would hold its variables weakly.
    return lambda images: loaded.signatures["predict"](images=tf.constant(images))["probabilities"].numpy(), {}


def frozen(folder: str, form: str, precision: str = "float32") -> tuple[Call, dict[str, Any]]:
    """The weights are constants, so that oneDNN brings them into its own order once; of fixed numbers of images."""
    import keras
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    model = _in(precision, keras.models.load_model(f"{folder}/{form}.keras"))
    graphs: dict[tuple[int, ...], Any] = {}

    def call(images: np.ndarray) -> np.ndarray:
        if images.shape not in graphs:
            traced = tf.function(
                lambda x: tf.cast(model(tf.cast(x, tf.float32), training=False), tf.float32),
                input_signature=[tf.TensorSpec(images.shape, tf.uint8)],
            )
            graphs[images.shape] = convert_variables_to_constants_v2(traced.get_concrete_function())
        return graphs[images.shape](tf.constant(images))[0].numpy()

    return call, {}


def matrices(precision: str, side: int) -> tuple[Call, dict[str, Any]]:
    """The product of two large matrices."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    values = tf.cast(tf.random.normal([side, side]), precision)
    product = tf.function(lambda x: tf.cast(tf.matmul(x, x)[0, 0], tf.float32))
    return lambda _: product(values).numpy(), {}


def _in(precision: str, model: Any) -> Any:
    """The same network that computes in another precision, its last layer in float32."""
    import keras

    if precision == "float32":
        return model
    description = json.loads(model.to_json())
    for layer in description["config"]["layers"]:
        if layer["class_name"] != "InputLayer" and layer["config"]["name"] != model.output_names[0]:
            layer["config"]["dtype"] = f"mixed_{precision}"
    other = keras.models.model_from_json(json.dumps(description))
    other.set_weights(model.get_weights())
    return other
