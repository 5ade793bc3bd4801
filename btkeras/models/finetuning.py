"""Training only the head of a network whose backbone has learned before."""

from __future__ import annotations

import keras


def backbone_layers(model: keras.Model) -> list[keras.Layer]:
    """All layers up to the last feature map; what follows, from pooling or flattening on, is the head."""
    last = max(i for i, layer in enumerate(model.layers) if len(layer.output.shape) == 4)
    return model.layers[: last + 1]


def set_backbone_trainable(model: keras.Model, trainable: bool) -> None:
    """Freezes or frees the backbone; the head stays as it is.

    Compile the model afterwards: Keras looks at it then. Frozen batch normalisation uses its moving statistics in
    training too, and keeps them. Stochastic depth (EfficientNetV2) goes on dropping.
    """
    for layer in backbone_layers(model):
        layer.trainable = trainable
