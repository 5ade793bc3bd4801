"""The process and machine that a training runs in: devices, seeds, determinism."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import keras
import tensorflow as tf

from btkeras.config import TrainConfig


def seed_everything(config: TrainConfig) -> None:
    """Seeds the weights' initialisation; on request makes TensorFlow's operations deterministic.

    The latter holds for the rest of the process: TensorFlow has no way back.
    """
    keras.utils.set_random_seed(config.seed)
    if config.deterministic and keras.backend.backend() == "tensorflow":
        tf.config.experimental.enable_op_determinism()


def strategy_scope() -> contextlib.AbstractContextManager[Any]:
    """All GPUs that TensorFlow sees, when there are several; else a scope that does nothing."""
    several = keras.backend.backend() == "tensorflow" and len(tf.config.list_logical_devices("GPU")) > 1
    strategy = tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy()
    scope: contextlib.AbstractContextManager[Any] = strategy.scope()
    return scope


def describe_device() -> str:
    """The backend and the device that the network runs on, for the manifest."""
    backend = keras.backend.backend()
    return f"{backend}: {_jax_device() if backend == 'jax' else _tensorflow_device()}"


def _jax_device() -> str:
    import jax

    devices = jax.devices()
    return f"{len(devices)} x {devices[0].device_kind}"


def _tensorflow_device() -> str:
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return f"{os.cpu_count()} CPU cores"
    name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    return f"{len(gpus)} x {name}"
