"""What TensorBoard shows of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from btkeras.config import ExperimentConfig
from btkeras.config_io import config_to_dict
from btkeras.runs import Run
from btkeras.training.callbacks import MacroRecall


class TensorBoard(keras.callbacks.Callback):
    """Writes scalars, the validation's confusion matrix, a grid of augmented inputs and the hyper-parameters.

    Keras' own callback needs its TensorFlow backend; this one writes through ``tf.summary`` under any.

    Args:
        run: Events go to its ``tensorboard/train`` and ``tensorboard/validation``.
        config: Shown as hyper-parameters.
        classes: Class names.
        images: A batch of augmented images, float ``[n, size, size, channels]`` in 0..255.
        learning_rate: Rate by step.
        images_per_epoch: For the speed.
    """

    def __init__(
        self,
        run: Run,
        config: ExperimentConfig,
        classes: Sequence[str],
        images: NDArray[np.floating],
        learning_rate: Callable[[int], float],
        images_per_epoch: int,
    ) -> None:
        super().__init__()
        self._train = tf.summary.create_file_writer(str(run.tensorboard / "train"))
        self._validation = tf.summary.create_file_writer(str(run.tensorboard / "validation"))
        self._config, self._classes, self._images = config, classes, images
        self._learning_rate, self._images_per_epoch = learning_rate, images_per_epoch
        self._start = self._end = 0.0

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        # Imported here, because it drags in TensorBoard's web server.
        from tensorboard.plugins.hparams import api as hparams

        with self._train.as_default():
            hparams.hparams(hyper_parameters(self._config))
            tf.summary.image("augmented_inputs", image_grid(self._images)[None], step=0)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._start = self._end = time.perf_counter()

    def on_test_begin(self, logs: Mapping[str, float] | None = None) -> None:
        self._end = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        logs, step = logs or {}, epoch + 1
        with self._train.as_default():
            for name in (name for name in logs if not name.startswith("val_")):
                tf.summary.scalar(name, logs[name], step)
            rate = self._learning_rate(int(self.model.optimizer.iterations.numpy()) - 1)
            tf.summary.scalar("learning_rate", rate, step)
            tf.summary.scalar("images_per_second", self._images_per_epoch / (self._end - self._start), step)
        with self._validation.as_default():
            for name in (name for name in logs if name.startswith("val_")):
                tf.summary.scalar(name.removeprefix("val_"), logs[name], step)
            tf.summary.image("confusion_matrix", confusion_image(self._matrix(), self._classes)[None], step)
        self._train.flush()
        self._validation.flush()

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        self._train.close()
        self._validation.close()

    def _matrix(self) -> NDArray[np.int64]:
        # Metrics still hold the validation's counts: they are reset when the next epoch begins.
        metrics = [metric for group in self.model.metrics for metric in getattr(group, "metrics", [group])]
        matrix = next(metric.matrix for metric in metrics if isinstance(metric, MacroRecall))
        return np.asarray(matrix).astype(np.int64)


def hyper_parameters(config: ExperimentConfig) -> dict[str, Any]:
    """The configuration as flat ``section.key`` values that TensorBoard's table can sort."""
    flat = {f"{part}.{key}": value for part, keys in config_to_dict(config).items() for key, value in keys.items()}
    return {key: str(value) if isinstance(value, list | dict) else value for key, value in flat.items()}


def image_grid(images: NDArray[np.floating], columns: int = 4, rows: int = 4) -> NDArray[np.uint8]:
    """Lays images out in a grid, uint8 ``[rows * size, columns * size, channels]``; empty places are black."""
    size, channels = images.shape[1], images.shape[3]
    grid = np.zeros((rows * columns, size, size, channels), np.uint8)
    shown = images[: rows * columns]
    grid[: len(shown)] = np.clip(np.rint(shown), 0, 255)
    return grid.reshape(rows, columns, size, size, channels).swapaxes(1, 2).reshape(rows * size, columns * size, -1)


def confusion_image(matrix: NDArray[np.integer], classes: Sequence[str]) -> NDArray[np.uint8]:
    """Draws a confusion matrix, uint8 ``[height, width, 3]``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from sklearn.metrics import ConfusionMatrixDisplay

    # Without pyplot: no global figure list, no display.
    figure = Figure(figsize=(5, 4.5), dpi=110, layout="tight")
    canvas = FigureCanvasAgg(figure)
    display = ConfusionMatrixDisplay(matrix, display_labels=list(classes))
    display.plot(ax=figure.add_subplot(), cmap="Blues", colorbar=False, xticks_rotation=30)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
