"""The paper's networks, called as those of ``keras.applications``."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, layers

from btkeras.errors import ModelError
from btkeras.models.build import backbone, check_size, classifier
from btkeras.models.pretrained import PretrainedWeights, load_pretrained_weights, pretrained_weights

PRETRAINED = "pretrained"
_SUFFIX = ".weights.h5"
_POOLINGS = {"avg": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D}
_SIDE, _CHANNELS = 224, 3
_Shape = tuple[int | None, int | None, int]


@dataclass(frozen=True)
class PaperNetwork:
    """A network of the paper (Li et al., arXiv:2512.03751), called as a function of ``keras.applications``.

    Attributes:
        network: A key of ``MODELS``.

    Example:
        >>> import btkeras, keras
        >>> network = btkeras.models.ImprovedResNet34(input_shape=(64, 64, 1), classes=2)
        >>> network.output_shape
        (None, 2)

        Pretrained, for another question:

        >>> base = btkeras.models.ImprovedResNet34(include_top=False, weights="pretrained", pooling="avg")
        >>> base.trainable = False
        >>> tumor = keras.layers.Dense(1, activation="sigmoid")(base.output)
        >>> keras.Model(base.input, tumor).output_shape
        (None, 1)
    """

    network: str

    def __call__(  # noqa: PLR0913
        self,
        include_top: bool = True,
        weights: str | Path | None = None,
        input_tensor: KerasTensor | None = None,
        input_shape: _Shape | None = None,
        pooling: str | None = None,
        classes: int = 4,
        classifier_activation: str | None = "softmax",
        name: str | None = None,
    ) -> keras.Model:
        """Builds the network under the current dtype policy.

        Its input is pixels 0..255, ``(batch, height, width, channels)``. The pretrained weights are for grey slices,
        cropped to the head, as ``btkeras.preprocessing.SlicePreprocessing.from_preset("pretrained")`` makes them; they
        know the scale of their pixels. Without weights the first layer changes nothing: scaling is yours, and the
        batch normalisation behind the first convolutions makes up for most of it.

        Args:
            include_top: Whether it ends in classes, or in the last feature map ``(batch, h, w, 512)``, h and w being
                1/32 of the image's, rounded up.
            weights: None, random; ``pretrained``, those of the model that is installed with btkeras (of
                ``ImprovedResNet34`` alone; its classes are glioma, meningioma, no_tumor, pituitary); or a
                ``.weights.h5`` file of the same network. Pretrained weights for another number of classes leave the
                head random, and for 3 channels take images whose channels are equal.
            input_tensor: To be used as the images in place of a new input.
            input_shape: Height, width and channels; heights and widths are None or at least 32. By default
                ``(224, 224, 3)``, and with pretrained weights that of these; without top, of any height and width.
            pooling: Without top, what becomes of the feature map: None, nothing; ``avg`` or ``max``, its mean or
                maximum, ``(batch, 512)``.
            classes: Number of outputs.
            classifier_activation: Activation of the top; None for logits.
            name: By default the network's own.

        Returns:
            A ``keras.Model``, trainable in all its layers; a top is float32 whatever the policy.

        Raises:
            ModelError: If an argument is not valid, or the weights cannot be had.
        """
        _check_pooling(pooling)
        if not _is_count(classes):
            raise ModelError("classes must be a whole number, at least 1", received=repr(classes))
        known = self._pretrained(weights)
        images = _images(input_tensor, input_shape or _default_shape(include_top, known))
        if known and images.shape[-1] not in (1, 3):
            raise ModelError("Pretrained weights are for 1 or 3 channels", received=images.shape[-1])
        mean, variance = (known.mean, known.variance) if known else (0.0, 1.0)
        x = backbone(self.network, images, mean, variance)
        if include_top:
            x = classifier(_pooled(x, "avg"), classes, classifier_activation)
        elif pooling is not None:
            x = _pooled(x, pooling)
        inputs = images if input_tensor is None else keras.utils.get_source_inputs(input_tensor)
        model = keras.Model(inputs, x, name=name or self.network)
        if known:
            load_pretrained_weights(model, known.file)
        elif weights is not None:
            _load_file(model, weights)
        return model

    def _pretrained(self, weights: str | Path | None) -> PretrainedWeights | None:
        """The pretrained weights, if these are wanted; ``ModelError`` unless the weights are to be had."""
        if weights == PRETRAINED:
            known = pretrained_weights()
            if known.network != self.network:
                rule = f"Pretrained weights are of {known.network}"
                raise ModelError(rule, received=self.network, remedy="Take weights=None")
            return known
        if weights is not None and not (str(weights).endswith(_SUFFIX) and Path(weights).is_file()):
            rule = f"weights must be None, {PRETRAINED!r} or a file *{_SUFFIX}"
            raise ModelError(
                rule, received=repr(weights), remedy="A run's best.keras is read by keras.models.load_model"
            )
        return None


def _default_shape(include_top: bool, known: PretrainedWeights | None) -> _Shape:
    side, channels = (known.image_size, known.channels) if known else (_SIDE, _CHANNELS)
    return (side, side, channels) if include_top else (None, None, channels)


def _images(tensor: KerasTensor | None, shape: _Shape) -> KerasTensor:
    if tensor is None:
        _check_shape(shape)
    images = layers.Input(shape, name="images") if tensor is None else tensor
    check_size(images.shape[1:3])
    return images


def _is_count(value: object) -> bool:
    return isinstance(value, int | np.integer) and bool(value >= 1)


def _check_shape(shape: Any) -> None:
    three = isinstance(shape, tuple | list) and len(shape) == 3
    if not (three and _is_count(shape[2]) and all(side is None or _is_count(side) for side in shape[:2])):
        rule = "input_shape must be height, width (whole numbers or None) and channels"
        raise ModelError(rule, received=repr(shape), remedy="Example: input_shape=(224, 224, 1)")


def _load_file(model: keras.Model, file: str | Path) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            model.load_weights(file)
        except (ValueError, KeyError, OSError) as error:  # Whatever Keras makes of another network's file.
            rule = "A weights file must be of the same network, input channels and classes"
            reason = " ".join(str(error).split())[:200]
            raise ModelError(rule, received=f"{file} ({reason})") from error
    for each in said:
        warnings.warn(each.message, stacklevel=3)


def _check_pooling(pooling: str | None) -> None:
    if pooling is not None and pooling not in _POOLINGS:
        raise ModelError(f"pooling must be None or one of {', '.join(_POOLINGS)}", received=repr(pooling))


def _pooled(x: KerasTensor, pooling: str) -> KerasTensor:
    return _POOLINGS[pooling](name="features")(x)


ImprovedResNet34 = PaperNetwork("improved_resnet34")
ResNet34 = PaperNetwork("resnet34")
ResNet34Inception = PaperNetwork("resnet34_inception")
ResNet34MultiScale = PaperNetwork("resnet34_multiscale")
ResNet34SE = PaperNetwork("resnet34_se")
