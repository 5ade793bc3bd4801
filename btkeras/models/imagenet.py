"""Weights trained on ImageNet, for the networks that Keras has them for."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import keras
import numpy as np

from btkeras.errors import ModelError
from btkeras.logging import logger
from btkeras.models.architectures import APPLICATIONS

_ADDRESS = "https://storage.googleapis.com/tensorflow/keras-applications"
_NOTOP = "weights_tf_dim_ordering_tf_kernels_notop.h5"
# Standard deviation of ImageNet's pixel values 0..255, the mean over the three channels.
_DEVIATION = 57.6


@dataclass(frozen=True)
class ImageNet:
    """Attributes:
    path: Where the file is below Keras' address; it is without the layers behind the last feature map.
    md5: Its checksum.
    scale: Standard deviation of the images that the network was trained on. Ours have 1, so they are multiplied by it.
    """

    path: str
    md5: str
    scale: float

    @property
    def url(self) -> str:
        """Where Keras offers the file."""
        return f"{_ADDRESS}/{self.path}"


# VGG and ResNet50 take Caffe's images (0..255 less their mean), DenseNet PyTorch's (standardised), EfficientNetV2
# 0..255 divided by 128, less 1. The order of the colours, and means per colour, do not matter to grey images.
_RESNET50 = ImageNet(f"resnet/resnet50_{_NOTOP}", "4d473c1dd8becc155b73f8504c6f6626", _DEVIATION)
IMAGENET: Mapping[str, ImageNet] = {
    "vgg16": ImageNet(f"vgg16/vgg16_{_NOTOP}", "6d6bbae143d832006294945121d1f1fc", _DEVIATION),
    "vgg19": ImageNet(f"vgg19/vgg19_{_NOTOP}", "253f8cb515780f3b799900260a226db6", _DEVIATION),
    "resnet50": _RESNET50,
    "resnet50_gap": _RESNET50,
    "efficientnetv2": ImageNet(
        "efficientnet_v2/efficientnetv2-s_notop.h5", "af0682fb74e8c54910f2d4393339c070", _DEVIATION / 128
    ),
    "densenet": ImageNet(f"densenet/densenet121_{_NOTOP}", "30ee3e1110167f948a6b9946edeeb738", 1.0),
}


def check_pretrained(name: str, channels: int) -> None:
    """Raises ``ModelError`` unless Keras has ImageNet weights for a network, and they fit so many channels."""
    if name not in IMAGENET:
        rule = f"Weights, of ImageNet or from a file, can be loaded into {', '.join(IMAGENET)}"
        raise ModelError(rule, received=name, remedy="Start from random weights")
    if channels not in (1, 3):
        raise ModelError("Networks with ImageNet weights take 1 or 3 channels", received=channels)


def scaled_variance(name: str, variance: float | Sequence[float]) -> float | list[float]:
    """The variance (of pixels, one or one a channel) that gives images the scale that ImageNet weights expect."""
    scaled: float | list[float] = (np.asarray(variance) / IMAGENET[name].scale ** 2).tolist()
    return scaled


def weights_file(name: str, weights: str | Path) -> Path:
    """The file that weights come from, for a key of ``IMAGENET``; ``imagenet`` is downloaded unless it is there.

    Raises:
        ModelError: If there is no such file, or it cannot be downloaded.
    """
    source = IMAGENET[name]
    file = _download(source) if weights == "imagenet" else Path(weights)
    if not file.is_file() or file.suffix != ".h5":
        raise ModelError(
            "Weights must be random, imagenet, or a .weights.h5 or .h5 file that is there",
            received=weights if file.is_file() else f"{weights}, which does not exist",
            remedy=f"Keras' own for {name} is called {Path(source.path).name}",
        )
    return file


def load_pretrained(model: keras.Model, weights: str | Path) -> None:
    """Puts ImageNet weights into a network's backbone; its head stays random.

    With one channel, the first convolution's kernels are summed over their input channels.

    Args:
        model: A network from ``build_model``, one of ``IMAGENET``.
        weights: ``imagenet``, or a ``.weights.h5`` or ``.h5`` file of the ``keras.applications`` network without top.

    Raises:
        ModelError: If there is no such file, or it holds anything else; the network is as before then.
    """
    file = weights_file(model.name, weights)
    # Loaded into the application itself, so that a bad file changes nothing here.
    application = APPLICATIONS[model.name].backbone()
    try:
        if file.name.endswith(".weights.h5"):
            _check_arrays(application, file)
        application.load_weights(file)
    except Exception as error:  # Whatever h5py and Keras make of a file that is damaged or another network's.
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"The file must hold the weights of keras.applications' {model.name} without its top",
            received=f"{file} ({reason})",
            remedy="Write it with save_weights('NAME.weights.h5'), or take the one that Keras offers for download",
        ) from error
    for layer in (layer for layer in application.layers if layer.weights):
        target, values = model.get_layer(layer.name), layer.get_weights()
        if values[0].shape != target.weights[0].shape:
            values[0] = values[0].sum(axis=2, keepdims=True)
        target.set_weights(values)


def _check_arrays(application: keras.Model, file: Path) -> None:
    """Rejects a file that holds more than the network, such as VGG19 for VGG16, which Keras would load in part."""
    found: Counter[tuple[int, ...]] = Counter()
    with h5py.File(file) as content:
        content.visititems(lambda _, item: found.update([item.shape] if isinstance(item, h5py.Dataset) else []))
    # Keras saves the states of random generators (stochastic depth) too.
    expected = [Counter(tuple(v.shape) for v in owned) for owned in (application.weights, application.variables)]
    if found not in expected:
        raise ValueError(f"{found.total()} arrays where the network has {expected[0].total()}, or other shapes")


def _download(source: ImageNet) -> Path:
    """Downloads a file to Keras' cache, unless it is there."""
    import pooch

    target = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models" / Path(source.path).name
    if not target.is_file():
        logger.info(f"downloading {source.url} to {target}")
    try:
        # Not keras.utils.get_file: it never gives up on a silent server, and leaves half a file to a second process.
        pooch.retrieve(source.url, f"md5:{source.md5}", fname=target.name, path=target.parent, progressbar=True)
    except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong checksum is a ValueError.
        remedy = f"Without a network, put the file to {target}, or give the path of {target.name} as weights"
        received = f"{source.url} ({error})"
        raise ModelError("ImageNet weights are downloaded once", received=received, remedy=remedy) from error
    return target
