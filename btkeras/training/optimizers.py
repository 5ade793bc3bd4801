"""How a training proceeds: the optimizer, and the phases by epoch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import keras
import tensorflow as tf

from btkeras.config import PATCHES, ExperimentConfig, OptimizerConfig
from btkeras.models.training_layers import one_tensorflow_replica
from btkeras.training.schedules import Schedule


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
