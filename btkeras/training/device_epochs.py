"""Whole epochs in one call to the device, under JAX: the images lie in its memory, and batches are made there.

The host sends what is drawn (``pipeline.training_draws``, kilobytes a step) and gets an epoch's metrics; between these
nothing waits for it. The batches are those of ``pipeline.training_batches``, but for the noise's random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import tensorflow as tf
from jax import Array
from numpy.typing import NDArray

from btkeras.augmentation import jitted
from btkeras.augmentation.intensity import NOISE_KEY
from btkeras.augmentation.patches import Patches
from btkeras.config import ExperimentConfig
from btkeras.machine import threads
from btkeras.preprocessing.cache import ImageCache
from btkeras.training.pipeline import SplitImages, steps_per_epoch, training_draws

# Part of the device's memory that images may take.
_MEMORY_FRACTION = 4
_State = Sequence[Sequence[Array]]
_Draws = Mapping[str, NDArray[Any]]


def fits(images: SplitImages) -> bool:
    """Whether the training and validation images fit a part of the memory of JAX's one GPU."""
    devices = jax.devices()
    if len(devices) != 1 or devices[0].platform != "gpu":
        return False
    limit = (devices[0].memory_stats() or {}).get("bytes_limit", 0)
    wanted = [images.caches[name].images for name in ("train", "validation")]
    return sum(int(np.prod(each.shape)) for each in wanted) <= limit / _MEMORY_FRACTION


