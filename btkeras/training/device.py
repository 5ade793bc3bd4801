"""The device that a network is trained on: replicas, seeds, and the dtype policy that suits it."""

from __future__ import annotations

import contextlib
import functools
import os
import timeit
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from btkeras.config import TrainConfig
from btkeras.logging import logger
from btkeras.machine import cache_folder, has_instructions
from btkeras.models.reparameterize import reparameterize

# bfloat16 must be so much faster before it replaces float32: below that, noise decides.
_MIN_SPEEDUP = 1.1
# Most steps in one call: between calls progress is shown, and Ctrl-C is heard.
_MAX_STEPS = 200
# Least compute capability of an NVIDIA GPU; its policy, and the reason.
_GPU_POLICIES = (
    ((8, 0), ("mixed_bfloat16", "has bfloat16")),
    ((7, 0), ("mixed_float16", "has float16, not bfloat16")),
    ((0, 0), ("float32", "has no fast 16-bit arithmetic")),
)


def seed_everything(config: TrainConfig) -> None:
    """Seeds the weights' initialisation; on request makes TensorFlow deterministic for the rest of the process."""
    keras.utils.set_random_seed(config.seed)
    if config.deterministic and keras.backend.backend() == "tensorflow":
        tf.config.experimental.enable_op_determinism()


def strategy_scope() -> contextlib.AbstractContextManager[Any]:
    """All GPUs that TensorFlow sees, when there are several; else a scope that does nothing."""
    several = keras.backend.backend() == "tensorflow" and len(accelerators()) > 1
    strategy = _mirrored() if several else tf.distribute.get_strategy()
    scope: contextlib.AbstractContextManager[Any] = strategy.scope()
    return scope


@functools.cache
def _mirrored() -> tf.distribute.Strategy:
    # One in a process: freezing compiles in the scope that the variables were made in.
    return tf.distribute.MirroredStrategy([each.name for each in accelerators()])


def accelerators() -> list[Any]:
    """TensorFlow's GPUs."""
    found: list[Any] = tf.config.list_logical_devices("GPU")
    return found


def steps_per_call(steps: int) -> int:
    """Training steps that TensorFlow makes on its one GPU in one call: all of an epoch's, or a part of a long epoch's.

    Otherwise one, since the call costs nothing beside a step on a processor.
    """
    # Keras' loop (3.15) fails under MirroredStrategy.
    looped = keras.backend.backend() == "tensorflow" and len(accelerators()) == 1
    # Divided evenly, because Keras would go on into the next epoch.
    return max(n for n in range(1, _MAX_STEPS + 1) if steps % n == 0) if looped else 1


def describe_device() -> str:
    """The backend and the device that the network runs on, for the manifest."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return f"jax: {len(jax.devices())} x {jax.devices()[0].device_kind}"
    if not (gpus := tf.config.list_physical_devices("GPU")):
        return f"{backend}: {os.cpu_count()} CPU cores"
    return f"{backend}: {len(gpus)} x {tf.config.experimental.get_device_details(gpus[0]).get('device_name', 'GPU')}"


def keep_compiled() -> None:
    """Keeps what XLA compiles for a GPU under JAX in btkeras' cache folder, for later processes."""
    if keras.backend.backend() != "jax":
        return
    import jax

    if jax.default_backend() == "gpu" and not jax.config.jax_compilation_cache_dir:
        folder = cache_folder() / "xla"
        jax.config.update("jax_compilation_cache_dir", str(folder))
        logger.info(f"compiled programs are kept in {folder}; JAX_COMPILATION_CACHE_DIR names another folder")


@contextlib.contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Sets the global Keras dtype policy and restores it afterwards."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def resolve_precision(requested: str) -> dict[str, str]:
    """A run's dtype policy, ``precision``, and ``precision_reason``; ``auto`` takes what suits the device."""
    policy, reason = (requested, "as configured") if requested != "auto" else _best_policy()
    return {"precision": policy, "precision_reason": reason}


def _best_policy() -> tuple[str, str]:
    if (capability := gpu_capability()) is not None:
        policy, reason = next(found for least, found in _GPU_POLICIES if capability >= least)
        return policy, f"the GPU (compute capability {capability[0]}.{capability[1]}) {reason}"
    if keras.backend.backend() != "tensorflow":
        return "float32", "no GPU, and only TensorFlow's CPU kernels are measured"
    if not has_instructions("bfloat16"):
        return "float32", "the processor has no bfloat16 instructions"
    speedup = measure_bfloat16_speedup()
    policy = "mixed_bfloat16" if speedup >= _MIN_SPEEDUP else "float32"
    return policy, f"bfloat16 was measured {speedup:.2f} times as fast as float32 on this processor"


def gpu_capability() -> tuple[int, int] | None:
    """Compute capability of the first GPU that the backend sees; None where it sees none."""
    if keras.backend.backend() == "jax":
        import jax

        device = jax.devices()[0]
        if device.platform != "gpu":
            return None
        major, _, minor = str(device.compute_capability).partition(".")
        return int(major), int(minor or 0)
    if not (gpus := tf.config.list_physical_devices("GPU")):
        return None
    major, minor = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
    return int(major), int(minor)


def measure_bfloat16_speedup(rounds: int = 5) -> float:
    """Time of a float32 training step over that of a bfloat16 one, for a small stack of convolutions (about 2 s)."""
    # Interleaved medians, because other work on the machine comes and goes.
    steps = [_measured_step(policy) for policy in ("float32", "mixed_bfloat16")]
    seconds = np.median([[timeit.timeit(step, number=1) for step in steps] for _ in range(rounds)], axis=0)
    return float(seconds[0] / seconds[1])


def _measured_step(policy: str) -> Callable[[], Any]:
    with dtype_policy(policy):
        inputs = x = keras.Input((28, 28, 128))
        for _ in range(3):
            x = keras.layers.Conv2D(128, 3, padding="same", use_bias=False)(x)
            x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
        model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D(dtype="float32")(x))
        model = reparameterize(model, trainable=True)
    images = tf.random.stateless_uniform((32, 28, 28, 128), (0, 0))

    @tf.function
    def step() -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(images, training=True))
        return tape.gradient(loss, model.trainable_variables)

    step()
    return step
