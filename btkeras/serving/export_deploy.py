"""The form of a run's network that every export format writes, and the answer that all of them give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import tensorflow as tf

from btkeras.evaluation.calibration import Calibration
from btkeras.evaluation.calibration_file import load_calibration
from btkeras.evaluation.evaluate import load_best
from btkeras.evaluation.outliers import Outliers, Reference, load_outliers, squared_distance
from btkeras.models.features import with_features
from btkeras.models.fuse import fuse
from btkeras.runs import Run
from btkeras.serving.exported import PROBABILITIES, SCORE

# Of the variables that the outlier score is computed with.
OUTLIER_PREFIX = "outlier_"


@dataclass(frozen=True)
class Deployed:
    """Attributes:
    run: The run.
    model: Its best checkpoint, the measure of what is exported.
    fused: The same network in its deploy form (``btkeras.models.fuse``).
    network: What is exported, made of ``fused``: from float32 ``[n, size, size, channels]`` in 0..255 to probabilities
        and, behind them if there are outlier scores, features.
    classes: Class names.
    harmonise: Whether pictures are cropped to the head and put on one scale of intensity.
    calibration: What prediction sets are made from, or None.
    outliers: What the scores are made from, or None.
    parts: Of ``Gaussian.parts``, as variables, which are stored once for all signatures; empty without scores.
    """

    run: Run
    model: keras.Model
    fused: keras.Model
    network: keras.Model
    classes: tuple[str, ...]
    harmonise: bool
    calibration: Calibration | None
    outliers: Outliers | None
    parts: dict[str, tf.Variable]

    @property
    def reference(self) -> Reference | None:
        """What the checkpoint's outlier scores are compared with, or None."""
        return self.outliers.reference if self.outliers else None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one prepared picture: side, side, channels."""
        _, *shape = self.model.input_shape
        return (shape[0], shape[1], shape[2])

    @property
    def spec(self) -> tf.TensorSpec:
        """Of prepared pictures."""
        return tf.TensorSpec([None, *self.shape], tf.uint8, name="images")

    def answer(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """The graph: prepared pictures to float32 ``probabilities`` and, if there are scores, ``outlier_score``."""
        outputs = tf.cast(self.network(tf.cast(images, tf.float32), training=False), tf.float32)
        if not self.parts:
            return {PROBABILITIES: tf.identity(outputs, name=PROBABILITIES)}
        count = len(self.classes)
        scores = squared_distance(
            outputs[:, count:], self.parts, lambda values: tf.reduce_sum(tf.square(values), axis=-1)
        )
        return {PROBABILITIES: outputs[:, :count], SCORE: scores}

    def function(self) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        """``answer`` as a traced function of any number of prepared pictures."""
        function: Callable[[tf.Tensor], dict[str, tf.Tensor]] = tf.function(
            lambda images: self.answer(images), input_signature=[self.spec]
        )
        return function


def deploy(run: Run) -> Deployed:
    """Loads a run's best checkpoint, with what belongs to it, in the form to be exported.

    Raises:
        RunError: If there is none yet, or a file of the run is damaged.
        ModelError: If the checkpoint cannot be used.
    """
    model = load_best(run)
    calibration, outliers = load_calibration(run, model), load_outliers(run)
    parts = outliers.gaussian.parts() if outliers else {}
    variables = {
        name: tf.Variable(part, trainable=False, name=f"{OUTLIER_PREFIX}{name}") for name, part in parts.items()
    }
    fused = fuse(model)
    return Deployed(
        run=run,
        model=model,
        fused=fused,
        network=with_features(fused) if outliers else fused,
        classes=run.classes(),
        harmonise=run.config().data.harmonise,
        calibration=calibration,
        outliers=outliers,
        parts=variables,
    )
