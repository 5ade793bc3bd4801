"""The re-parameterised network that every format is written from, and the outputs of all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import keras
import tensorflow as tf

from btkeras.decisions.ood import load_ood, squared_distance
from btkeras.errors import ModelError
from btkeras.evaluation.evaluate import load_best
from btkeras.explain.cam import Stage, stages
from btkeras.explain.methods import DEFAULT_METHOD, METHODS, Cam
from btkeras.inference.backends import InferenceBackend
from btkeras.inference.backends.keras import backend_of
from btkeras.inference.model_folder import OOD_SCORE, PROBABILITIES
from btkeras.models.head import logits_network, with_features
from btkeras.models.reparameterize import reparameterize
from btkeras.runs import Run

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


def _stage_maps(
    network: keras.Model, chosen: Sequence[Stage], views: tf.Tensor, indices: tf.Tensor
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Each stage's map at the images' size, and the classes; there are one or two views for each index."""
    count = tf.shape(indices)[0]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(views)
        *features, logits = network(views, training=False)
        probable = tf.argmax(logits[:count], axis=-1, output_type=tf.int32)
        classes = tf.where(tf.equal(indices, MOST_PROBABLE), probable, indices)
        repeated = tf.tile(classes, [tf.shape(views)[0] // tf.maximum(count, 1)])
        explained = tf.gather(logits, repeated, batch_dims=1)
    drawn = []
    for stage, maps, slopes in zip(chosen, features, tape.gradient(explained, features), strict=True):
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


@dataclass(frozen=True)
class ExportNetwork:
    """What every format is written from.

    Attributes:
        run: The run.
        model: Its best checkpoint.
        checkpoint: The same as a backend, which the export must agree with.
        reparameterized: The same network, re-parameterised (``models.reparameterize``).
        network: ``reparameterized`` with features: from float32 ``[n, size, size, channels]`` in 0..255 to
            probabilities and, behind them if there are OOD scores, features.
        ood_variables: ``Gaussian.parts``, as variables that all signatures share; empty without scores.
    """

    run: Run
    model: keras.Model
    checkpoint: InferenceBackend
    reparameterized: keras.Model
    network: keras.Model
    ood_variables: dict[str, tf.Variable]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one preprocessed image: side, side, channels."""
        return (self.checkpoint.size, self.checkpoint.size, self.checkpoint.channels)

    @property
    def spec(self) -> tf.TensorSpec:
        """Of preprocessed images."""
        return tf.TensorSpec([None, *self.shape], tf.uint8, name="images")

    def outputs(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """The graph from preprocessed images to float32 ``probabilities`` and, if there are scores, ``ood_score``."""
        outputs = tf.cast(self.network(tf.cast(images, tf.float32), training=False), tf.float32)
        if not self.ood_variables:
            return {PROBABILITIES: tf.identity(outputs, name=PROBABILITIES)}
        count = len(self.checkpoint.classes)
        scores = squared_distance(
            outputs[:, count:], self.ood_variables, lambda values: tf.reduce_sum(tf.square(values), axis=-1)
        )
        return {PROBABILITIES: outputs[:, :count], OOD_SCORE: scores}

    def function(self) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        """``outputs`` as a traced function of any number of preprocessed images."""
        function: Callable[[tf.Tensor], dict[str, tf.Tensor]] = tf.function(
            lambda images: self.outputs(images), input_signature=[self.spec]
        )
        return function


def export_network(run: Run) -> ExportNetwork:
    """Loads a run's best checkpoint, and re-parameterises it; errors as ``load_best``."""
    model, ood = load_best(run), load_ood(run)
    reparameterized = reparameterize(model)
    network = with_features(reparameterized) if ood else reparameterized
    parts = ood.gaussian.parts() if ood else {}
    variables = {name: tf.Variable(value, trainable=False, name=f"ood_{name}") for name, value in parts.items()}
    return ExportNetwork(run, model, backend_of(run, model), reparameterized, network, variables)
