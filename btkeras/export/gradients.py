"""Gradients of a network written in operations of forward graphs, which LiteRT and ONNX have.

TensorFlow's own gradients are operations of training (``ReluGrad``, ``MaxPoolGrad``), which no converter knows. Inside
``forward_gradients`` a graph's operations get gradients that compute the same by comparing, padding and convolving.
Shapes must be known, the number of images too. Only gradients of what an operation is applied to are given, none of
weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import product
from types import MappingProxyType
from typing import Any

import tensorflow as tf

# Times any number above 1e-20 it is above 1. XNNPACK knows products and minima, but no comparison.
_LARGE = 1e20


def forward_gradients() -> AbstractContextManager[None]:
    """Makes operations that are added to the current graph differentiable as this module says, by ``tf.gradients``."""
    context: AbstractContextManager[None] = tf.compat.v1.get_default_graph().gradient_override_map(dict(_NAMES))
    return context


def _is_positive(values: tf.Tensor) -> tf.Tensor:
    """1 where values, from 0, are above 0, else 0."""
    return tf.minimum(values * _LARGE, 1.0)


def _relu(operation: Any, gradient: tf.Tensor) -> tf.Tensor:
    return gradient * _is_positive(operation.outputs[0])


def _sigmoid(operation: Any, gradient: tf.Tensor) -> tf.Tensor:
    value = operation.outputs[0]
    return gradient * (value * (1 - value))


def _convolution(operation: Any, gradient: tf.Tensor) -> tuple[tf.Tensor, None]:
    names = ("strides", "padding", "dilations", "explicit_paddings")
    settings = {name: operation.get_attr(name) for name in names}
    settings["padding"] = settings["padding"].decode()
    (image, kernel), cells = operation.inputs, operation.outputs[0].shape[1:3]
    if _is_plain(kernel, settings):
        # A convolution again, which ONNX Runtime has faster than a transposed one.
        turned = tf.reverse(tf.transpose(kernel, [0, 1, 3, 2]), [0, 1])
        return tf.nn.conv2d(gradient, turned, 1, "SAME"), None
    count, *reached, channels = image.shape.as_list()
    if settings["padding"] == "VALID":
        steps = zip(cells, kernel.shape, settings["strides"][1:], settings["dilations"][1:], strict=False)
        reached = [(n - 1) * stride + (side - 1) * dilation + 1 for n, side, stride, dilation in steps]
    found = tf.raw_ops.Conv2DBackpropInput(
        input_sizes=[count, *reached, channels], filter=kernel, out_backprop=gradient, **settings
    )
    # Rows and columns beyond the last window, which ONNX's transposed convolution does not add.
    rest = [[0, side - end] for side, end in zip(image.shape[1:3], reached, strict=True)]
    return tf.pad(found, [[0, 0], *rest, [0, 0]]) if any(map(any, rest)) else found, None


def _is_plain(kernel: tf.Tensor, settings: dict[str, Any]) -> bool:
    """Whether a kernel with a middle moves by single cells over an image, and beyond its edge."""
    once = set(settings["strides"]) == set(settings["dilations"]) == {1}
    return once and settings["padding"] == "SAME" and all(side % 2 for side in kernel.shape[:2])


def _max_pool(operation: Any, gradient: tf.Tensor) -> tf.Tensor:
    """To each window's largest value, the first of equal ones, which pooling of pooled maps has."""
    image, largest = operation.inputs[0], operation.outputs[0]
    windows = _Windows(operation, "ksize")
    parts, free = [], tf.ones_like(largest)
    for part in windows.parts(image, image.dtype.min):
        taken = free * (1 - _is_positive(largest - part))
        free -= taken
        parts.append(gradient * taken)
    return windows.placed(parts)


def _average_pool(operation: Any, gradient: tf.Tensor) -> tf.Tensor:
    windows = _Windows(operation, "ksize")
    counts = sum(windows.parts(tf.ones(windows.image), 0.0))
    return windows.placed([gradient / counts] * len(windows.offsets))


def _depthwise(operation: Any, gradient: tf.Tensor) -> tuple[tf.Tensor, None]:
    kernel = operation.inputs[1]
    if kernel.shape[-1] != 1:
        raise NotImplementedError("a depthwise convolution that multiplies its channels")
    windows = _Windows(operation, None)
    return windows.placed([gradient * kernel[row, column, :, 0] for row, column in windows.offsets]), None


class _Windows:
    """The windows that an operation moves over images: where each of their cells lies, and back again."""

    def __init__(self, operation: Any, size: str | None) -> None:
        self.image: list[int] = operation.inputs[0].shape.as_list()
        self._cells: list[int] = operation.outputs[0].shape[1:3].as_list()
        self._strides: list[int] = operation.get_attr("strides")[1:3]
        sides = operation.get_attr(size)[1:3] if size else operation.inputs[1].shape[:2].as_list()
        self.offsets = list(product(*map(range, sides)))
        reach = [(n - 1) * s + side for n, s, side in zip(self._cells, self._strides, sides, strict=True)]
        missing = [max(0, end - pixels) for end, pixels in zip(reach, self.image[1:3], strict=True)]
        # VALID windows end within the image.
        self._before = [pixels // 2 for pixels in missing]
        self._after = [pixels - before for pixels, before in zip(missing, self._before, strict=True)]

    def parts(self, image: tf.Tensor, outside: float) -> list[tf.Tensor]:
        """Of each offset in a window, what lies there in all windows; ``outside`` beyond the image."""
        margins = [[0, 0], *zip(self._before, self._after, strict=True), [0, 0]]
        padded = tf.pad(image, margins, constant_values=outside) if any(map(any, margins)) else image
        (rows, columns), (down, right) = self._cells, self._strides
        return [
            padded[:, top : top + down * (rows - 1) + 1 : down, left : left + right * (columns - 1) + 1 : right]
            for top, left in self.offsets
        ]

    def placed(self, parts: Sequence[tf.Tensor]) -> tf.Tensor:
        """The sum of such parts, each back in its place of an image."""
        sums: dict[tuple[int, ...], tf.Tensor] = {}
        down, right = self._strides
        if down != right:
            raise NotImplementedError("windows that move differently along rows and columns")
        size = [-(-(n + sum(pad)) // down) for n, *pad in zip(self.image[1:3], self._before, self._after, strict=True)]
        for part, offset in zip(parts, self.offsets, strict=True):
            # Image cells of one remainder (phase) lie side by side.
            shifts, phase = [n // down for n in offset], tuple(n % down for n in offset)
            margins = [[n, end - n - own] for n, end, own in zip(shifts, size, self._cells, strict=True)]
            shifted = tf.pad(part, [[0, 0], *margins, [0, 0]])
            sums[phase] = sums[phase] + shifted if phase in sums else shifted
        phases = [sums.get(phase, tf.zeros_like(sums[0, 0])) for phase in product(range(down), repeat=2)]
        whole = tf.nn.depth_to_space(tf.concat(phases, axis=-1), down) if down > 1 else phases[0]
        (top, left), (height, width) = self._before, self.image[1:3]
        return whole[:, top : top + height, left : left + width]


_GRADIENTS: dict[str, Callable[..., Any]] = {
    "Relu": _relu,
    "Sigmoid": _sigmoid,
    "Conv2D": _convolution,
    "DepthwiseConv2dNative": _depthwise,
    "MaxPool": _max_pool,
    "AvgPool": _average_pool,
}
_NAMES = MappingProxyType({kind: f"btkeras>{kind}" for kind in _GRADIENTS})
for _kind, _gradient in _GRADIENTS.items():
    tf.RegisterGradient(_NAMES[_kind])(_gradient)
