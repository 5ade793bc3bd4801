"""The comparison networks that ``keras.applications`` has: inlined into ours, and set up to be trained as ours are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import keras
from keras import KerasTensor, initializers, layers

from btkeras.models import blocks


@dataclass(frozen=True)
class Application:
    """Attributes:
    factory: Function of ``keras.applications``, bound to what makes it start at standardised pictures.
    dense: Widths of fully connected layers between the flattened feature map and the last dense layer; none means
        that the feature map is averaged.
    dropout: Part of the inputs dropped behind each of them, or behind the average; 0 means no such layer.
    weights: What the literature trains it from, ``random`` or ``imagenet``. ``build_model`` does as it is told.
    """

    factory: Callable[..., keras.Model]
    dense: tuple[int, ...] = ()
    dropout: float = 0.0
    weights: str = "random"

    def __call__(self, x: KerasTensor) -> KerasTensor:
        """Applies the network to pictures and returns its last feature map, or the vector that its own head makes."""
        network = self.backbone(input_tensor=x)
        _train_like_ours(network.layers)
        if self.dense:
            return self._fully_connected(network.output)
        return blocks.pooled_dropout(network.output, self.dropout) if self.dropout else network.output

    def backbone(self, **options: object) -> keras.Model:
        """The application up to its last feature map, with random weights; colour pictures unless told otherwise."""
        network: keras.Model = self.factory(include_top=False, weights=None, **options)
        return network

    def _fully_connected(self, x: KerasTensor) -> KerasTensor:
        x = layers.Flatten(name="flatten")(x)
        for number, units in enumerate(self.dense, start=1):
            x = layers.Dense(units, activation="relu", kernel_initializer="he_normal", name=f"fc{number}")(x)
            last = number == len(self.dense)
            x = layers.Dropout(self.dropout, name="features" if last else f"fc{number}_dropout")(x)
        return x


def _train_like_ours(network: Sequence[keras.Layer]) -> None:
    """Initialisation and moving statistics as in ``blocks``; what the network computes stays Keras' own.

    Keras' default initialisation is made for tanh: through VGG's layers, which nothing normalises, it lets a picture
    fade to nothing. DenseNet's two paddings get names, because Keras counts those of unnamed layers up.
    """
    names = iter(("conv1_pad", "pool1_pad"))
    for layer in network:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = blocks.BN_MOMENTUM
        elif isinstance(layer, layers.ZeroPadding2D) and layer.name.startswith("zero_padding2d"):
            layer.name = next(names)
        elif isinstance(layer, layers.Conv2D) and isinstance(layer.kernel_initializer, initializers.GlorotUniform):
            layer.kernel_initializer = initializers.HeNormal()
            layer.kernel.assign(layer.kernel_initializer(layer.kernel.shape))


# The paper's tables 5 and 6. ``resnet50_gap`` is Kumar et al. 2021 ("Multi-class brain tumor classification using
# residual network and global average pooling"). ResNet50 ends in global average pooling as it is, so ``resnet50`` and
# ``resnet50_gap`` are one and the same network here; what differs is where the training starts: table 6 compares
# networks fine-tuned from ImageNet (``vgg19`` likewise), table 5 networks trained from nothing.
APPLICATIONS: Mapping[str, Application] = MappingProxyType(
    {
        "vgg16": Application(keras.applications.VGG16, dense=(4096, 4096), dropout=0.5),
        "vgg19": Application(keras.applications.VGG19, dense=(4096, 4096), dropout=0.5, weights="imagenet"),
        "resnet50": Application(keras.applications.ResNet50),
        "resnet50_gap": Application(keras.applications.ResNet50, weights="imagenet"),
        "efficientnetv2": Application(
            functools.partial(keras.applications.EfficientNetV2S, include_preprocessing=False), dropout=0.2
        ),
        "densenet": Application(keras.applications.DenseNet121),
    }
)
