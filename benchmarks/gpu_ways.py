"""What ``benchmarks.gpu`` measures, each in a process of its own: ``rounds.Engine``'s functions.

A call makes some steps, or multiplications, and ends when the device has done them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Call = Callable[[Any], NDArray[np.float32]]
Found = tuple[Call, dict[str, Any]]
# Rows of the matrices, and float32 numbers of the vector: on a GPU, and on a processor.
_SIDES = {True: 8192, False: 512}
_LENGTHS = {True: 2**28, False: 2**20}
_REPEATS = 10


def matrices() -> Found:
    """Products of large bfloat16 matrices; ``work`` is multiply-accumulates."""
    import keras

    side = _SIDES[_has_gpu()]
    # Of this deviation products keep their size, and so their bits change as much as others' do.
    values = keras.random.normal((side, side), stddev=side**-0.5, dtype="bfloat16", seed=0)
    first = keras.random.normal((side, side), dtype="bfloat16", seed=1)
    return _repeated(lambda x: keras.ops.matmul(x, values), first), {"work": _REPEATS * side**3}


def memory() -> Found:
    """A sum with a long vector; ``work`` is bytes read and written."""
    import keras

    length = _LENGTHS[_has_gpu()]
    return _repeated(lambda x: x + 1.0, keras.ops.zeros(length)), {"work": _REPEATS * 8 * length}


def _repeated(change: Callable[[Any], Any], first: Any) -> Call:
    import keras

    def call(_: Any) -> NDArray[np.float32]:
        x = first
        for _ in range(_REPEATS):
            x = change(x)
        # One number: the device has done all before it.
        found: NDArray[np.float32] = keras.ops.convert_to_numpy(keras.ops.cast(x[:1], "float32"))
        return found

    return call


def keras_steps(network: str, size: int, channels: int, batch: int, steps: int, *, ours: bool) -> Found:
    """Training steps on one batch that lies on the device: of the network as Keras has it, or as btkeras trains it."""
    import keras

    from btkeras.config import OptimizerConfig, ScheduleConfig, TrainConfig
    from btkeras.models import build_model, count_macs
    from btkeras.models.reparameterize import reparameterize
    from btkeras.training import device
    from btkeras.training.optimizers import make_optimizer
    from btkeras.training.schedules import Schedule

    device.keep_compiled()
    precision = device.resolve_precision(TrainConfig().precision)["precision"]
    with device.dtype_policy(precision):
        model = build_model(network, input_shape=(size, size, channels), mean=50.0, variance=2500.0)
        macs = count_macs(model)
        if ours:
            model = reparameterize(model, grey=True, trainable=True)
    config = OptimizerConfig()
    schedule = Schedule(config.learning_rate, ScheduleConfig(), epochs=1, steps=1)
    optimizer = make_optimizer(config, schedule, model) if ours else keras.optimizers.Adam(config.learning_rate)
    model.compile(optimizer, keras.losses.CategoricalCrossentropy())
    grey = np.random.default_rng(0).uniform(0, 255, (batch, size, size, 1)).astype(np.float32)
    images, labels = np.repeat(grey, channels, axis=-1), np.eye(4, dtype=np.float32)[np.arange(batch) % 4]
    step = _jax_step(model, images, labels) if keras.backend.backend() == "jax" else _tf_step(model, images, labels)

    def call(_: Any) -> NDArray[np.float32]:
        losses = [step() for _ in range(steps)]
        return np.array([losses[-1]], np.float32)

    call(None)
    return call, {"precision": precision, "macs": macs, **_device_memory()}


def _jax_step(model: Any, images: NDArray[np.float32], labels: NDArray[np.float32]) -> Callable[[], Any]:
    import jax

    batch = jax.device_put((images, labels))
    # Makes the variables of optimizer and metrics.
    model.optimizer.build(model.trainable_variables)
    model.compute_metrics(None, batch[1], batch[1])
    groups = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    state = [[variable.value for variable in group] for group in groups]
    compiled = jax.jit(model.train_step, donate_argnums=0)

    def step() -> Any:
        nonlocal state
        logs, state = compiled(state, batch)
        return logs["loss"]

    return step


def _tf_step(model: Any, images: NDArray[np.float32], labels: NDArray[np.float32]) -> Callable[[], Any]:
    import tensorflow as tf

    batch = tf.constant(images), tf.constant(labels)
    train = tf.function(model.train_step, autograph=False)
    model.optimizer.build(model.trainable_variables)
    return lambda: train(batch)["loss"]


def torch_steps(network: str, size: int, channels: int, batch: int, steps: int, *, compiled: bool) -> Found:
    """As ``keras_steps`` for PyTorch's twin of the network."""
    import torch

    from benchmarks.torch_steps import Case, torch_step

    name = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    step = torch_step(Case(network, size, channels, batch), "bfloat16", compiled=compiled, device=name)

    def call(_: Any) -> NDArray[np.float32]:
        losses = [step() for _ in range(steps)]
        return np.array([float(losses[-1])], np.float32)

    call(None)
    peak = torch.cuda.max_memory_allocated() if name == "cuda" else None
    return call, {"precision": "bfloat16 by autocast", "device_memory_mb": peak and round(peak / 1e6)}


def training(network: str, size: int, channels: int, batch: int, images: int, epochs: int) -> Found:
    """``btkeras train`` itself, on drawn slices; the load is a training of one epoch, which compiles.

    A call gives images a second: within an epoch's steps, and all in, over ``epochs`` epochs with their validations
    and what is written at their ends.
    """
    from benchmarks.scale import make_dataset

    folder = tempfile.TemporaryDirectory()
    data = Path(folder.name) / "data"
    make_dataset(data, images, size)
    settings = {"model.name": network, "data.image_size": size, "data.channels": channels, "train.batch_size": batch}

    def call(_: Any, epochs: int = epochs) -> NDArray[np.float32]:
        with tempfile.TemporaryDirectory(dir=folder.name) as out:
            return _train(data, Path(out) / "run", {**settings, "train.epochs": epochs + 2})

    _train(data, Path(folder.name) / "first", {**settings, "train.epochs": 1})
    return call, _device_memory()


def _train(data: Path, out: Path, settings: dict[str, object]) -> NDArray[np.float32]:
    from btkeras.config_io import load_config
    from btkeras.datasets.dataset import load_dataset
    from btkeras.training import trainer

    ends: list[float] = []
    within: list[float] = []

    class Times(trainer.ProgressLine):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            ends.append(time.perf_counter())
            within.append(self.images_per_second())
            super().on_epoch_end(epoch, logs)

    before, trainer.ProgressLine = trainer.ProgressLine, Times  # type: ignore[misc]
    try:
        config = load_config(Path("configs/paper.yaml"), [f"{name}={value}" for name, value in settings.items()])
        run = trainer.train(config, load_dataset(data), out)
    finally:
        trainer.ProgressLine = before  # type: ignore[misc]
    # The first epoch compiles, and behind the last one no state is written.
    counted = len(ends) - 2
    if counted < 1:
        return np.zeros(2, np.float32)
    all_in = run.manifest()["images_per_epoch"] * counted / (ends[-2] - ends[0])
    return np.array([np.median(within[1:-1]), all_in], np.float32)


def _has_gpu() -> bool:
    from btkeras.training import device

    return device.gpu_capability() is not None


def _device_memory() -> dict[str, Any]:
    """Most memory that was used of the device, and its name."""
    import keras

    from btkeras.training import device

    peak = None
    if keras.backend.backend() == "jax":
        import jax

        peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return {"device": device.describe_device(), "device_memory_mb": peak and round(peak / 1e6)}
