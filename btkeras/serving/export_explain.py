"""LayerCAM as graph code: ``evaluation.explain``'s default maps, for a model that has to explain without Keras."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from btkeras.errors import ModelError
from btkeras.evaluation.explain import DEFAULT_METHOD, METHODS, Cam
from btkeras.evaluation.stages import Stage, stages
from btkeras.models.temperature import logits_network

Maps = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def graph_explainer(model: keras.Model) -> Maps | None:
    """``evaluation.explain.explainer`` of the default method, in TensorFlow's operations.

    Args:
        model: From ``build_model``, with or without a temperature.

    Returns:
        From prepared pictures, uint8 ``[n, size, size, channels]``, and class indices, integers ``[n]``, to float32
        ``[n, size, size]`` in 0..1; None if the network has nothing that can be explained.
    """
    cam = METHODS[DEFAULT_METHOD]
    if not isinstance(cam, Cam):
        return None
    try:
        network = logits_network(model)
    except ModelError:
        return None
    chosen = [stage for i, stage in enumerate(stages(network)) if i in cam.stages]
    if not chosen:
        return None
    split = keras.Model(network.input, [*(stage.tensor for stage in chosen), network.output])

    def maps(images: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
        pixels = tf.cast(images, tf.float32)
        drawn = _stage_maps(split, chosen, pixels, indices)
        if cam.mirrored:
            mirrored = _stage_maps(split, chosen, tf.reverse(pixels, [2]), indices)
            drawn = [one + tf.reverse(other, [2]) for one, other in zip(drawn, mirrored, strict=True)]
        return _to_one(tf.reduce_prod(tf.stack(drawn), axis=0))

    return maps


def _stage_maps(
    network: keras.Model, chosen: Sequence[Stage], pixels: tf.Tensor, indices: tf.Tensor
) -> list[tf.Tensor]:
    """Each stage's map at the pictures' size."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(pixels)
        *features, logits = network(pixels, training=False)
        speaking = tf.gather(logits, indices, batch_dims=1)
    drawn = []
    for stage, maps, slopes in zip(chosen, features, tape.gradient(speaking, features), strict=True):
        low = tf.reduce_sum(tf.cast(maps, tf.float32) * tf.nn.relu(tf.cast(slopes, tf.float32)), axis=-1)
        drawn.append(_to_one(_enlarge(stage, tf.nn.relu(low), (pixels.shape[1], pixels.shape[2]))))
    return drawn


def _enlarge(stage: Stage, maps: tf.Tensor, shape: tuple[int, int]) -> tf.Tensor:
    """``Stage.enlarge``; the weights are constants of the graph."""
    rows, columns = (
        axis.weights(cells, pixels) for axis, cells, pixels in zip(stage.axes, maps.shape[1:], shape, strict=True)
    )
    return tf.einsum("ph,nhw,qw->npq", tf.constant(rows), maps, tf.constant(columns))


def _to_one(maps: tf.Tensor) -> tf.Tensor:
    return tf.math.divide_no_nan(maps, tf.reduce_max(maps, axis=[1, 2], keepdims=True))