class DeviceEpochs:
    """Trains and validates a compiled model whose optimizer is built.

    Attributes:
        examples: The first augmented batch, float32 ``[batch, image_size, image_size, channels]`` in 0..255.
    """

    def __init__(self, model: keras.Model, images: SplitImages, config: ExperimentConfig) -> None:
        self._model, self._images, self._config = model, images, config
        train, validation = images.caches["train"], images.caches["validation"]
        classes, size = len(images.classes), config.train.batch_size
        patches = jax.tree.map(jnp.asarray, images.patches)
        self._train_data = (_stored(train), _one_hot(images.labels["train"], classes), patches)
        self._validation_data = _in_batches(
            _stored(validation), _one_hot(images.labels["validation"], classes), min(size, len(validation))
        )
        self._steps = steps_per_epoch(len(train), size)
        batch = partial(make_batch, channels=train.shape[1], config=config)
        self._train = jax.jit(partial(_train_steps, model, batch), donate_argnums=0)
        self._validate = jax.jit(partial(_test_steps, model, validation.shape[1]))
        first = {name: value[0] for name, value in next(self._draws(range(1))).items()}
        self.examples = np.asarray(jax.jit(batch)(*self._train_data, first)[0])
        _build_metrics(model, classes)

    def fit(self, epochs: range, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        """As ``keras.Model.fit``, of which callbacks see the beginning and the end of epochs and validations."""
        model = self._model
        every = keras.callbacks.CallbackList(
            callbacks, model=model, add_history=False, epochs=epochs.stop, steps=self._steps, verbose=0
        )
        model.stop_training = False
        every.on_train_begin()
        for epoch, draws in zip(epochs, self._draws(epochs), strict=True):
            every.on_epoch_begin(epoch)
            logs = self._run(self._train, [*_weights(model), model.optimizer.variables], self._train_data, draws)
            every.on_train_batch_end(self._steps - 1, logs)
            every.on_test_begin()
            tested = self._run(self._validate, _weights(model), *self._validation_data)
            every.on_test_end(tested)
            every.on_epoch_end(epoch, logs | {f"val_{name}": value for name, value in tested.items()})
            if model.stop_training:
                break
        every.on_train_end()

    def _draws(self, epochs: range) -> Iterator[_Draws]:
        """What is drawn of an epoch's steps, one behind another; drawn while the epoch before it is trained."""
        numbers = tf.data.Dataset.range(epochs.start * self._steps, epochs.stop * self._steps)
        draw = partial(training_draws, self._images, self._config)
        drawn = numbers.map(draw, num_parallel_calls=threads(), deterministic=True).batch(self._steps).prefetch(1)
        for each in drawn.as_numpy_iterator():
            # JAX has no int64.
            yield {name: v.astype(np.uint32) if name == NOISE_KEY else v for name, v in each.items()}

    def _run(
        self, steps: Callable[..., tuple[Any, _State]], variables: Sequence[Sequence[Any]], *data: Any
    ) -> dict[str, float]:
        self._model.reset_metrics()
        groups = [*variables, self._model.metrics_variables]
        metrics, state = steps([[variable.value for variable in group] for group in groups], *data)
        for group, values in zip(groups, state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        return {name: float(value) for name, value in metrics.items()}


def make_batch(
    images: Array,
    targets: Array,
    patches: Patches | None,
    draws: Mapping[str, Array],
    *,
    channels: int,
    config: ExperimentConfig,
) -> tuple[Array, Array]:
    """A batch of ``pipeline.training_batches``.

    Args:
        images: All training images as they are stored, uint8 ``[n, side, side, 1 or channels]``.
        targets: float32 ``[n, classes]``.
        patches: Of the training images.
        draws: Of ``pipeline.training_draws``.
        channels: Of the result.
        config: What is done to the images.
    """
    indices = draws["indices"].astype(jnp.int32)
    x, y = images[indices], targets[indices]
    if patches is not None:
        x, y = _patched(images, patches, draws["patches"], x, y)
    x = jitted.augment(x, draws["geometry"], config.data.image_size, config.augment)
    x = jnp.broadcast_to(x, (*x.shape[:3], channels))
    return jitted.augment_intensity(x, draws, config.intensity), y


def _patched(images: Array, patches: Patches, rows: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """Images and targets with the patches of these rows (-1: none)."""
    chosen, rows = rows >= 0, jnp.maximum(rows, 0)
    sources = images[patches.sources[rows]]
    sources = jnp.where(patches.mirrored[rows][:, None, None, None], sources[:, :, ::-1], sources)
    pasted = jitted.paste(x, sources, patches.boxes[rows])
    labels = jax.nn.one_hot(patches.labels[rows], y.shape[1])
    return jnp.where(chosen[:, None, None, None], pasted, x), jnp.where(chosen[:, None], labels, y)


def _train_steps(
    model: keras.Model, batch: Callable[..., tuple[Array, Array]], state: _State, data: Sequence[Any], draws: Any
) -> tuple[Any, _State]:
    def step(before: _State, drawn: Any) -> tuple[_State, Any]:
        metrics, after = model.train_step(before, batch(*data, drawn))
        return after, metrics

    state, metrics = jax.lax.scan(step, tuple(state), draws)
    return {name: values[-1] for name, values in metrics.items()}, state


def _test_steps(
    model: keras.Model, channels: int, state: _State, full: Sequence[Array], rest: Sequence[Array]
) -> tuple[Any, _State]:
    def step(before: _State, pair: Sequence[Array]) -> tuple[_State, Any]:
        x = jnp.broadcast_to(pair[0].astype(jnp.float32), (*pair[0].shape[:3], channels))
        metrics, after = model.test_step(before, (x, pair[1]))
        return after, metrics

    state, metrics = jax.lax.scan(step, tuple(state), tuple(full))
    last = {name: values[-1] for name, values in metrics.items()}
    if len(rest[0]):
        state, last = step(state, rest)
    return last, state


def _weights(model: keras.Model) -> list[Sequence[keras.Variable]]:
    return [model.trainable_variables, model.non_trainable_variables]


def _build_metrics(model: keras.Model, classes: int) -> None:
    """Makes the variables of the metrics, which Keras does at the first batch."""
    pairs = jnp.full((1, classes), 1 / classes)
    model.compute_metrics(None, pairs, pairs)


def _stored(cache: ImageCache) -> Array:
    return jnp.asarray(cache.take_stored(np.arange(len(cache))))


def _one_hot(labels: Sequence[int], classes: int) -> Array:
    return jax.nn.one_hot(jnp.asarray(labels), classes)


def _in_batches(images: Array, targets: Array, size: int) -> tuple[Sequence[Array], Sequence[Array]]:
    """Full batches ``[batches, size, ...]``, and the rest."""
    end = len(images) // size * size
    full = [each[:end].reshape(-1, size, *each.shape[1:]) for each in (images, targets)]
    return full, [images[end:], targets[end:]]
