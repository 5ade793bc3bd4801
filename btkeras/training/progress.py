"""The progress line of a training."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import keras
from tqdm import tqdm

from btkeras.console import duration


class ProgressLine(keras.callbacks.Callback):
    """A moving line while an epoch runs (on a terminal), and a line for each finished epoch, on standard error.

    Args:
        epochs: Length of the whole training.
        steps: Steps per epoch.
        batch_size: Pictures per step.
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
