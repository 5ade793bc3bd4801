"""The learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from btkeras.config import OptimizerConfig, ScheduleConfig

# What is left of the peak rate, from the epoch (fractional) and the progress 0..1 behind the warm-up.
_Shape = Callable[[ScheduleConfig, Any, Any], Any]


def _constant(config: ScheduleConfig, epoch: Any, progress: Any) -> Any:
    return ops.ones_like(progress)


def _step(config: ScheduleConfig, epoch: Any, progress: Any) -> Any:
    # The small number keeps a step boundary, which float32 may place a hair below, where it belongs.
    return ops.power(config.step_factor, ops.floor(epoch / config.step_epochs + 1e-5))


def _linear(config: ScheduleConfig, epoch: Any, progress: Any) -> Any:
    return 1 - (1 - config.final_fraction) * progress


def _cosine(config: ScheduleConfig, epoch: Any, progress: Any) -> Any:
    return config.final_fraction + (1 - config.final_fraction) * (1 + ops.cos(math.pi * progress)) / 2


_SHAPES: dict[str, _Shape] = {
    "constant": _constant,
    "step": _step,
    "linear": _linear,
    "cosine": _cosine,
    "one_cycle": _cosine,
}
_ONE_CYCLE_RISE = 0.3


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule of ``config.SCHEDULES`` with its warm-up.

    Args:
        optimizer: Gives the peak rate.
        schedule: Gives the shape.
        epochs: Length of the whole training.
        steps: Training steps per epoch.
    """

    def __init__(self, optimizer: OptimizerConfig, schedule: ScheduleConfig, epochs: int, steps: int) -> None:
        super().__init__()
        self._peak = optimizer.learning_rate
        self._config = schedule
        self._epochs = epochs
        self._steps = steps
        rise = _ONE_CYCLE_RISE * epochs if schedule.name == "one_cycle" else 0.0
        self._warmup = min(schedule.warmup_epochs or rise, epochs)

    def __call__(self, step: Any) -> Any:
        """The rate of the given step (0 is the first), a float32 scalar."""
        epoch = ops.cast(step, "float32") / self._steps
        progress = ops.clip((epoch - self._warmup) / max(self._epochs - self._warmup, 1e-9), 0.0, 1.0)
        rate = self._peak * _SHAPES[self._config.name](self._config, epoch, progress)
        if not self._warmup:
            return rate
        # One step ahead, so that the first step already learns.
        rise = ops.minimum((epoch + 1 / self._steps) / self._warmup, 1.0)
        if self._config.name == "one_cycle":
            rise = (1 - ops.cos(math.pi * rise)) / 2
        return ops.where(epoch < self._warmup, self._peak * rise, rate)

    def get_config(self) -> dict[str, Any]:
        """Not serialisable: a run's optimizer is rebuilt from its configuration."""
        raise NotImplementedError("Models are saved without their optimizer")
