"""What TensorBoard shows of a training: metrics, confusion matrices, augmented images."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from btkeras.runs import Run
from btkeras.training.background import BackgroundWriter
from btkeras.training.callbacks import Logs, TimedEpochs
from btkeras.training.confusion_matrix import Counts, confusion_image, validation_counts
from btkeras.training.run_callbacks import learning_rate
from btkeras.training.schedules import Schedule


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
        super().__init__(batch_size)
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
        self._waiting.append((step, train | speed, validation, validation_counts(self.model)))
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
            tf.summary.image("confusion_matrix", confusion_image(matrix, self._classes)[None], step)
        for writer in (self._train, self._validation):
            writer.flush()

    def on_train_end(self, logs: Logs = None) -> None:
        self._writer.give(self._close, self._close)

    def _close(self) -> None:
        self._train.close()
        self._validation.close()
