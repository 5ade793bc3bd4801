"""The learning rate by step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import keras
from keras import ops

from btkeras.config import ScheduleConfig
from btkeras.config_rules import positive


def _cosine(config: ScheduleConfig, epoch: Any, progress: Any) -> Any:
    return config.final_fraction + (1 - config.final_fraction) * (1 + ops.cos(math.pi * progress)) / 2


# The fraction of the highest rate, from the epoch (fractional) and the progress 0..1 behind the warm-up.
_SHAPES: dict[str, Callable[[ScheduleConfig, Any, Any], Any]] = {
    "constant": lambda config, epoch, progress: ops.ones_like(progress),
    # The small number keeps a step boundary, which float32 may place a hair below, where it belongs.
    "step": lambda config, epoch, progress: ops.power(config.step_factor, ops.floor(epoch / config.step_epochs + 1e-5)),
    "linear": lambda config, epoch, progress: 1 - (1 - config.final_fraction) * progress,
    "cosine": _cosine,
    "one_cycle": _cosine,
}
_ONE_CYCLE_RISE = 0.3


@keras.saving.register_keras_serializable("btkeras")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule of ``config.SCHEDULES`` with its warm-up.

    Args:
        learning_rate: The highest rate.
        schedule: Gives the shape; a name alone stands for that schedule with its defaults.
        epochs: Length of the whole training.
        steps: Training steps per epoch.

    Raises:
        ConfigError: If there is no such schedule, or a number is not above 0.

    Example:
        >>> import btkeras, keras
        >>> rate = btkeras.training.Schedule(1e-3, "cosine", epochs=10, steps=50)
        >>> [round(float(rate(step)), 6) for step in (0, 250, 500)]
        [0.001, 0.0005, 0.0]
        >>> optimizer = keras.optimizers.Adam(rate)
    """

    def __init__(self, learning_rate: float, schedule: ScheduleConfig | str, epochs: int, steps: int) -> None:
        super().__init__()
        for key, value in (("learning_rate", learning_rate), ("epochs", epochs), ("steps", steps)):
            positive(key, value)
        schedule = ScheduleConfig(schedule) if isinstance(schedule, str) else schedule
        self._peak, self._config, self._epochs, self.steps = learning_rate, schedule, epochs, steps
        rise = _ONE_CYCLE_RISE * epochs if schedule.name == "one_cycle" else 0.0
        self._warmup = min(schedule.warmup_epochs or rise, epochs)

    def __call__(self, step: Any) -> Any:
        """The rate of the given step (0 is the first), a float32 scalar."""
        epoch = ops.cast(step, "float32") / self.steps
        progress = ops.clip((epoch - self._warmup) / max(self._epochs - self._warmup, 1e-9), 0.0, 1.0)
        rate = self._peak * _SHAPES[self._config.name](self._config, epoch, progress)
        if not self._warmup:
            return rate
        # One step ahead, so that the first step already learns.
        rise = ops.minimum((epoch + 1 / self.steps) / self._warmup, 1.0)
        if self._config.name == "one_cycle":
            rise = (1 - ops.cos(math.pi * rise)) / 2
        return ops.where(epoch < self._warmup, self._peak * rise, rate)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as JSON knows them."""
        schedule = asdict(self._config)
        return {"learning_rate": self._peak, "schedule": schedule, "epochs": self._epochs, "steps": self.steps}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Schedule:
        """Rebuilds the schedule from ``get_config``."""
        return cls(**{**config, "schedule": ScheduleConfig(**config["schedule"])})
