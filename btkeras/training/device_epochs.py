"""Whole epochs in one call to the device, under JAX: the images lie in its memory, and batches are made there.

Of several devices each has all images and weights, and computes its part of each batch (data parallelism).
The host sends what is drawn (``pipeline.training_draws``, kilobytes a step) and gets an epoch's metrics; between these
nothing waits for it. The batches are those of ``pipeline.training_batches``, but for the noise's random numbers.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import tensorflow as tf
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from btkeras.augmentation import jitted
from btkeras.augmentation.intensity import NOISE_KEY
from btkeras.augmentation.patches import Patches
from btkeras.config import ExperimentConfig
from btkeras.logging import logger
from btkeras.machine import threads
from btkeras.preprocessing.cache import ImageCache
from btkeras.training.pipeline import SplitImages, steps_per_epoch, training_draws

# Part of the device's memory that images may take.
_MEMORY_FRACTION = 4
# Arrays are filled up to a multiple of so many rows, so that the folds of a cross-validation share what is compiled.
_ROWS = 256
_State = Sequence[Sequence[Array]]
_Draws = Mapping[str, NDArray[Any]]
_Constants = tuple[Array, Array]


def fits(images: SplitImages) -> bool:
    """Whether the training and validation images fit a part of the memory of JAX's GPU, or of each of them."""
    device = jax.devices()[0]
    if device.platform != "gpu":
        return False
    limit = (device.memory_stats() or {}).get("bytes_limit", 0) / _MEMORY_FRACTION
    wanted = sum(math.prod(images.caches[name].images.shape) for name in ("train", "validation"))
    if wanted > limit:
        logger.info(
            f"images of {wanted / 1e6:,.0f} MB exceed a quarter of the GPU's memory, {limit / 1e6:,.0f} MB: "
            f"the processor makes the batches, and one of {jax.device_count()} devices trains"
        )
    return wanted <= limit


class DeviceEpochs:
    """Trains and validates a compiled model whose optimizer is built.

    Attributes:
        examples: The first augmented batch, float32 ``[batch, image_size, image_size, channels]`` in 0..255.
    """

    def __init__(self, model: keras.Model, images: SplitImages, config: ExperimentConfig) -> None:
        self._model, self._images, self._config = model, images, config
        train, validation = images.caches["train"], images.caches["validation"]
        classes, size = len(images.classes), config.train.batch_size
        patches = jax.tree.map(_padded, images.patches)
        data = (_stored(train), _padded(_one_hot(images.labels["train"], classes)), patches)
        self._train_data = jax.device_put(data, _sharding())
        self._validation_data = jax.device_put(_stored(validation), _sharding())
        self._validation_targets = _one_hot(images.labels["validation"], classes)
        self._steps = steps_per_epoch(len(train), size)
        batch = partial(make_batch, channels=train.shape[1], config=config)
        self._train = jax.jit(partial(_train_steps, model, batch), donate_argnums=0)
        self._predict = jax.jit(partial(_predictions, model, size, validation.shape[1]))
        first = {name: value[0] for name, value in next(self._draws(range(1))).items()}
        self.examples = np.asarray(jax.jit(batch)(*self._train_data, first)[0])
        # Makes the variables of the metrics, which Keras does at the first batch.
        self._validation_metrics(self._validation_targets)

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
            logs = self._run_steps(draws)
            every.on_train_batch_end(self._steps - 1, logs)
            every.on_test_begin()
            tested = self._validate()
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

    def _run_steps(self, draws: _Draws) -> dict[str, float]:
        model = self._model
        model.reset_metrics()
        groups = [*_weights(model), model.optimizer.variables, model.metrics_variables]
        state = jax.device_put([[variable.value for variable in group] for group in groups], _sharding())
        inputs = _constants(model), self._train_data, jax.tree.map(_padded, draws)
        state = self._train(state, inputs, self._steps)
        for group, values in zip(groups, state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        return _floats(model.get_metrics_result())

    def _validate(self) -> dict[str, float]:
        weights = [[variable.value for variable in group] for group in _weights(self._model)]
        inputs, count = (weights, _constants(self._model), self._validation_data), len(self._validation_targets)
        return self._validation_metrics(self._predict(inputs, count)[:count])

    def _validation_metrics(self, probabilities: Array) -> dict[str, float]:
        model, targets = self._model, self._validation_targets
        model.reset_metrics()
        loss = model.compute_loss(None, targets, probabilities, training=False)
        metrics = model.compute_metrics(None, targets, probabilities)
        return _floats({**metrics, "loss": loss})


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
    model: keras.Model,
    batch: Callable[..., tuple[Array, Array]],
    state: _State,
    inputs: tuple[_Constants, Sequence[Any], Mapping[str, Array]],
    steps: int,
) -> _State:
    constants, data, draws = inputs

    def step(number: int, before: _State) -> _State:
        drawn = {name: values[number] for name, values in draws.items()}
        # The metrics of the step are not used, and so not computed: those of the epoch are in the state.
        return model.train_step(before, _shared_out(batch(*data, drawn)))[1]

    with _standardized_by(model, constants):
        return jax.lax.fori_loop(0, steps, step, tuple(state))


