"""What happens at the end of each epoch: the best model, the state for resuming, the history, early stopping."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops
from tqdm import tqdm

from btkeras.errors import RunError
from btkeras.files import atomic_file
from btkeras.logging import duration
from btkeras.runs import Run, write_history
from btkeras.training.checkpoint import Progress, save_state


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
        counts = ops.matmul(ops.transpose(ops.cast(y_true, "float32")), predicted)
        self.matrix.assign_add(counts)

    def result(self) -> Any:
        """The figure, 0..1."""
        actual = ops.sum(self.matrix, axis=1)
        return ops.mean(ops.diagonal(self.matrix) / ops.maximum(actual, 1.0))


class ProgressLine(keras.callbacks.Callback):
    """A moving line while an epoch runs (on a terminal), and a line for each finished epoch, on standard error.

    Args:
        epochs: Length of the whole training.
        steps: Steps per epoch.
        batch_size: Images per step.
    """

    def __init__(self, epochs: int, steps: int, batch_size: int) -> None:
        super().__init__()
        self._epochs, self._steps, self._batch_size = epochs, steps, batch_size
        self._bar: tqdm[Any] | None = None
        self._starts: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._starts.append(time.perf_counter())
        self._bar = tqdm(
            total=self._steps * self._batch_size,
            desc=f"epoch {epoch + 1}/{self._epochs}",
            unit=" images",
            file=sys.stderr,
            leave=False,
            disable=None,
        )

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        if self._bar is not None and not self._bar.disable and logs:
            self._bar.set_postfix(loss=f"{logs['loss']:.3f}", accuracy=f"{logs['accuracy']:.3f}", refresh=False)
            self._bar.update(self._batch_size)

    def on_test_begin(self, logs: Mapping[str, float] | None = None) -> None:
        self._trained = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        if self._bar is not None:
            self._bar.close()
        logs = logs or {}
        speed = self._steps * self._batch_size / (self._trained - self._starts[-1])
        # The first epoch holds the graph's tracing: it is left out of the forecast as soon as there is another.
        known = self._starts[1:] or self._starts
        left = (time.perf_counter() - known[0]) / len(known) * (self._epochs - epoch - 1)
        print(
            f"epoch {epoch + 1}/{self._epochs}  loss {logs['loss']:.4f}  accuracy {logs['accuracy']:.4f}  "
            f"val_loss {logs['val_loss']:.4f}  val_accuracy {logs['val_accuracy']:.4f}  "
            f"{speed:.0f} images/s  {duration(left)} left",
            file=sys.stderr,
            flush=True,
        )


def is_better(new: Mapping[str, float], old: Mapping[str, float], monitor: str) -> bool:
    """Whether a checkpoint's validation figures beat another's; ``monitor`` decides, the other figure breaks ties."""
    if not old:
        return True
    rank = {"accuracy": new["accuracy"] - old["accuracy"], "loss": old["loss"] - new["loss"]}
    first = monitor.removeprefix("val_")
    second = next(name for name in rank if name != first)
    return (rank[first], rank[second]) > (0.0, 0.0)


class BestModel(keras.callbacks.Callback):
    """Saves the model whenever its validation figures are the best so far.

    Works at the end of a validation and not of an epoch, because that is where averaged weights (EMA) are in place.

    Args:
        run: Where ``best.keras`` goes.
        portable: The same network under float32, which is what is saved: it gives the same answer on any machine.
        progress: Holds the best figures.
        monitor: One of ``config.MONITORS``.
    """

    def __init__(self, run: Run, portable: keras.Model, progress: Progress, monitor: str) -> None:
        super().__init__()
        self._run, self._portable, self._progress, self._monitor = run, portable, progress, monitor
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._epoch = epoch + 1

    def on_test_end(self, logs: Mapping[str, float] | None = None) -> None:
        figures = {name: float(value) for name, value in (logs or {}).items()}
        if not is_better(figures, self._progress.best, self._monitor):
            return
        for target, source in zip(self._portable.variables, self.model.variables, strict=True):
            target.assign(np.asarray(source))
        with atomic_file(self._run.best_model) as temporary:
            self._portable.save(temporary)
        self._progress.best, self._progress.best_epoch = figures, self._epoch


class EpochEnd(keras.callbacks.Callback):
    """Records the epoch, saves the state, then decides whether to stop.

    Args:
        run: Where history and state go.
        progress: What is recorded.
        learning_rate: Rate by step.
        epochs: Length of the whole training.
        early_stopping: Epochs without a better checkpoint after which to stop; 0 never.
    """

    def __init__(
        self, run: Run, progress: Progress, learning_rate: Callable[[int], float], epochs: int, early_stopping: int
    ) -> None:
        super().__init__()
        self._run, self._progress, self._learning_rate = run, progress, learning_rate
        self._epochs, self._patience = epochs, early_stopping
        self._start = 0.0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        figures = {name: float(value) for name, value in (logs or {}).items()}
        if not math.isfinite(figures["loss"]):
            raise RunError(
                "A training's loss must stay finite",
                received=f"{figures['loss']} in epoch {epoch + 1}",
                remedy="Lower optimizer.learning_rate, add schedule.warmup_epochs, or use train.precision=float32",
            )
        progress = self._progress
        rate = self._learning_rate(int(self.model.optimizer.iterations.numpy()) - 1)
        progress.history.append({"epoch": epoch + 1, "learning_rate": rate, **figures})
        progress.epochs = epoch + 1
        progress.seconds += time.perf_counter() - self._start
        stale = self._patience and progress.epochs - progress.best_epoch >= self._patience
        progress.finished = bool(stale) or progress.epochs == self._epochs
        # History first: it is made again from the state, should the run die between the two.
        write_history(self._run.history_file, progress.history)
        save_state(self._run.state_file, self.model, progress)
        self.model.stop_training = progress.finished
