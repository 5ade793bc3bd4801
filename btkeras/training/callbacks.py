"""Callbacks for any ``fit``: progress in a line an epoch, and batch statistics that all replicas share."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from btkeras.logging import duration, logger

Logs = Mapping[str, float] | None
register = keras.saving.register_keras_serializable("btkeras")


class ConfiguredCallback(keras.callbacks.Callback):
    """A callback that ``keras.saving.serialize_keras_object`` and its opposite know: its arguments are its config."""

    def get_config(self) -> dict[str, Any]:
        """The arguments, from which ``from_config`` makes the same callback."""
        return {}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ConfiguredCallback:
        """Makes the callback of a config."""
        return cls(**config)


class TimedEpochs(ConfiguredCallback):
    """Measures how long an epoch trains until its validation, if there is one, begins."""

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size
        self._starts: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._starts.append(time.perf_counter())
        self._batches, self._trained = 0, 0.0

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._batches = batch + 1

    def on_test_begin(self, logs: Logs = None) -> None:
        self._trained = time.perf_counter()

    def images_per_second(self) -> float:
        """Of the epoch that has just ended."""
        trained = self._trained or time.perf_counter()
        return self._batches * self.batch_size / (trained - self._starts[-1])

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"batch_size": self.batch_size}


@register
class ProgressLine(TimedEpochs):
    """A moving line while an epoch runs (on a terminal), and a line for each finished epoch, in the log of btkeras.

    Takes the place of what ``fit`` prints without ``verbose=0``.

    Args:
        batch_size: Images of a step, all devices together.
        epochs: Length of the whole training, if several calls of ``fit`` share it; by default that of the call.
        metrics: Which of the logs the lines show; all by default.

    Example:
        >>> import btkeras
        >>> callback = btkeras.training.ProgressLine(batch_size=32)
        >>> # model.fit(batches, epochs=10, verbose=0, callbacks=[callback])
    """

    def __init__(self, batch_size: int, epochs: int | None = None, metrics: Sequence[str] | None = None) -> None:
        super().__init__(batch_size)
        self.epochs, self.metrics = epochs, metrics

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        super().on_epoch_begin(epoch)
        # Keras does not know how long the first epoch of some datasets is.
        steps, name = self.params.get("steps"), f"epoch {epoch + 1}/{self.epochs or self.params['epochs']}"
        total = steps and steps * self.batch_size
        self._bar = tqdm(total=total, desc=name, unit=" images", file=sys.stderr, leave=False, disable=None)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        super().on_train_batch_end(batch)
        if not self._bar.disable:
            self._bar.set_postfix(self._shown(logs, "{:.3f}"), refresh=False)
            self._bar.update((batch + 1) * self.batch_size - self._bar.n)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self._bar.close()
        epochs = self.epochs or self.params["epochs"]
        # The first epoch holds the graph's tracing: it is left out of the forecast as soon as there is another.
        timed = self._starts[1:] or self._starts
        left = (time.perf_counter() - timed[0]) / len(timed) * (epochs - epoch - 1)
        metrics = "  ".join(f"{name} {value}" for name, value in self._shown(logs, "{:.4f}").items())
        speed = f"{self.images_per_second():.0f} images/s"
        logger.info(f"epoch {epoch + 1}/{epochs}  {metrics}  {speed}  {duration(left)} left")

    def _shown(self, logs: Logs, number: str) -> dict[str, str]:
        logs = logs or {}
        names = logs if self.metrics is None else [name for name in self.metrics if name in logs]
        return {name: number.format(logs[name]) for name in names}

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return super().get_config() | {"epochs": self.epochs, "metrics": self.metrics and [*self.metrics]}


@register
class ReplicaMean(ConfiguredCallback):
    """Gives all replicas the mean of their batch statistics before a validation.

    Under ``MirroredStrategy`` Keras (3.15) leaves each replica its own, validates with these, and saves the first's.
    """

    def on_test_begin(self, logs: Logs = None) -> None:
        for variable in self.model.non_trainable_variables:
            values = getattr(variable.value, "values", ())
            if len(values) > 1 and variable.dtype == "float32":
                variable.assign(np.mean([np.asarray(each) for each in values], axis=0))
