"""What a network costs to compute."""

from __future__ import annotations

import math

import keras
from keras import layers

from btkeras.errors import ModelError

_COUNTED = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)
# Elementwise: merges into a convolution, or is as nothing beside it.
_FREE = (layers.BatchNormalization, layers.Normalization)


def count_macs(model: keras.Model) -> int:
    """Counts the multiply-accumulates of one picture, in convolutions (grouped and depthwise too) and dense layers.

    Raises:
        ModelError: If another layer has weights, whose cost is not known here.
    """
    return sum(_layer_macs(layer) for layer in model.layers if layer.weights)


def _layer_macs(layer: keras.Layer) -> int:
    if isinstance(layer, _FREE):
        return 0
    if not isinstance(layer, _COUNTED):
        raise ModelError(
            "Multiply-accumulates are counted for convolutions and dense layers",
            received=f"{layer.name}, a {type(layer).__name__}",
        )
    # Each value of the kernel is used once at each place of the output.
    return math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:-1])
