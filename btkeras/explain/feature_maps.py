"""A network's feature maps: which layers end a stage, and where in the image the cells of their maps lie.

A cell's place is the centre of its receptive field, by the arithmetic of Araujo et al. 2019 ("Computing receptive
fields of convolutional neural networks", Distill). It is not where a plain enlargement puts it: convolutions that
stride by two and pad both sides look around every second pixel, so after five of them the cells of a 112-pixel image
lie at 0, 32, 64 and 96, and enlarging their 4 x 4 map to the image's size would draw the first of them 13 pixels
too far to the lower right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

_CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)
# What they make are the images, or a map with a margin.
_NO_FEATURES = (layers.InputLayer, layers.Normalization, layers.ZeroPadding2D)
_POOLINGS = (layers.MaxPooling2D, layers.AveragePooling2D)


@dataclass(frozen=True)
class Axis:
    """Where the cells of a feature map lie along rows or columns, in pixels of the network's input.

    Attributes:
        start: Place of the first cell; the first pixel's centre is 0.
        step: Distance between cells.
    """

    start: float = 0.0
    step: float = 1.0

    def weights(self, cells: int, pixels: int) -> NDArray[np.float32]:
        """Linear interpolation from cells to pixels, constant beyond the outermost cells: ``[pixels, cells]``."""
        places = np.clip((np.arange(pixels) - self.start) / self.step, 0, cells - 1)
        return np.maximum(1 - np.abs(places[:, None] - np.arange(cells)), 0).astype(np.float32)


@dataclass(frozen=True)
class Stage:
    """The last feature map of one size.

    Attributes:
        name: The layer that makes it.
        tensor: The map, ``(batch, height, width, channels)``.
        axes: Where its rows and its columns lie.
    """

    name: str
    tensor: Any
    axes: tuple[Axis, Axis]

    def enlarge(self, maps: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
        """Draws maps ``[n, height, width]`` of this stage at the image's ``shape``, each cell where it belongs."""
        rows, columns = (
            axis.weights(cells, pixels) for axis, cells, pixels in zip(self.axes, maps.shape[1:], shape, strict=True)
        )
        return np.asarray(rows @ maps @ columns.T)


def stages(model: keras.Model) -> tuple[Stage, ...]:
    """The stages of a network, the last (and smallest) map first.

    Only maps that everything passes through count, so not those inside a residual block or beside another branch: the
    gradient at such a map is all that the answer has to do with the image.

    Args:
        model: A functional network of images, such as ``models.build_model`` makes.
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
    """Whether everything passes through an operation: in topological order, no tensor is used past it but its own."""
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
    """Where an operation's output lies; None if that cannot be said, behind an average over the image say."""
    if len(output.shape) != 4:
        return None
    inputs = [tensor for tensor in _inputs(operation) if len(tensor.shape) == 4]
    window = _window(operation, inputs[0].shape[1:3]) if inputs else None
    if window is None:
        # One place a pixel: what comes in at another size is spread over all of them, as a channel's weight is.
        inputs = [tensor for tensor in inputs if tensor.shape[1:3] == output.shape[1:3]]
    grids = [grid for grid in (known[id(tensor)] for tensor in inputs) if grid is not None]
    if not grids or isinstance(operation, layers.GlobalAveragePooling2D | layers.GlobalMaxPooling2D):
        return None
    # Branches that lie a little apart, where one pads otherwise than the other: their middle.
    rows, columns = (Axis(float(np.mean([g[i].start for g in grids])), grids[0][i].step) for i in (0, 1))
    if window is None:
        return rows, columns
    return _moved(rows, window[0]), _moved(columns, window[1])


def _moved(axis: Axis, window: tuple[float, int]) -> Axis:
    shift, stride = window
    return Axis(axis.start + shift * axis.step, axis.step * stride)


def _window(operation: Any, size: Sequence[int]) -> list[tuple[float, int]] | None:
    """For rows and columns: where the first window's centre lies among the cells that come in, and the stride."""
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
