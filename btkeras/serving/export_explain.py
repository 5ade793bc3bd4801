"""LayerCAM as graph code: ``evaluation.explain``'s default maps, for a model that has to explain without Keras."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from btkeras.errors import ModelError
from btkeras.evaluation.explain_methods import DEFAULT_METHOD, METHODS, Cam
from btkeras.evaluation.stages import Stage, stages
from btkeras.models.temperature import logits_network

# The class index that stands for the most probable class.
MOST_PROBABLE = -1

Maps = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def graph_explainer(model: keras.Model) -> Maps | None:
    """``evaluation.explain.explainer`` of the default method, in TensorFlow's operations.

    Args:
        model: From ``build_model``, with or without a temperature.

    Returns:
        From prepared pictures, uint8 ``[n, size, size, channels]``, and class indices, int32 ``[n]``, -1 for the most
        probable class, to maps, float32 ``[n, size, size]`` in 0..1, and the indices of the classes that they speak
        for; None if the network has nothing that can be explained.
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

    def maps(images: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = tf.cast(images, tf.float32)
        # Mirrored pictures go through in the same batch, so that the network is in the graph once.
        views = tf.concat([pixels, tf.reverse(pixels, [2])], axis=0) if cam.mirrored else pixels
        drawn, wanted = _stage_maps(split, chosen, views, indices)
        if cam.mirrored:
            halves = [tf.split(one, 2) for one in drawn]
            drawn = [one + tf.reverse(other, [2]) for one, other in halves]
        return _to_one(tf.reduce_prod(tf.stack(drawn), axis=0)), wanted

    return maps


def _stage_maps(
    network: keras.Model, chosen: Sequence[Stage], views: tf.Tensor, indices: tf.Tensor
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Each stage's map at the pictures' size, and the classes; the views are a multiple of the indices."""
    count = tf.shape(indices)[0]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(views)
        *features, logits = network(views, training=False)
        probable = tf.argmax(logits[:count], axis=-1, output_type=tf.int32)
        wanted = tf.where(tf.equal(indices, MOST_PROBABLE), probable, indices)
        repeated = tf.tile(wanted, [tf.shape(views)[0] // tf.maximum(count, 1)])
        speaking = tf.gather(logits, repeated, batch_dims=1)
    drawn = []
    for stage, maps, slopes in zip(chosen, features, tape.gradient(speaking, features), strict=True):
        low = tf.reduce_sum(tf.cast(maps, tf.float32) * tf.nn.relu(tf.cast(slopes, tf.float32)), axis=-1)
        drawn.append(_to_one(_enlarge(stage, tf.nn.relu(low), (views.shape[1], views.shape[2]))))
    return drawn, wanted


def _enlarge(stage: Stage, maps: tf.Tensor, shape: tuple[int, int]) -> tf.Tensor:
    """``Stage.enlarge``; the weights are constants of the graph."""
    rows, columns = (
        axis.weights(cells, pixels) for axis, cells, pixels in zip(stage.axes, maps.shape[1:], shape, strict=True)
    )
    return tf.einsum("ph,nhw,qw->npq", tf.constant(rows), maps, tf.constant(columns))


def _to_one(maps: tf.Tensor) -> tf.Tensor:
    return tf.math.divide_no_nan(maps, tf.reduce_max(maps, axis=[1, 2], keepdims=True))
