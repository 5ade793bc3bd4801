"""From a network's name to a Keras model."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import keras
from keras import KerasTensor, layers

from btkeras.errors import ModelError
from btkeras.models.architectures import APPLICATIONS, RESNET34_VARIANTS, ResNeXt101, googlenet
from btkeras.models.graph import ModelGraph
from btkeras.models.weights import input_variance, load_weights

# Name -> function from standardised images to the last feature map, or to the vector that its own head makes.
MODELS: Mapping[str, Callable[[KerasTensor], KerasTensor]] = {
    **RESNET34_VARIANTS,
    **APPLICATIONS,
    "resnext101": ResNeXt101(),
    "googlenet": googlenet,
}
_SMALLEST = 32
HEAD = "probabilities"  # the last layer's name
_COUNTED = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)
# Elementwise: merges into a convolution, or is as nothing beside it.
_FREE = (layers.BatchNormalization, layers.Normalization)


def check_name(name: str, known: Collection[str] | None = None) -> None:
    """Raises ``ModelError``, with the nearest name, unless a model is one of ``MODELS``, or of ``known``."""
    if name not in (names := MODELS if known is None else known):
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"Did you mean {near[0]!r}" if near else ""
        raise ModelError(f"A model must be one of {', '.join(names)}", received=repr(name), remedy=hint)


def check_size(sides: Sequence[int | None]) -> None:
    """Raises ``ModelError`` unless height and width are at least 32 pixels, or None, that is any."""
    if any(side is not None and side < _SMALLEST for side in sides):
        raise ModelError(f"input_shape must be at least {_SMALLEST} x {_SMALLEST} pixels", received=tuple(sides))


def build_model(
    name: str,
    *,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    classes: int = 4,
    mean: float | Sequence[float] = 0.0,
    variance: float | Sequence[float] = 1.0,
    weights: str | Path = "random",
) -> keras.Model:
    """Builds a network under the current dtype policy.

    Its input is ``(batch, height, width, channels)`` pixel values, usually 0..255, which the first layer
    standardises; its output is ``(batch, classes)`` float32 probabilities, whatever the policy.

    Args:
        name: A key of ``MODELS``.
        input_shape: Height, width (at least 32) and channels of an image.
        classes: Number of outputs.
        mean: Mean of the training pixels, one or one a channel, in the input's units.
        variance: Their variance.
        weights: ``random``; ``imagenet``, which Keras offers for some networks and is downloaded once; a file of such
            weights (see ``imagenet.load_pretrained``); or the ``.keras`` file of the same network. ImageNet's come
            without a head, and standardised images get the scale that they were trained on.

    Raises:
        ModelError: If the name is unknown, an image is too small, or the weights cannot be had.
    """
    check_name(name)
    check_size(input_shape[:2])
    variance = input_variance(name, input_shape[-1], weights, variance)
    images = layers.Input(input_shape, name="images")
    x = backbone(name, images, mean, variance)
    if len(x.shape) == 4:
        x = layers.GlobalAveragePooling2D(name="features")(x)
    model = keras.Model(images, classifier(x, classes), name=name)
    load_weights(model, weights)
    return model


def backbone(
    name: str, images: KerasTensor, mean: float | Sequence[float], variance: float | Sequence[float]
) -> KerasTensor:
    """From images to a network's last feature map, or to the vector that its own head makes; see ``build_model``."""
    axis = None if isinstance(mean, float) else -1
    return MODELS[name](layers.Normalization(axis, mean, variance, dtype="float32", name="standardize")(images))


def classifier(features: KerasTensor, classes: int, activation: str | None = "softmax") -> KerasTensor:
    """The head: float32 whatever the policy, since a 16-bit softmax rounds probabilities near 0 and 1."""
    return layers.Dense(classes, activation=activation, dtype="float32", name=HEAD)(features)


def count_macs(model: keras.Model) -> int:
    """Counts the multiply-accumulates of one image; ``ModelError`` if a layer has weights and its cost is not known."""
    macs = 0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            macs += count_macs(layer) * ModelGraph(model).calls(layer.name)
        elif isinstance(layer, _COUNTED):
            # Each value of the kernel is used once at each place of the output.
            macs += math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:-1])
        elif layer.weights and not isinstance(layer, _FREE):
            rule = "Multiply-accumulates are counted for convolutions and dense layers"
            raise ModelError(rule, received=f"{layer.name}, a {type(layer).__name__}")
    return macs
