"""Which part of a picture an answer rests on: class activation maps, and occlusion.

Maps explain the class's logit, not its probability, which hardly changes where the network is sure. They say what the
network looks at, not that it is right to; ``explain_scores`` holds them against the tumours.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from btkeras.errors import ConfigError, ModelError
from btkeras.evaluation.stages import Stage, stages
from btkeras.models.temperature import logits_network

Floats = NDArray[np.float32]
Indices = NDArray[np.integer]
Answers = Callable[[Floats], Floats]

# Pictures at a time: the gradients need all feature maps of each.
_BATCH = 16
_COVERED_BATCH = 64
# A softmax may give 0.
_SMALLEST = 1e-12


@dataclass(frozen=True)
class Cam:
    """A class activation map: a feature map's channels, weighted by the gradient of the class's logit.

    Attributes:
        title: What people call it.
        combine: From feature maps and gradients ``[n, h, w, channels]`` to ``[n, h, w]``; what is below 0 is cut off.
        stages: Which feature maps, 0 for the last one, 1 for the last one of the stage before. Of several, each is
            drawn at the picture's size with its highest value 1, and they are multiplied: the last ones know the class
            and the early ones the place.
        mirrored: Whether the map of the mirrored picture is added, turned back.
    """

    title: str
    combine: Callable[[Floats, Floats], Floats]
    stages: tuple[int, ...] = (0,)
    mirrored: bool = False


@dataclass(frozen=True)
class Occlusion:
    """Occlusion (Zeiler and Fergus 2014, arXiv:1311.2901): how much a class loses if a square is blackened.

    The loss is in log odds; a pixel's value is the mean over the squares that cover it, what is below 0 is cut off.

    Attributes:
        title: What people call it.
        window: Side of a square as a fraction of the picture's.
        stride: Distance between squares, likewise.
    """

    title: str
    window: float
    stride: float


def _gradcam(maps: Floats, gradients: Floats) -> Floats:
    return np.asarray(np.einsum("nhwc,nc->nhw", maps, gradients.mean(axis=(1, 2))))


def _layercam(maps: Floats, gradients: Floats) -> Floats:
    return np.asarray((maps * np.maximum(gradients, 0)).sum(axis=-1))


# docs/trust.md has what was measured, also of variants that are not here.
METHODS: Mapping[str, Cam | Occlusion] = MappingProxyType(
    {
        # Selvaraju et al. 2017, arXiv:1610.02391.
        "gradcam": Cam("Grad-CAM", _gradcam),
        # Jiang et al. 2021, IEEE Transactions on Image Processing 30, 5875; there the stages' maximum is taken.
        "layercam": Cam("LayerCAM of four stages", _layercam, stages=(0, 1, 2, 3), mirrored=True),
        "occlusion": Occlusion("Occlusion", window=1 / 4, stride=1 / 8),
    }
)
DEFAULT_METHOD = "layercam"


def method_of(name: str) -> Cam | Occlusion:
    """The method of this name.

    Raises:
        ConfigError: If there is none; it names the nearest.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"Did you mean {near[0]!r}" if near else ""
        raise ConfigError(f"A method must be one of {', '.join(METHODS)}", received=repr(name), remedy=hint)
    return METHODS[name]


def explain(model: keras.Model, images: NDArray[np.generic], classes: Indices, method: str = DEFAULT_METHOD) -> Floats:
    """Makes a map for each picture.

    Args:
        model: From ``build_model``, with or without a temperature.
        images: ``[n, height, width, channels]`` as the network takes them, values 0..255.
        classes: ``[n]`` index of the class to explain: the answer, say.
        method: A key of ``METHODS``.

    Returns:
        float32 ``[n, height, width]`` in 0..1, where 1 is the picture's most important place; all 0 where nothing
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
        return _to_one(np.prod(drawn, axis=0))

    def _stage_maps(self, images: Floats, classes: Indices) -> list[Floats]:
        """Each stage's map at the pictures' size."""
        features, slopes = self._gradients(images, classes)
        drawn = []
        for stage, maps, gradients in zip(self._stages, features, slopes, strict=True):
            low = np.maximum(self._cam.combine(_float(maps), _float(gradients)), 0)
            drawn.append(_to_one(stage.enlarge(low, (images.shape[1], images.shape[2]))))
        return drawn


def _gradients(network: keras.Model) -> Callable[[Floats, Indices], tuple[list[Any], list[Any]]]:
    """From pictures and classes to the feature maps, and the gradients of the classes' logits at them.

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


def _to_one(maps: Floats) -> Floats:
    highest = maps.max(axis=(1, 2), keepdims=True)
    return np.divide(maps, highest, out=np.zeros(maps.shape, np.float32), where=highest > 0)


def occlude(answers: Answers, images: Floats, classes: Indices, settings: Occlusion) -> Floats:
    """Occlusion maps of anything that gives probabilities; arguments and result as ``explain``.

    Args:
        answers: From float32 ``[k, height, width, channels]`` to probabilities ``[k, classes]``.
        images: The pictures.
        classes: What to explain.
        settings: Size and distance of the squares.
    """
    rows, columns = (_squares(side, settings) for side in images.shape[1:3])
    covers = np.einsum("ia,jb->abij", rows, columns).reshape(-1, *images.shape[1:3], 1)
    counts = np.outer(rows.sum(axis=1), columns.sum(axis=1))
    maps = np.zeros(images.shape[:3], np.float32)
    for i, (image, index) in enumerate(zip(images, classes, strict=True)):
        whole = _log_odds(answers(image[None]), int(index))[0]
        losses = []
        for start in range(0, len(covers), _COVERED_BATCH):
            covered = image * (1 - covers[start : start + _COVERED_BATCH])
            losses.append(whole - _log_odds(answers(covered), int(index)))
        grid = np.concatenate(losses).reshape(rows.shape[1], columns.shape[1])
        maps[i] = np.maximum(rows @ grid @ columns.T / counts, 0)
    return _to_one(maps)


def _squares(side: int, settings: Occlusion) -> Floats:
    """Which pixels each square covers along one side, ``[side, squares]``: each pixel about as often as another."""
    window, stride = (max(1, round(part * side)) for part in (settings.window, settings.stride))
    first = np.arange(stride - window, side, stride)
    pixels = np.arange(side)[:, None]
    return ((pixels >= first) & (pixels < first + window)).astype(np.float32)


def _log_odds(probabilities: Floats, index: int) -> NDArray[np.float64]:
    """Of one class against the rest, whose sum is exact where one minus the class is not."""
    others = np.delete(probabilities.astype(float), index, axis=1).sum(axis=1)
    return np.asarray(np.log(probabilities[:, index] + _SMALLEST) - np.log(others + _SMALLEST))
