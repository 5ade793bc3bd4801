"""The metric that a rare class cannot hide in, of probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from btkeras.errors import ModelError


@keras.saving.register_keras_serializable("btkeras")
class MacroRecall(keras.metrics.Metric):
    """Mean over classes of the recall; its ``matrix`` holds the confusion counts, true classes in rows.

    A class without images counts as recall 0, as in ``btkeras.metrics``; a label that is no class, as an image of none.

    Args:
        classes: How many there are, at least 2.
        name: Of the metric.
        dtype: Of its counts.

    Raises:
        ModelError: If there are fewer classes, or outputs or labels are of other classes than these.

    Example:
        >>> import btkeras
        >>> recall = btkeras.training.MacroRecall(2)
        >>> recall.update_state([0, 0, 0, 1], [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
        >>> float(recall.result())
        0.5
    """

    def __init__(self, classes: int, name: str = "macro_recall", dtype: str = "float32") -> None:
        super().__init__(name=name, dtype=dtype)
        if not isinstance(classes, int | np.integer) or classes < 2:
            raise ModelError("MacroRecall needs a whole number of classes, at least 2", received=repr(classes))
        self.classes = int(classes)
        self.matrix = self.add_variable((self.classes, self.classes), "zeros", name="matrix")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Counts a batch.

        Args:
            y_true: One-hot ``[batch, classes]``, or class indices ``[batch]`` or ``[batch, 1]``.
            y_pred: Probabilities or logits ``[batch, classes]``; or, of 2 classes, the second one's probability
                ``[batch, 1]``, which is taken if above 0.5.
            sample_weight: What each image counts for, ``[batch]``; 1 by default.
        """
        scores, actual = ops.convert_to_tensor(y_pred), ops.convert_to_tensor(y_true)
        self._check("one output a class, or a single sigmoid output for 2", scores.shape, single=self.classes == 2)
        self._check("labels that are class indices, or one-hot", actual.shape, single=True)
        if scores.shape[-1] == 1:
            predicted = self._one_hot(ops.cast(scores[:, 0] > 0.5, "int32"))
        else:
            predicted = self._one_hot(ops.argmax(scores, axis=-1))
        if len(actual.shape) < 2 or actual.shape[-1] != self.classes:
            actual = self._one_hot(ops.cast(ops.reshape(actual, (-1,)), "int32"))
        if sample_weight is not None:
            predicted = predicted * ops.cast(ops.reshape(sample_weight, (-1, 1)), self.dtype)
        self.matrix.assign_add(ops.matmul(ops.transpose(ops.cast(actual, self.dtype)), predicted))

    def _check(self, needed: str, shape: Sequence[int | None], *, single: bool) -> None:
        last = shape[-1] if len(shape) > 1 else 1
        if last not in (None, self.classes) and not (single and last == 1):
            rule = f"MacroRecall({self.classes}) needs {needed}"
            raise ModelError(rule, received=f"shape {tuple(shape)}", remedy="Give it the model's number of classes")

    def _one_hot(self, indices: Any) -> Any:
        return ops.one_hot(indices, self.classes, dtype=self.dtype)

    def result(self) -> Any:
        """The macro recall, 0..1."""
        actual = ops.sum(self.matrix, axis=1)
        return ops.mean(ops.diagonal(self.matrix) / ops.maximum(actual, 1.0))

    def get_config(self) -> dict[str, Any]:
        """The arguments, from which ``from_config`` makes the same metric."""
        return super().get_config() | {"classes": self.classes}
