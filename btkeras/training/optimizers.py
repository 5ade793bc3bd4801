"""How a training proceeds: the optimizer, the learning rate by step, and the phases by epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from btkeras.config import PATCHES, ExperimentConfig, OptimizerConfig, ScheduleConfig
from btkeras.models.training_layers import one_tensorflow_replica


class _OnePass:
    """Replaces the dozen operations, each a pass over memory, of ``keras.optimizers.Adam.update_step``.

    The same state, and the same formula (Kingma and Ba, "Adam: A Method for Stochastic Optimization", section 2).
    """

    def update_step(self: Any, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        step = tf.cast(self.iterations + 1, tf.float32)
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=_handle(variable),
            m=_handle(self._momentums[index]),
            v=_handle(self._velocities[index]),
            beta1_power=tf.pow(tf.constant(self.beta_1, tf.float32), step),
            beta2_power=tf.pow(tf.constant(self.beta_2, tf.float32), step),
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, tf.float32),
        )


def _handle(variable: Any) -> tf.Tensor:
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle


class FusedAdam(_OnePass, keras.optimizers.Adam):
    """``keras.optimizers.Adam``; Keras allows no leading underscore."""


class FusedAdamW(_OnePass, keras.optimizers.AdamW):
    """``keras.optimizers.AdamW``."""


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
        schedule: Gives the shape.
        epochs: Length of the whole training.
        steps: Training steps per epoch.
    """

    def __init__(self, learning_rate: float, schedule: ScheduleConfig, epochs: int, steps: int) -> None:
        super().__init__()
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


# What Keras has, and what trains faster on one device.
_OPTIMIZERS = {
    "adam": (keras.optimizers.Adam, FusedAdam),
    "adamw": (keras.optimizers.AdamW, FusedAdamW),
    "sgd": (keras.optimizers.SGD, keras.optimizers.SGD),
}


def make_optimizer(config: OptimizerConfig, schedule: Schedule, model: keras.Model) -> keras.optimizers.Optimizer:
    """Makes the optimizer for a model. Only kernels decay, not batch normalisation's scales, nor biases.

    With ``ema`` the model's batch statistics are averaged as long as its weights: those of the last few steps fit the
    last weights alone.
    """
    own: dict[str, Any] = {"momentum": config.momentum, "nesterov": True} if config.name == "sgd" else {}
    optimizer: keras.optimizers.Optimizer = _OPTIMIZERS[config.name][one_tensorflow_replica()](
        learning_rate=schedule,
        # Keras' AdamW takes no None, with which the others leave the decay out.
        weight_decay=config.weight_decay or (0.0 if config.name == "adamw" else None),
        use_ema=config.ema > 0,
        ema_momentum=config.ema or 0.99,
        **own,
    )
    if config.weight_decay:
        optimizer.exclude_from_weight_decay([v for v in model.trainable_variables if v.name != "kernel"])
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = max(layer.momentum, config.ema)
    return optimizer


@dataclass(frozen=True)
class Phase:
    """Epochs, counted from 0; whether all layers learn in them, or the head alone; whether ``cooldown`` holds."""

    epochs: range
    backbone_learns: bool = True
    is_cooldown: bool = False


def phases(config: ExperimentConfig) -> list[Phase]:
    """The phases of a training in their order; together they are all of its epochs."""
    epochs, frozen = config.train.epochs, config.model.frozen_epochs
    cooldown = epochs - config.cooldown.epochs
    return [
        Phase(range(first, last), backbone_learns=first >= frozen, is_cooldown=first >= cooldown)
        for first, last in pairwise(sorted({0, frozen, cooldown, epochs}))
    ]


def cooldown_config(config: ExperimentConfig) -> ExperimentConfig:
    """The configuration of the cool-down."""
    augment, most = config.augment, config.augment.lesion_cutmix
    part = config.cooldown.lesion_cutmix / most if most else 0.0
    shares: dict[str, Any] = {name: part * getattr(augment, name) for name in PATCHES}
    intensity = replace(config.intensity, probability=config.cooldown.intensity)
    return replace(config, augment=replace(augment, **shares), intensity=intensity)
