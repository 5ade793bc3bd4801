"""LayerCAM maps as a graph of TensorFlow's operations, which every exported format holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import keras
import tensorflow as tf

from btkeras.errors import ModelError
from btkeras.explain.cam import Stage, stages
from btkeras.explain.methods import DEFAULT_METHOD, METHODS, Cam
from btkeras.export.gradients import forward_gradients
from btkeras.export.network import ExportNetwork
from btkeras.inference.model_folder import MAP
from btkeras.models.averaging import members
from btkeras.models.head import logits_network

# The class index that stands for the most probable class.
MOST_PROBABLE = -1

Maps = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def graph_explainer(model: keras.Model) -> Maps | None:
    """The default method of ``explain.cam.explainer`` in TensorFlow's operations.

    Returns:
        From preprocessed images, uint8 ``[n, size, size, channels]``, and class indices, int32 ``[n]``, -1 for the most
        probable class, to maps, float32 ``[n, size, size]`` in 0..1, and the explained classes' indices; None if the
        network has no layers that can be explained.
    """
    if found := members(model):
        return _mean_maps(logits_network(model), [graph_explainer(member) for member in found])
    cam, chosen = METHODS[DEFAULT_METHOD], []
    with suppress(ModelError):
        network = logits_network(model)
        chosen = [stage for i, stage in enumerate(stages(network)) if isinstance(cam, Cam) and i in cam.stages]
    if not chosen or not isinstance(cam, Cam):
        return None
    split = keras.Model(network.input, [*(stage.tensor for stage in chosen), network.output])

    def maps(images: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = tf.cast(images, tf.float32)
        # Mirrored images go through in the same batch, so that the network is in the graph once.
        views = tf.concat([pixels, tf.reverse(pixels, [2])], axis=0) if cam.mirrored else pixels
        drawn, classes = _stage_maps(split, chosen, views, indices)
        if cam.mirrored:
            halves = [tf.split(one, 2) for one in drawn]
            drawn = [one + tf.reverse(other, [2]) for one, other in halves]
        return _to_one(tf.reduce_prod(tf.stack(drawn), axis=0)), classes

    return maps


def _mean_maps(network: keras.Model, each: Sequence[Maps | None]) -> Maps | None:
    """The maps of an average: the mean of its networks', of the class that is most probable to all together."""
    explainers = [maps for maps in each if maps]
    if len(explainers) < len(each):
        return None

    def maps(images: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = network(tf.cast(images, tf.float32), training=False)
        classes = _chosen(logits, indices)
        return _to_one(tf.add_n([explainer(images, classes)[0] for explainer in explainers])), classes

    return maps


def _chosen(logits: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
    probable = tf.argmax(logits, axis=-1, output_type=tf.int32)
    return tf.where(tf.equal(indices, MOST_PROBABLE), probable, indices)


def _stage_maps(
    network: keras.Model, chosen: Sequence[Stage], views: tf.Tensor, indices: tf.Tensor
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Each stage's map at the images' size, and the classes; there are one or two views for each index."""
    count = tf.shape(indices)[0]
    *features, logits = network(views, training=False)
    classes = _chosen(logits[:count], indices)
    repeated = tf.tile(classes, [tf.shape(views)[0] // tf.maximum(count, 1)])
    explained = tf.reduce_sum(logits * tf.one_hot(repeated, logits.shape[-1]), axis=-1)
    drawn = []
    for stage, maps, slopes in zip(chosen, features, tf.gradients(explained, features), strict=True):
        low = tf.reduce_sum(tf.cast(maps, tf.float32) * tf.nn.relu(tf.cast(slopes, tf.float32)), axis=-1)
        drawn.append(_to_one(_enlarge(stage, tf.nn.relu(low), (views.shape[1], views.shape[2]))))
    return drawn, classes


def _enlarge(stage: Stage, maps: tf.Tensor, shape: tuple[int, int]) -> tf.Tensor:
    """``Stage.enlarge``; the weights are constants of the graph."""
    rows, columns = (
        axis.weights(cells, pixels) for axis, cells, pixels in zip(stage.axes, maps.shape[1:], shape, strict=True)
    )
    return tf.einsum("ph,nhw,qw->npq", tf.constant(rows), maps, tf.constant(columns))


def _to_one(maps: tf.Tensor) -> tf.Tensor:
    return tf.math.divide_no_nan(maps, tf.reduce_max(maps, axis=[1, 2], keepdims=True))


def map_function(network: ExportNetwork) -> Callable[..., dict[str, tf.Tensor]] | None:
    """Maps as a traced function of one image and its class, without operations that are made for training.

    Returns:
        From ``images``, uint8 ``[1, size, size, channels]``, and ``class_index``, int32 ``[1]``, as for
        ``graph_explainer``, to ``map``, float32 ``[1, size, size]``; None if the network cannot be explained.
    """
    maps = graph_explainer(network.reparameterized)
    if maps is None:
        return None
    image, index = tf.TensorSpec([1, *network.shape], tf.uint8, "images"), tf.TensorSpec([1], tf.int32, "class_index")

    @tf.function(input_signature=[image, index], autograph=False)
    def explained(images: tf.Tensor, class_index: tf.Tensor) -> dict[str, tf.Tensor]:
        with forward_gradients():
            return {MAP: maps(images, class_index)[0]}

    return explained
