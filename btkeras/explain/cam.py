"""Which part of an image an answer rests on: class activation maps, and occlusion.

Maps explain the class's logit, not its probability, which hardly changes where the network is sure. They say what the
network looks at, not that it is right to; ``explain_scores`` holds them against the tumours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from btkeras.errors import ModelError
from btkeras.explain.feature_maps import Stage, stages
from btkeras.explain.methods import DEFAULT_METHOD, METHODS, Cam, Floats, Indices, Occlusion, method_of, occlude, to_one
from btkeras.models.head import logits_network

__all__ = ["DEFAULT_METHOD", "METHODS", "Occlusion", "explain", "explainer", "occlude"]

# Images at a time: the gradients need all feature maps of each.
_BATCH = 16


def explain(model: keras.Model, images: NDArray[np.generic], classes: Indices, method: str = DEFAULT_METHOD) -> Floats:
    """Makes a map for each image.

    Args:
        model: From ``build_model``, with or without a temperature.
        images: ``[n, height, width, channels]`` as the network takes them, values 0..255.
        classes: ``[n]`` index of the class to explain: the answer, say.
        method: A key of ``METHODS``.

    Returns:
        float32 ``[n, height, width]`` in 0..1, where 1 is the image's most important place; all 0 where nothing
        speaks for the class.

    Raises:
        ConfigError: If there is no such method.
        ModelError: If it needs gradients and Keras runs on another backend than TensorFlow, or the network has no
            feature map that all its answers pass through.
    """
    return explainer(model, method)(images, classes)


def explainer(model: keras.Model, method: str = DEFAULT_METHOD) -> Callable[[NDArray[np.generic], Indices], Floats]:
    """``explain`` of one network, to be called often: the gradients' graph is made once; errors as there."""
    chosen = method_of(method)
    if isinstance(chosen, Occlusion):

        def answers(covered: Floats) -> Floats:
            return np.asarray(model.predict_on_batch(covered))

        return lambda images, classes: occlude(answers, np.asarray(images, np.float32), classes, chosen)
    split = _Split(model, chosen)

    def maps(images: NDArray[np.generic], classes: Indices) -> Floats:
        pixels = np.asarray(images, np.float32)
        parts = [slice(start, start + _BATCH) for start in range(0, len(pixels), _BATCH)]
        nothing = np.zeros((0, *pixels.shape[1:3]), np.float32)
        return np.concatenate([nothing, *(split.maps(pixels[part], classes[part]) for part in parts)])

    return maps


class _Split:
    """A network that also gives the feature maps of some stages, and their gradients."""

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

    def maps(self, images: Floats, classes: Indices) -> Floats:
        drawn = self._stage_maps(images, classes)
        if self._cam.mirrored:
            mirrored = self._stage_maps(images[:, :, ::-1], classes)
            drawn = [one + other[:, :, ::-1] for one, other in zip(drawn, mirrored, strict=True)]
        return to_one(np.prod(drawn, axis=0))

    def _stage_maps(self, images: Floats, classes: Indices) -> list[Floats]:
        """Each stage's map at the images' size."""
        features, slopes = self._gradients(images, classes)
        drawn = []
        for stage, maps, gradients in zip(self._stages, features, slopes, strict=True):
            low = np.maximum(self._cam.combine(_float(maps), _float(gradients)), 0)
            drawn.append(to_one(stage.enlarge(low, (images.shape[1], images.shape[2]))))
        return drawn


def _gradients(network: keras.Model) -> Callable[[Floats, Indices], tuple[list[Any], list[Any]]]:
    """From images and classes to the feature maps, and the gradients of the classes' logits at them.

    Args:
        network: Its outputs are the feature maps and, last, the logits.
    """
    import tensorflow as tf

    # In a graph, the gradients of the weights, which nobody asked for, are not computed.
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


def _float(tensor: object) -> Floats:
    # A network of another dtype policy has 16-bit maps.
    return np.asarray(tensor).astype(np.float32)
