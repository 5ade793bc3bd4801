"""What TensorBoard shows of a training: metrics, confusion matrices, augmented images."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from btkeras.runs import Run
from btkeras.training.background import BackgroundWriter
from btkeras.training.callbacks import Logs, MacroRecall, TimedEpochs, learning_rate
from btkeras.training.optimizers import Schedule

Counts = NDArray[np.int64]


class TensorBoard(TimedEpochs):
    """Writes scalars, the validation's confusion matrix and some augmented images.

    Keras' own callback needs its TensorFlow backend. ``images`` is a batch of augmented images in 0..255.
    """

    def __init__(
        self,
        run: Run,
        batch_size: int,
        schedule: Schedule,
        classes: Sequence[str],
        images: NDArray[np.floating],
        writer: BackgroundWriter,
    ) -> None:
        super().__init__(schedule.steps * batch_size)
        self._writer = writer
        self._waiting: deque[tuple[int, Mapping[str, float], Mapping[str, float], Counts]] = deque()
        self._train = tf.summary.create_file_writer(str(run.tensorboard / "train"))
        self._validation = tf.summary.create_file_writer(str(run.tensorboard / "validation"))
        self._schedule, self._classes, self._images = schedule, classes, images

    def on_train_begin(self, logs: Logs = None) -> None:
        with self._train.as_default():
            images = np.clip(np.rint(self._images), 0, 255).astype(np.uint8)
            tf.summary.image("augmented_inputs", images, step=0, max_outputs=16)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        logs, step = logs or {}, epoch + 1
        train = {name: value for name, value in logs.items() if not name.startswith("val_")}
        speed = {
            "learning_rate": learning_rate(self.model, self._schedule),
            "images_per_second": self.images_per_second(),
        }
        validation = {name.removeprefix("val_"): logs[name] for name in logs.keys() - train.keys()}
        self._waiting.append((step, train | speed, validation, self._matrix()))
        # Under a name of its own: the callback of the next phase must not take its place.
        self._writer.give(self._write, self._write)
        self._writer.start()

    def _write(self) -> None:
        """Writes the epochs that wait; only the last one's matrix, since drawing may take longer than an epoch."""
        if not self._waiting:
            # Written with the epoch before, while that was written.
            return
        while self._waiting:
            step, train, validation, matrix = self._waiting.popleft()
            for writer, scalars in ((self._train, train), (self._validation, validation)):
                with writer.as_default():
                    for name, value in scalars.items():
                        tf.summary.scalar(name, value, step)
        with self._validation.as_default():
            tf.summary.image("confusion_matrix", _confusion_image(matrix, self._classes)[None], step)
        for writer in (self._train, self._validation):
            writer.flush()

    def on_train_end(self, logs: Logs = None) -> None:
        self._writer.give(self._close, self._close)

    def _close(self) -> None:
        self._train.close()
        self._validation.close()

    def _matrix(self) -> Counts:
        # Metrics still hold the validation's counts: they are reset when the next epoch begins.
        metrics = [metric for group in self.model.metrics for metric in getattr(group, "metrics", [group])]
        matrix = next(metric.matrix for metric in metrics if isinstance(metric, MacroRecall))
        return np.asarray(matrix).astype(np.int64)


def _confusion_image(matrix: NDArray[np.integer], classes: Sequence[str]) -> NDArray[np.uint8]:
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
