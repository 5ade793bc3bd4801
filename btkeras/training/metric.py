"""Validation's confusion matrix, kept on the way as a Keras metric."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class MacroRecall(keras.metrics.Metric):
    """Mean over classes of the recall; its ``matrix`` holds the confusion counts, true classes in rows.

    A class without pictures counts as recall 0, as in ``btkeras.metrics``.
    """

    def __init__(self, classes: int, name: str = "macro_recall") -> None:
        super().__init__(name=name, dtype="float32")
        self.matrix = self.add_variable((classes, classes), "zeros", name="matrix")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Counts a batch of one-hot labels and probabilities, both ``[batch, classes]``."""
        predicted = ops.one_hot(ops.argmax(y_pred, axis=-1), y_pred.shape[-1], dtype="float32")
        counts = ops.matmul(ops.transpose(ops.cast(y_true, "float32")), predicted)
        self.matrix.assign_add(counts)

    def result(self) -> Any:
        """The figure, 0..1."""
        actual = ops.sum(self.matrix, axis=1)
        return ops.mean(ops.diagonal(self.matrix) / ops.maximum(actual, 1.0))
