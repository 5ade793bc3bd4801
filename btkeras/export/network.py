"""The re-parameterised network that every format is written from, and the outputs of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import tensorflow as tf

from btkeras.decisions.ood import load_ood, squared_distance
from btkeras.evaluation.evaluate import load_best
from btkeras.inference.backends import InferenceBackend
from btkeras.inference.backends.keras import backend_of
from btkeras.inference.model_folder import OOD_SCORE, PROBABILITIES
from btkeras.models.head import with_features
from btkeras.models.reparameterize import reparameterize
from btkeras.runs import Run


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
