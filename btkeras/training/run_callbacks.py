"""Callbacks of a run: the best model, the saved state, early stopping, divergence."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from btkeras.checksums import recorded_file
from btkeras.config import ExperimentConfig, TrainConfig
from btkeras.decisions.finite import is_finite
from btkeras.errors import RunError
from btkeras.logging import logger
from btkeras.models.keras_file import save_network
from btkeras.runs import Run, write_history
from btkeras.training.background import BackgroundWriter
from btkeras.training.callbacks import Logs
from btkeras.training.checkpoint import Progress, save_state, state_of
from btkeras.training.schedules import Schedule


def learning_rate(model: keras.Model, schedule: Schedule) -> float:
    """That of the last step."""
    return float(np.asarray(schedule(int(model.optimizer.iterations.numpy()) - 1)))


def is_better(new: Mapping[str, float], old: Mapping[str, float], monitor: str) -> bool:
    """Whether a checkpoint's validation metrics beat another's; ``monitor`` decides.

    The loss breaks ties, and those of the loss the accuracy.

    Metrics that are not finite beat none.
    """
    if not is_finite(new.values()):
        return False
    if not old:
        return True
    first = monitor.removeprefix("val_")
    names = (first, "accuracy" if first == "loss" else "loss")
    return [old[n] - new[n] if n == "loss" else new[n] - old[n] for n in names] > [0.0, 0.0]


class BestModel(keras.callbacks.Callback):
    """Saves the model, as ``portable``, whenever its validation metrics are the best so far, and all of it is finite.

    Works at the end of a validation and not of an epoch, because that is where averaged weights (EMA) are in place.
    """

    def __init__(
        self, run: Run, portable: keras.Model, progress: Progress, monitor: str, writer: BackgroundWriter
    ) -> None:
        super().__init__()
        self._run, self._portable, self._progress, self._monitor = run, portable, progress, monitor
        self._writer, self._epoch = writer, 0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._epoch = epoch + 1

    def on_test_end(self, logs: Logs = None) -> None:
        metrics = {name: float(value) for name, value in (logs or {}).items()}
        if not is_better(metrics, self._progress.best, self._monitor):
            return
        # Copies: training goes on while they are written.
        values = [np.array(variable) for variable in self.model.variables]
        if not is_finite(values):
            return
        self._writer.give("best", lambda: self._save(values))
        self._progress.best, self._progress.best_epoch = metrics, self._epoch

    def _save(self, values: Sequence[NDArray[Any]]) -> None:
        for variable, value in zip(self._portable.variables, values, strict=True):
            variable.assign(value)
        with recorded_file(self._run.best_model) as temporary:
            save_network(self._portable, temporary)


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

    def __init__(
        self, run: Run, progress: Progress, schedule: Schedule, config: TrainConfig, writer: BackgroundWriter
    ) -> None:
        super().__init__()
        self._run, self._progress, self._schedule, self._config = run, progress, schedule, config
        self._writer = writer

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        metrics = {name: float(value) for name, value in (logs or {}).items()}
        progress = self._progress
        rate, patience = learning_rate(self.model, self._schedule), self._config.early_stopping
        progress.history.append({"epoch": epoch + 1, "learning_rate": rate, **metrics})
        progress.epochs = epoch + 1
        progress.seconds += time.perf_counter() - self._start
        stale = 0 < patience <= progress.epochs - progress.best_epoch
        progress.wanted = self._config.epochs
        progress.finished = stale or progress.epochs == self._config.epochs
        # What a finished training leaves there is three times as large as the model.
        state = state_of(self.model) if self._config.keep_state or not progress.finished else {}
        reached = replace(progress, history=[*progress.history])
        # Behind the best model of the same epoch, which this state names.
        self._writer.give("state", lambda: self._save(state, reached))
        self._writer.start()
        self.model.stop_training = progress.finished

    def _save(self, state: Mapping[str, NDArray[Any]], progress: Progress) -> None:
        # History first: it is made again from the state, should the run die between the two.
        write_history(self._run.history_file, progress.history)
        save_state(self._run.state_file, state, progress)
