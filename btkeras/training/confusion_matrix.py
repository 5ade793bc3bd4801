"""The validation's confusion matrix as an image in TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from btkeras.errors import ModelError
from btkeras.logging import logger
from btkeras.training.callbacks import ConfiguredCallback, Logs, register
from btkeras.training.macro_recall import MacroRecall

Counts = NDArray[np.int64]


@register
class ConfusionMatrix(ConfiguredCallback):
    """Draws the confusion matrix of each epoch's validation for TensorBoard.

    The model must be compiled with the metric ``MacroRecall``, which counts it. An epoch without validation gets none.

    Args:
        log_dir: Where TensorBoard looks, as for ``keras.callbacks.TensorBoard``.
        classes: Names of the classes, in the order of the network's outputs.

    Raises:
        ModelError: After the first step, if the model has no such metric, or it has another number of classes.

    Example:
        >>> import btkeras
        >>> callback = btkeras.training.ConfusionMatrix("logs", ["no", "yes"])
        >>> # model.compile(loss="categorical_crossentropy", metrics=[btkeras.training.MacroRecall(2)])
        >>> # model.fit(batches, validation_data=others, callbacks=[callback])
    """

    def __init__(self, log_dir: str, classes: Sequence[str]) -> None:
        super().__init__()
        self.log_dir, self.classes = str(log_dir), [*classes]

    def on_train_begin(self, logs: Logs = None) -> None:
        import tensorflow as tf

        self._checked = self._drawn = False
        self._writer = tf.summary.create_file_writer(self.log_dir)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        # Keras makes the metrics in the first step.
        if self._checked:
            return
        self._checked = True
        known = len(validation_counts(self.model))
        if known != len(self.classes):
            rule = f"ConfusionMatrix needs a name for each of MacroRecall's {known} classes"
            raise ModelError(rule, received=", ".join(map(str, self.classes)) or "none")

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        import tensorflow as tf

        if not any(name.startswith("val_") for name in logs or {}):
            # The metric still holds the training's counts.
            return
        self._drawn = True
        with self._writer.as_default():
            image = confusion_image(validation_counts(self.model), self.classes)
            tf.summary.image("confusion_matrix", image[None], epoch + 1)
        self._writer.flush()

    def on_train_end(self, logs: Logs = None) -> None:
        self._writer.close()
        if not self._drawn:
            logger.warning("ConfusionMatrix drew nothing: fit had no validation_data")

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"log_dir": self.log_dir, "classes": self.classes}


def validation_counts(model: keras.Model) -> Counts:
    """The confusion counts of a model's last validation, true classes in rows; ``ModelError`` without ``MacroRecall``.

    Metrics hold them until the next epoch begins.
    """
    metrics = [metric for group in model.metrics for metric in getattr(group, "metrics", [group])]
    found = next((metric for metric in metrics if isinstance(metric, MacroRecall)), None)
    if found is None:
        rule = "A model must be compiled with the metric MacroRecall to have a confusion matrix"
        raise ModelError(rule, received=", ".join(metric.name for metric in metrics))
    return np.asarray(found.matrix).astype(np.int64)


def confusion_image(matrix: NDArray[np.integer], classes: Sequence[str]) -> NDArray[np.uint8]:
    """Draws a confusion matrix, uint8 ``[height, width, 3]``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from sklearn.metrics import ConfusionMatrixDisplay

    # Without pyplot: no global figure list, no display.
    canvas = FigureCanvasAgg(Figure(figsize=(5, 4.5), dpi=110, layout="tight"))
    display = ConfusionMatrixDisplay(matrix, display_labels=list(classes))
    display.plot(ax=canvas.figure.add_subplot(), cmap="Blues", colorbar=False, xticks_rotation=30)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
