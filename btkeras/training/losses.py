"""The loss of a training: cross-entropy or focal loss, with weights for rare classes."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from btkeras.config import TrainConfig
from btkeras.errors import ConfigError


def balanced_weights(labels: Sequence[int], classes: int) -> list[float]:
    """A weight for each class: images / (classes * images of it), so that over the images they are 1 on average.

    Args:
        labels: Class indices of the training images.
        classes: Number of classes.

    Raises:
        ConfigError: If there is no image of a class.
    """
    counts = np.bincount(labels, minlength=classes)
    if not counts.all():
        raise ConfigError("train.class_weight=balanced needs training images of each class", received=counts.tolist())
    return [float(weight) for weight in len(labels) / (classes * counts)]


def make_loss(config: TrainConfig, labels: Sequence[int], classes: int) -> keras.losses.Loss:
    """The loss of one-hot targets and probabilities ``[batch, classes]``: the mean over a batch.

    With p the probability and t the target of a class, smoothed by ``config.label_smoothing``, an image's loss is the
    sum over the classes of -weight * (1 - p)^gamma * t * log(p); cross-entropy has a gamma of 0. Validation has the
    same loss, weights included. ``labels`` are the class indices of the training images, which ``balanced`` counts.
    """
    weighted, smoothing = config.class_weight == "balanced", config.label_smoothing
    if config.loss == "cross_entropy" and not weighted:
        return keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)
    return keras.losses.CategoricalFocalCrossentropy(
        alpha=balanced_weights(labels, classes) if weighted else 1.0,
        gamma=config.focal_gamma if config.loss == "focal" else 0.0,
        label_smoothing=smoothing,
    )
