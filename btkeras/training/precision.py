"""Which dtype policy to train under."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from btkeras.models.reparameterize import reparameterize

# bfloat16 must be so much faster before it replaces float32: below that, noise decides.
_WORTHWHILE = 1.1


@dataclass(frozen=True)
class Precision:
    """Attributes:
    policy: Keras dtype policy.
    reason: Why, in words.
    """

    policy: str
    reason: str


@contextlib.contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Sets the global Keras dtype policy and restores it afterwards."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def resolve_precision(requested: str) -> Precision:
    """Turns ``auto`` into the policy that suits the device; other names stay what they are."""
    if requested != "auto":
        return Precision(requested, "as configured")
    capability = _gpu_capability()
    if capability is not None:
        return _for_gpu(capability)
    if keras.backend.backend() != "tensorflow":
        return Precision("float32", "no GPU, and only TensorFlow's CPU kernels are measured")
    if not _cpu_has_bfloat16():
        return Precision("float32", "the processor has no bfloat16 instructions")
    speedup = measure_bfloat16_speedup()
    policy = "mixed_bfloat16" if speedup >= _WORTHWHILE else "float32"
    return Precision(policy, f"bfloat16 was measured {speedup:.2f} times as fast as float32 on this processor")


def _for_gpu(capability: tuple[int, int]) -> Precision:
    version = f"{capability[0]}.{capability[1]}"
    if capability >= (8, 0):
        return Precision("mixed_bfloat16", f"the GPU (compute capability {version}) has bfloat16")
    if capability >= (7, 0):
        return Precision("mixed_float16", f"the GPU (compute capability {version}) has float16, not bfloat16")
    return Precision("float32", f"the GPU (compute capability {version}) has no fast 16-bit arithmetic")


def _gpu_capability() -> tuple[int, int] | None:
    """Compute capability of the first GPU that the backend sees."""
    if keras.backend.backend() == "jax":
        import jax

        device = jax.devices()[0]
        if device.platform != "gpu":
            return None
        major, _, minor = str(device.compute_capability).partition(".")
        return int(major), int(minor or 0)
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return None
    capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
    return int(capability[0]), int(capability[1])


def _cpu_has_bfloat16() -> bool:
    info = Path("/proc/cpuinfo")
    flags = info.read_text(encoding="utf-8", errors="replace") if info.is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def measure_bfloat16_speedup(rounds: int = 5) -> float:
    """Time of a float32 training step over that of a bfloat16 one, for a small stack of convolutions (about 2 s).

    Interleaved medians, because other work on the machine comes and goes.
    """
    steps = {policy: _measured_step(policy) for policy in ("float32", "mixed_bfloat16")}
    times: dict[str, list[float]] = {policy: [] for policy in steps}
    for _ in range(rounds):
        for policy, step in steps.items():
            start = time.perf_counter()
            step()
            times[policy].append(time.perf_counter() - start)
    return float(np.median(times["float32"]) / np.median(times["mixed_bfloat16"]))


def _measured_step(policy: str) -> tf.types.experimental.GenericFunction:
    with dtype_policy(policy):
        inputs = keras.Input((28, 28, 128))
        x = inputs
        for _ in range(3):
            x = keras.layers.Conv2D(128, 3, padding="same", use_bias=False)(x)
            x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
        model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D(dtype="float32")(x))
        model = reparameterize(model, trainable=True)
    images = tf.random.stateless_uniform((32, 28, 28, 128), (0, 0))

    @tf.function
    def step() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(images, training=True))
        gradients: list[tf.Tensor] = tape.gradient(loss, model.trainable_variables)
        return gradients

    step()
    return step
