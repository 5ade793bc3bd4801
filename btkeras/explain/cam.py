"""Class activation maps of a network, each cell of a feature map drawn where it lies in the image.

Maps explain the class's logit, not its probability, which hardly changes where the network is confident. A cell lies at
the centre of its receptive field (Araujo et al. 2019, "Computing receptive fields of convolutional neural networks",
Distill), which plain enlarging misses: by 13 pixels for the 4 x 4 map of a 112-pixel image after five strides of two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from btkeras.errors import ModelError
from btkeras.explain.methods import DEFAULT_METHOD, Cam, Floats, Indices, Occlusion, method_of, occlude, to_one
from btkeras.models.averaging import members
from btkeras.models.head import logits_network

_CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)
# Their outputs are images, or a map with a margin.
_NO_FEATURES = (layers.InputLayer, layers.Normalization, layers.ZeroPadding2D)
_POOLINGS = (layers.MaxPooling2D, layers.AveragePooling2D)
# Images at a time: the gradients need all feature maps of each.
_BATCH = 16


def explain(model: keras.Model, images: NDArray[np.generic], classes: Indices, method: str = DEFAULT_METHOD) -> Floats:
    """Makes a map for each image, by one of ``METHODS``.

    Args:
        model: From ``build_model``, with or without a temperature.
        images: ``[n, height, width, channels]`` as the network takes them, values 0..255.
        classes: ``[n]`` index of the class to explain.
        method: Its name.

    Returns:
        float32 ``[n, height, width]``, the largest value of each map 1; all 0 where nothing supports the class.

    Raises:
        ConfigError: If there is no such method.
        ModelError: If it needs gradients and Keras' backend is not TensorFlow, or the network has no stages.
    """
    return explainer(model, method)(images, classes)


def explainer(model: keras.Model, method: str = DEFAULT_METHOD) -> Callable[[NDArray[np.generic], Indices], Floats]:
    """``explain`` of one network, whose graph of gradients is built once; errors as there.

    The maps of an average are the mean of its networks', of the image as it is.
    """
    chosen = method_of(method)
    if isinstance(chosen, Occlusion):
        return lambda images, classes: occlude(model.predict_on_batch, np.asarray(images, np.float32), classes, chosen)
    networks = [_CamNetwork(one, chosen) for one in members(model) or [model]]
    return lambda images, classes: to_one(np.mean([network(images, classes) for network in networks], axis=0))


class _CamNetwork:
    """Class activation maps of a network by some of its stages."""

    def __init__(self, model: keras.Model, cam: Cam) -> None:
        if keras.backend.backend() != "tensorflow":
            raise ModelError(
                f"{cam.title} needs TensorFlow's gradients",
                received=f"Keras on {keras.backend.backend()}",
                remedy="Set KERAS_BACKEND=tensorflow, or take the method occlusion",
            )
        network = logits_network(model)
        found = stages(network)
        if not found:
            raise ModelError("A network must have feature maps to be explained", received=model.name)
        self._cam = cam
        self._stages: list[Stage] = [stage for i, stage in enumerate(found) if i in cam.stages]
        outputs = [*(stage.tensor for stage in self._stages), network.output]
        self._gradients = _gradients(keras.Model(network.input, outputs))

    def __call__(self, images: NDArray[np.generic], classes: Indices) -> Floats:
        pixels = np.asarray(images, np.float32)
        batches = [slice(start, start + _BATCH) for start in range(0, len(pixels), _BATCH)]
        empty = np.zeros((0, *pixels.shape[1:3]), np.float32)
        return np.concatenate([empty, *(self._maps(pixels[batch], classes[batch]) for batch in batches)])

    def _maps(self, images: Floats, classes: Indices) -> Floats:
        drawn = self._stage_maps(images, classes)
        if self._cam.mirrored:
            mirrored = self._stage_maps(images[:, :, ::-1], classes)
            drawn = [one + other[:, :, ::-1] for one, other in zip(drawn, mirrored, strict=True)]
        return to_one(np.prod(drawn, axis=0))

    def _stage_maps(self, images: Floats, classes: Indices) -> list[Floats]:
        """Each stage's map at the images' size."""
        features, slopes = self._gradients(images, classes)
        drawn = []
        for stage, *tensors in zip(self._stages, features, slopes, strict=True):
            # A network of another dtype policy has 16-bit maps.
            low = np.maximum(self._cam.combine(*(np.asarray(tensor).astype(np.float32) for tensor in tensors)), 0)
            drawn.append(to_one(stage.enlarge(low, (images.shape[1], images.shape[2]))))
        return drawn


def _gradients(network: keras.Model) -> Callable[[Floats, Indices], tuple[list[Any], list[Any]]]:
    """From images and classes to a network's feature maps (its outputs before the logits) and their gradients."""
    import tensorflow as tf

    # In a graph, the unused gradients of the weights are not computed.
    @tf.function(
        input_signature=[tf.TensorSpec([None, *network.input_shape[1:]]), tf.TensorSpec([None], tf.int64)],
    )
    def gradients(images: Any, classes: Any) -> tuple[list[Any], list[Any]]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            *features, logits = network(images, training=False)
            chosen = tf.gather(logits, classes, batch_dims=1)
        return features, tape.gradient(chosen, features)

    return lambda images, classes: gradients(tf.constant(images), tf.constant(classes, tf.int64))


