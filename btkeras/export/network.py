"""The form of a run's network that every export format writes, and the answer that all of them give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf

from btkeras.decisions.calibration import Calibration, load_calibration
from btkeras.decisions.ood import CalibrationScores, OODDetector, load_ood, squared_distance
from btkeras.errors import ModelError
from btkeras.evaluation.evaluate import load_best
from btkeras.explain.cam import Stage, stages
from btkeras.explain.methods import DEFAULT_METHOD, METHODS, Cam
from btkeras.inference.model_folder import OOD_SCORE, PROBABILITIES
from btkeras.models.head import logits_network, with_features
from btkeras.models.reparameterize import reparameterize
from btkeras.runs import Run

# The class index that stands for the most probable class.
MOST_PROBABLE = -1

Maps = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def graph_explainer(model: keras.Model) -> Maps | None:
    """``evaluation.explain.explainer`` of the default method, in TensorFlow's operations.

    Args:
        model: From ``build_model``, with or without a temperature.

    Returns:
        From prepared images, uint8 ``[n, size, size, channels]``, and class indices, int32 ``[n]``, -1 for the most
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
        # Mirrored images go through in the same batch, so that the network is in the graph once.
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
    """Each stage's map at the images' size, and the classes; the views are a multiple of the indices."""
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


# Of the variables that the outlier score is computed with.
OUTLIER_PREFIX = "outlier_"


@dataclass(frozen=True)
class ExportNetwork:
    """Attributes:
    run: The run.
    model: Its best checkpoint, the measure of what is exported.
    fused: The same network in its deploy form (``btkeras.models.reparameterize``).
    network: What is exported, made of ``fused``: from float32 ``[n, size, size, channels]`` in 0..255 to probabilities
        and, behind them if there are outlier scores, features.
    classes: Class names.
    harmonize: Whether images are cropped to the head and put on one scale of intensity.
    calibration: What prediction sets are made from, or None.
    ood: What the scores are made from, or None.
    parts: Of ``Gaussian.parts``, as variables, which are stored once for all signatures; empty without scores.
    """

    run: Run
    model: keras.Model
    fused: keras.Model
    network: keras.Model
    classes: tuple[str, ...]
    harmonize: bool
    calibration: Calibration | None
    ood: OODDetector | None
    parts: dict[str, tf.Variable]

    @property
    def reference(self) -> CalibrationScores | None:
        """What the checkpoint's outlier scores are compared with, or None."""
        return self.ood.reference if self.ood else None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one prepared image: side, side, channels."""
        _, *shape = self.model.input_shape
        return (shape[0], shape[1], shape[2])

    @property
    def spec(self) -> tf.TensorSpec:
        """Of prepared images."""
        return tf.TensorSpec([None, *self.shape], tf.uint8, name="images")

    def answer(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """The graph: prepared images to float32 ``probabilities`` and, if there are scores, ``ood_score``."""
        outputs = tf.cast(self.network(tf.cast(images, tf.float32), training=False), tf.float32)
        if not self.parts:
            return {PROBABILITIES: tf.identity(outputs, name=PROBABILITIES)}
        count = len(self.classes)
        scores = squared_distance(
            outputs[:, count:], self.parts, lambda values: tf.reduce_sum(tf.square(values), axis=-1)
        )
        return {PROBABILITIES: outputs[:, :count], OOD_SCORE: scores}

    def function(self) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        """``answer`` as a traced function of any number of prepared images."""
        function: Callable[[tf.Tensor], dict[str, tf.Tensor]] = tf.function(
            lambda images: self.answer(images), input_signature=[self.spec]
        )
        return function


def export_network(run: Run) -> ExportNetwork:
    """Loads a run's best checkpoint, with what belongs to it, in the form to be exported.

    Raises:
        RunError: If there is none yet, or a file of the run is damaged.
        ModelError: If the checkpoint cannot be used.
    """
    model = load_best(run)
    calibration, ood = load_calibration(run, model), load_ood(run)
    parts = ood.gaussian.parts() if ood else {}
    variables = {
        name: tf.Variable(part, trainable=False, name=f"{OUTLIER_PREFIX}{name}") for name, part in parts.items()
    }
    fused = reparameterize(model)
    return ExportNetwork(
        run=run,
        model=model,
        fused=fused,
        network=with_features(fused) if ood else fused,
        classes=run.classes(),
        harmonize=run.config().data.harmonize,
        calibration=calibration,
        ood=ood,
        parts=variables,
    )
