"""Where a network's weights begin: at random, from ImageNet, or from another network's checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras

from btkeras.errors import ModelError
from btkeras.models.imagenet import check_pretrained, load_pretrained, scaled_variance, weights_file
from btkeras.models.keras_file import load_network


def is_checkpoint(weights: str | Path) -> bool:
    """Whether weights are those of a ``.keras`` file, as a run's ``best.keras``."""
    return Path(weights).suffix == ".keras"


def check_weights(name: str, channels: int, weights: str | Path) -> None:
    """Raises ``ModelError`` unless a network can have these weights; downloads ImageNet's if that is asked for."""
    if is_checkpoint(weights):
        if not Path(weights).is_file():
            rule = "A checkpoint to start from must be there"
            raise ModelError(rule, received=f"{weights}, which does not exist", remedy="RUN/best.keras of a run is one")
    elif weights != "random":
        check_pretrained(name, channels)
        weights_file(name, weights)


def input_variance(
    name: str, channels: int, weights: str | Path, variance: float | Sequence[float]
) -> float | Sequence[float]:
    """The variance of the training pixels, scaled to images as ImageNet weights expect them, if it is these."""
    if weights == "random" or is_checkpoint(weights):
        return variance
    check_pretrained(name, channels)
    return scaled_variance(name, variance)


def load_weights(model: keras.Model, weights: str | Path) -> None:
    """Puts weights into a network that ``build_model`` made, or its form for training; ``random`` changes nothing.

    A checkpoint's head is taken too, if it has as many classes; else the head stays random.

    Raises:
        ModelError: If there is no such file, or it is another network's; the network is as before then.
    """
    if is_checkpoint(weights):
        _load_checkpoint(model, weights)
    elif weights != "random":
        load_pretrained(model, weights)


def _load_checkpoint(model: keras.Model, source: str | Path) -> None:
    found = load_network(Path(source))
    # A checkpoint's layers stand in the same order: its temperature has no weights.
    targets, values = model.weights, found.get_weights()
    head = len(model.layers[-1].weights)
    shapes = [[tuple(each.shape) for each in given] for given in (targets, values)]
    if found.name != model.name or shapes[0][:-head] != shapes[1][:-head]:
        raise ModelError(
            f"A checkpoint to start from must be of {model.name} for {model.input_shape[-1]} channels",
            received=f"{source}: {found.name} for {found.input_shape[-1]}",
            remedy="Change model.name or data.channels, or start from random weights",
        )
    kept = len(values) if shapes[0] == shapes[1] else len(values) - head
    for target, value in zip(targets[:kept], values[:kept], strict=True):
        target.assign(value)