@dataclass(frozen=True)
class Axis:
    """Where the cells of a feature map lie along rows or columns, in pixels of the network's input."""

    start: float = 0.0  # place of the first cell; the first pixel's centre is 0
    step: float = 1.0  # distance between cells

    def weights(self, cells: int, pixels: int) -> NDArray[np.float32]:
        """Linear interpolation from cells to pixels, constant beyond the outermost cells: ``[pixels, cells]``."""
        places = np.clip((np.arange(pixels) - self.start) / self.step, 0, cells - 1)
        return np.maximum(1 - np.abs(places[:, None] - np.arange(cells)), 0).astype(np.float32)


@dataclass(frozen=True)
class Stage:
    """The last feature map of one size."""

    name: str  # the layer that makes it
    tensor: Any  # the map, ``(batch, height, width, channels)``
    axes: tuple[Axis, Axis]  # where its rows and its columns lie

    def enlarge(self, maps: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
        """Draws maps ``[n, height, width]`` of this stage at the image's ``shape``, each cell where it belongs."""
        rows, columns = (
            axis.weights(cells, pixels) for axis, cells, pixels in zip(self.axes, maps.shape[1:], shape, strict=True)
        )
        return np.asarray(rows @ maps @ columns.T)


def stages(model: keras.Model) -> tuple[Stage, ...]:
    """The stages of a functional network of images, the last (and smallest) map first.

    Only maps that everything passes through count, so none inside a residual block or beside another branch: the
    gradient at such a map has all that the prediction depends on.
    """
    operations = list(model.operations)
    axes: dict[int, tuple[Axis, Axis] | None] = {id(tensor): (Axis(), Axis()) for tensor in model.inputs}
    found: dict[tuple[int, ...], Stage] = {}
    for operation, is_cut in zip(operations, _cuts(model), strict=True):
        outputs = _tensors(operation.output)
        if not isinstance(operation, layers.InputLayer):
            axes |= {id(tensor): _axes(operation, tensor, axes) for tensor in outputs}
        places = axes[id(outputs[0])]
        if is_cut and places is not None and not isinstance(operation, _NO_FEATURES) and len(outputs[0].shape) == 4:
            # A later map of the same size takes the earlier one's place.
            found[tuple(outputs[0].shape[1:3])] = Stage(operation.name, outputs[0], places)
    return tuple(reversed(found.values()))


def _tensors(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _inputs(operation: Any) -> list[Any]:
    return [] if isinstance(operation, layers.InputLayer) else _tensors(operation.input)


def _cuts(model: keras.Model) -> list[bool]:
    """Whether everything passes through an operation: no earlier tensor is used after it, in topological order."""
    operations = list(model.operations)
    last_use: dict[int, int] = {}
    for number, operation in enumerate(operations):
        for tensor in _inputs(operation):
            last_use[id(tensor)] = number
    cuts, reach = [], 0
    for number, operation in enumerate(operations):
        cuts.append(reach <= number)
        reach = max([reach, *(last_use.get(id(tensor), 0) for tensor in _tensors(operation.output))])
    return cuts


def _axes(operation: Any, output: Any, known: dict[int, tuple[Axis, Axis] | None]) -> tuple[Axis, Axis] | None:
    """Where an operation's output lies; None if it has no place, as behind global pooling."""
    if len(output.shape) != 4:
        return None
    inputs = [tensor for tensor in _inputs(operation) if len(tensor.shape) == 4]
    window = _window(operation, inputs[0].shape[1:3]) if inputs else None
    if window is None:
        # Inputs of another size are broadcast, as a channel's weight is.
        inputs = [tensor for tensor in inputs if tensor.shape[1:3] == output.shape[1:3]]
    grids = [grid for grid in (known[id(tensor)] for tensor in inputs) if grid is not None]
    if not grids or isinstance(operation, layers.GlobalAveragePooling2D | layers.GlobalMaxPooling2D):
        return None
    # Branches with different padding lie apart a little: their middle.
    rows, columns = (Axis(float(np.mean([g[i].start for g in grids])), grids[0][i].step) for i in (0, 1))
    windows = window or [(0.0, 1)] * 2
    first, second = (
        Axis(axis.start + shift * axis.step, axis.step * stride)
        for axis, (shift, stride) in zip((rows, columns), windows, strict=True)
    )
    return first, second


def _window(operation: Any, size: Sequence[int]) -> list[tuple[float, int]] | None:
    """For rows and columns: the first window's centre among the input's cells, and the stride."""
    if isinstance(operation, layers.ZeroPadding2D):
        return [(-float(before), 1) for before, _ in operation.padding]
    if isinstance(operation, _CONVOLUTIONS):
        kernels = [(k - 1) * d + 1 for k, d in zip(operation.kernel_size, operation.dilation_rate, strict=True)]
    elif isinstance(operation, _POOLINGS):
        kernels = list(operation.pool_size)
    else:
        return None
    windows = []
    for kernel, stride, cells in zip(kernels, operation.strides, size, strict=True):
        padded = max((-(-cells // stride) - 1) * stride + kernel - cells, 0) if operation.padding == "same" else 0
        windows.append(((kernel - 1) / 2 - padded // 2, stride))
    return windows
