"""From a network's name to a Keras model."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import keras
from keras import KerasTensor, layers

from btkeras.errors import ModelError
from btkeras.models.resnet34 import RESNET34_VARIANTS

# Name -> function from pictures to the last feature map.
MODELS: Mapping[str, Callable[[KerasTensor], KerasTensor]] = MappingProxyType({**RESNET34_VARIANTS})


def check_name(name: str) -> None:
    """Checks that there is a network of this name.

    Raises:
        ModelError: If not; it names the nearest.
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1)
        hint = f"Did you mean {near[0]!r}" if near else ""
        raise ModelError(f"A model must be one of {', '.join(MODELS)}", received=repr(name), remedy=hint)


def build_model(
    name: str,
    *,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    classes: int = 4,
    mean: float | Sequence[float] = 0.0,
    variance: float | Sequence[float] = 1.0,
) -> keras.Model:
    """Builds a network under the current dtype policy, with random weights.

    Its input is ``(batch, height, width, channels)`` pixel values, usually 0..255, which the first layer
    standardises; its output is ``(batch, classes)`` float32 probabilities, whatever the policy.

    Args:
        name: A key of ``MODELS``.
        input_shape: Height, width (at least 32) and channels of a picture.
        classes: Number of outputs.
        mean: Mean of the training pixels, one or one a channel, in the input's units.
        variance: Their variance.

    Raises:
        ModelError: If the name is unknown or a picture is too small.
    """
    check_name(name)
    if min(input_shape[:2]) < 32:
        raise ModelError("input_shape must be at least 32 x 32 pixels", received=input_shape)
    images = layers.Input(input_shape, name="images")
    x = layers.Normalization(
        axis=None if isinstance(mean, float) else -1, mean=mean, variance=variance, dtype="float32", name="standardise"
    )(images)
    x = MODELS[name](x)
    x = layers.GlobalAveragePooling2D(name="features")(x)
    # float32 whatever the policy: a 16-bit softmax rounds probabilities near 0 and 1.
    probabilities = layers.Dense(classes, activation="softmax", dtype="float32", name="probabilities")(x)
    return keras.Model(images, probabilities, name=name)
