"""Callbacks of a training: macro recall, progress, TensorBoard, the best model, the saved state, early stopping."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from numpy.typing import NDArray
from tqdm import tqdm

from btkeras.checksums import recorded_file
from btkeras.config import ExperimentConfig, TrainConfig
from btkeras.config_io import config_to_dict
from btkeras.decisions.finite import is_finite
from btkeras.errors import RunError
from btkeras.logging import duration, logger
from btkeras.models.keras_file import save_network
from btkeras.runs import Run, write_history
from btkeras.training.checkpoint import Progress, save_state
from btkeras.training.optimizers import Schedule

Logs = Mapping[str, float] | None


class MacroRecall(keras.metrics.Metric):
    """Mean over classes of the recall; its ``matrix`` holds the confusion counts, true classes in rows.

    A class without images counts as recall 0, as in ``btkeras.metrics``.
    """

    def __init__(self, classes: int, name: str = "macro_recall") -> None:
        super().__init__(name=name, dtype="float32")
        self.matrix = self.add_variable((classes, classes), "zeros", name="matrix")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Counts a batch of one-hot labels and probabilities, both ``[batch, classes]``."""
        predicted = ops.one_hot(ops.argmax(y_pred, axis=-1), y_pred.shape[-1], dtype="float32")
        self.matrix.assign_add(ops.matmul(ops.transpose(ops.cast(y_true, "float32")), predicted))

    def result(self) -> Any:
        """The macro recall, 0..1."""
        actual = ops.sum(self.matrix, axis=1)
        return ops.mean(ops.diagonal(self.matrix) / ops.maximum(actual, 1.0))


def _learning_rate(model: keras.Model, schedule: Schedule) -> float:
    """That of the last step."""
    return float(np.asarray(schedule(int(model.optimizer.iterations.numpy()) - 1)))


class _TimedEpochs(keras.callbacks.Callback):
    """Measures how long an epoch trains until its validation begins."""

    def __init__(self, images_per_epoch: int) -> None:
        super().__init__()
        self._images_per_epoch = images_per_epoch
        self._starts: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._starts.append(time.perf_counter())

    def on_test_begin(self, logs: Logs = None) -> None:
        self._trained = time.perf_counter()

    def _images_per_second(self) -> float:
        return self._images_per_epoch / (self._trained - self._starts[-1])


class ProgressLine(_TimedEpochs):
    """A moving line while an epoch runs (on a terminal), and a line for each finished epoch, on standard error."""

    def __init__(self, config: TrainConfig, steps: int) -> None:
        super().__init__(steps * config.batch_size)
        self._epochs, self._batch_size = config.epochs, config.batch_size

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        super().on_epoch_begin(epoch)
        name, total = f"epoch {epoch + 1}/{self._epochs}", self._images_per_epoch
        self._bar = tqdm(total=total, desc=name, unit=" images", file=sys.stderr, leave=False, disable=None)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        if not self._bar.disable and logs:
            self._bar.set_postfix(loss=f"{logs['loss']:.3f}", accuracy=f"{logs['accuracy']:.3f}", refresh=False)
            self._bar.update(self._batch_size)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self._bar.close()
        # The first epoch holds the graph's tracing: it is left out of the forecast as soon as there is another.
        timed = self._starts[1:] or self._starts
        left = (time.perf_counter() - timed[0]) / len(timed) * (self._epochs - epoch - 1)
        names = ("loss", "accuracy", "val_loss", "val_accuracy")
        metrics = "  ".join(f"{name} {(logs or {})[name]:.4f}" for name in names)
        speed = f"{self._images_per_second():.0f} images/s"
        logger.info(f"epoch {epoch + 1}/{self._epochs}  {metrics}  {speed}  {duration(left)} left")


def is_better(new: Mapping[str, float], old: Mapping[str, float], monitor: str) -> bool:
    """Whether a checkpoint's validation metrics beat another's; ``monitor`` decides, the other metric breaks ties.

    Metrics that are not finite beat none.
    """
    if not is_finite(new.values()):
        return False
    if not old:
        return True
    gains = {"accuracy": new["accuracy"] - old["accuracy"], "loss": old["loss"] - new["loss"]}
    first = gains.pop(monitor.removeprefix("val_"))
    return (first, *gains.values()) > (0.0, 0.0)


class BestModel(keras.callbacks.Callback):
    """Saves the model, as ``portable``, whenever its validation metrics are the best so far, and all of it is finite.

    Works at the end of a validation and not of an epoch, because that is where averaged weights (EMA) are in place.
    """

    def __init__(self, run: Run, portable: keras.Model, progress: Progress, monitor: str) -> None:
        super().__init__()
        self._run, self._portable, self._progress, self._monitor = run, portable, progress, monitor
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._epoch = epoch + 1

    def on_test_end(self, logs: Logs = None) -> None:
        metrics = {name: float(value) for name, value in (logs or {}).items()}
        if not is_better(metrics, self._progress.best, self._monitor):
            return
        for target, source in zip(self._portable.variables, self.model.variables, strict=True):
            target.assign(np.asarray(source))
        if not is_finite(self._portable.variables):
            return
        with recorded_file(self._run.best_model) as temporary:
            save_network(self._portable, temporary)
        self._progress.best, self._progress.best_epoch = metrics, self._epoch