def _predictions(
    model: keras.Model, size: int, channels: int, inputs: tuple[_State, _Constants, Array], count: int
) -> Array:
    """Probabilities ``[n, classes]`` of the first ``count`` images, in batches of ``size``; of others anything."""
    weights, constants, images = inputs
    size = min(size, len(images))

    def step(number: int, found: Array) -> Array:
        # The last batch begins earlier, where it would end behind the last image.
        first = jnp.minimum(number * size, len(images) - size)
        x = jax.lax.dynamic_slice_in_dim(images, first, size).astype(jnp.float32)
        x = _shared_out(jnp.broadcast_to(x, (*x.shape[:3], channels)))
        probabilities, _ = model.stateless_call(*weights, x, training=False)
        return jax.lax.dynamic_update_slice_in_dim(found, probabilities, first, 0)

    with _standardized_by(model, constants):
        empty = jnp.zeros((len(images), model.output_shape[-1]), jnp.float32)
        return jax.lax.fori_loop(0, -(-count // size), step, empty)


def _shared_out(batch: Any) -> Any:
    """A batch whose parts lie on the devices; whole on each, where there are fewer images than a batch has."""
    axis = () if len(jax.tree.leaves(batch)[0]) % jax.device_count() else ("batch",)
    return jax.lax.with_sharding_constraint(batch, _sharding(*axis))


def _sharding(*axis: str) -> NamedSharding:
    return NamedSharding(Mesh(np.array(jax.devices()), ("batch",)), PartitionSpec(*axis))


@contextlib.contextmanager
def _standardized_by(model: keras.Model, constants: _Constants) -> Iterator[None]:
    """The network with these constants, as inputs of what is compiled: in it they would make another of each fold."""
    layer = _standardize(model)
    before, (layer.mean, layer.variance) = (layer.mean, layer.variance), constants
    try:
        yield
    finally:
        layer.mean, layer.variance = before


def _constants(model: keras.Model) -> _Constants:
    layer = _standardize(model)
    return jnp.asarray(layer.mean), jnp.asarray(layer.variance)


def _standardize(model: keras.Model) -> Any:
    return next(layer for layer in model.layers if isinstance(layer, keras.layers.Normalization))


def _floats(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


def _weights(model: keras.Model) -> list[Sequence[keras.Variable]]:
    return [model.trainable_variables, model.non_trainable_variables]


def _stored(cache: ImageCache) -> Array:
    return _padded(cache.take_stored(np.arange(len(cache))))


def _one_hot(labels: Sequence[int], classes: int) -> Array:
    return jax.nn.one_hot(jnp.asarray(labels), classes)


def _padded(rows: Any) -> Array:
    """With zeros behind, up to a multiple of ``_ROWS``: subsets of much the same size have one shape."""
    return jnp.pad(rows, [(0, -len(rows) % _ROWS), *[(0, 0)] * (np.ndim(rows) - 1)])
