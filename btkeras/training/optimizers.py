"""The optimizer that a configuration asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from btkeras.config import OptimizerConfig
from btkeras.training.fused_adam import FusedAdam, FusedAdamW
from btkeras.training.runtime import one_tensorflow_replica
from btkeras.training.schedules import Schedule

_MAKERS: dict[str, Callable[..., keras.optimizers.Optimizer]] = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
}
_FUSED: dict[str, Callable[..., keras.optimizers.Optimizer]] = {"adam": FusedAdam, "adamw": FusedAdamW}


def make_optimizer(config: OptimizerConfig, schedule: Schedule, model: keras.Model) -> keras.optimizers.Optimizer:
    """Builds the optimizer for a model, its slots included.

    Only kernels decay: pulling batch normalisation's scales or biases to zero changes the function for no gain.
    """
    own: dict[str, Any] = {"momentum": config.momentum, "nesterov": True} if config.name == "sgd" else {}
    makers = _MAKERS | _FUSED if one_tensorflow_replica() else _MAKERS
    optimizer = makers[config.name](
        learning_rate=schedule,
        weight_decay=config.weight_decay or None,
        use_ema=config.ema > 0,
        ema_momentum=config.ema or 0.99,
        **own,
    )
    if config.weight_decay:
        optimizer.exclude_from_weight_decay([v for v in model.trainable_variables if v.name != "kernel"])
    return optimizer