class Divergence(keras.callbacks.Callback):
    """Ends a training at the first batch whose loss is not finite, or epoch whose weights are not.

    Then neither is in the saved state. Raises ``RunError``.
    """

    def __init__(self, run: Run, progress: Progress, config: ExperimentConfig) -> None:
        super().__init__()
        self._run, self._progress, self._config = run, progress, config

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        # The mean over the epoch so far: once it is NaN, it stays so.
        if not math.isfinite(loss := (logs or {})["loss"]):
            raise self._error("A training's loss must stay finite", loss)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if not is_finite(self.model.variables):
            raise self._error("A network's weights must stay finite", "NaN or infinity")
        loss = (logs or {})["val_loss"]
        if not math.isfinite(loss):
            logger.warning(
                f"epoch {epoch + 1}: the validation loss is {loss}, so it is not kept as the best checkpoint"
            )

    def _error(self, rule: str, received: object) -> RunError:
        progress, config = self._progress, self._config
        kept = f"the checkpoint of epoch {progress.best_epoch}" if progress.best else "no checkpoint, for none was good"
        precision = self._run.manifest()["precision"]
        advice = [f"lower optimizer.learning_rate ({config.optimizer.learning_rate:g})"]
        advice += ["add schedule.warmup_epochs"] * (not config.schedule.warmup_epochs)
        advice += [f"use train.precision=float32 in place of {precision}"] * (precision != "float32")
        return RunError(
            rule,
            received=f"{received} in epoch {progress.epochs + 1}; {self._run.path} keeps {kept}",
            remedy=f"In a new run, {' or '.join(advice)}",
        )


class EpochEnd(keras.callbacks.Callback):
    """Records the epoch, saves the state, then decides whether to stop.

    The training stops after its last epoch, and after ``early_stopping`` epochs without a better checkpoint, unless 0.
    """

    def __init__(self, run: Run, progress: Progress, schedule: Schedule, config: TrainConfig) -> None:
        super().__init__()
        self._run, self._progress, self._schedule, self._config = run, progress, schedule, config

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        metrics = {name: float(value) for name, value in (logs or {}).items()}
        progress = self._progress
        rate, patience = _learning_rate(self.model, self._schedule), self._config.early_stopping
        progress.history.append({"epoch": epoch + 1, "learning_rate": rate, **metrics})
        progress.epochs = epoch + 1
        progress.seconds += time.perf_counter() - self._start
        stale = 0 < patience <= progress.epochs - progress.best_epoch
        progress.wanted = self._config.epochs
        progress.finished = stale or progress.epochs == self._config.epochs
        # History first: it is made again from the state, should the run die between the two.
        write_history(self._run.history_file, progress.history)
        # What a finished training leaves there is three times as large as the model.
        kept = self._config.keep_state or not progress.finished
        save_state(self._run.state_file, self.model if kept else None, progress)
        self.model.stop_training = progress.finished


class TensorBoard(_TimedEpochs):
    """Writes scalars, the validation's confusion matrix, some augmented images and the hyper-parameters.

    Keras' own callback needs its TensorFlow backend. ``images`` is a batch of augmented images in 0..255.
    """

    def __init__(
        self,
        run: Run,
        config: ExperimentConfig,
        schedule: Schedule,
        classes: Sequence[str],
        images: NDArray[np.floating],
    ) -> None:
        super().__init__(schedule.steps * config.train.batch_size)
        self._train = tf.summary.create_file_writer(str(run.tensorboard / "train"))
        self._validation = tf.summary.create_file_writer(str(run.tensorboard / "validation"))
        self._config, self._schedule, self._classes, self._images = config, schedule, classes, images

    def on_train_begin(self, logs: Logs = None) -> None:
        # Imported here, because it drags in TensorBoard's web server.
        from tensorboard.plugins.hparams import api as hparams

        with self._train.as_default():
            sections = config_to_dict(self._config).items()
            settings = {f"{section}.{key}": value for section, keys in sections for key, value in keys.items()}
            hparams.hparams({key: str(v) if isinstance(v, list | dict) else v for key, v in settings.items()})
            images = np.clip(np.rint(self._images), 0, 255).astype(np.uint8)
            tf.summary.image("augmented_inputs", images, step=0, max_outputs=16)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        logs, step = logs or {}, epoch + 1
        train = {name: value for name, value in logs.items() if not name.startswith("val_")}
        speed = {
            "learning_rate": _learning_rate(self.model, self._schedule),
            "images_per_second": self._images_per_second(),
        }
        with self._validation.as_default():
            tf.summary.image("confusion_matrix", _confusion_image(self._matrix(), self._classes)[None], step)
        for writer, scalars in (
            (self._train, train | speed),
            (self._validation, {name.removeprefix("val_"): logs[name] for name in logs.keys() - train.keys()}),
        ):
            with writer.as_default():
                for name, value in scalars.items():
                    tf.summary.scalar(name, value, step)
            writer.flush()

    def on_train_end(self, logs: Logs = None) -> None:
        self._train.close()
        self._validation.close()

    def _matrix(self) -> NDArray[np.int64]:
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
