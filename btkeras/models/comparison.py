"""The comparison networks that ``keras.applications`` has: inlined into ours, and set up to be trained as ours are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import keras
from keras import KerasTensor, initializers, layers

from btkeras.models import blocks

# Filters of each module: 1 x 1; 1 x 1 and 3 x 3; 1 x 1 and "5 x 5"; 1 x 1 behind the pooling. One tuple a stage.
STAGES = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
DROPOUT = 0.2


def googlenet(x: KerasTensor) -> KerasTensor:
    """Applies the network to images and returns ``(batch, 1024)``: the pooled last feature map behind dropout."""
    x = blocks.conv_bn(x, 64, 7, stride=2, name="stem_conv1")
    x = _max_pool(x, 3, name="stem_pool1")
    x = blocks.conv_bn(x, 64, 1, name="stem_conv2")
    x = blocks.conv_bn(x, 192, 3, name="stem_conv3")
    x = _max_pool(x, 3, name="stem_pool2")
    for stage, modules in enumerate(STAGES, start=1):
        if stage > 1:
            x = _max_pool(x, 3 if stage == 2 else 2, name=f"stage{stage}_pool")
        for number, filters in enumerate(modules, start=1):
            x = _inception(x, filters, name=f"stage{stage}_module{number}")
    return blocks.pooled_dropout(x, DROPOUT)


def _max_pool(x: KerasTensor, size: int, *, name: str) -> KerasTensor:
    # Of even images, "same" takes the windows that PyTorch takes with ceil_mode.
    return layers.MaxPooling2D(size, strides=2, padding="same", name=name)(x)


def _inception(x: KerasTensor, filters: tuple[int, ...], *, name: str) -> KerasTensor:
    """Four branches side by side, concatenated at the size they came in."""
    single, double1, double2, triple1, triple2, pooled = filters
    pool = layers.MaxPooling2D(3, strides=1, padding="same", name=f"{name}_pool")(x)
    branches = [
        blocks.conv_bn(x, single, 1, name=f"{name}_single"),
        _reduced(x, double1, double2, name=f"{name}_double"),
        _reduced(x, triple1, triple2, name=f"{name}_triple"),
        blocks.conv_bn(pool, pooled, 1, name=f"{name}_pooled"),
    ]
    return layers.Concatenate(name=f"{name}_concat")(branches)


def _reduced(x: KerasTensor, narrow: int, filters: int, *, name: str) -> KerasTensor:
    x = blocks.conv_bn(x, narrow, 1, name=f"{name}1")
    return blocks.conv_bn(x, filters, 3, name=f"{name}2")


RESNEXT_STAGES = ((64, 3), (128, 4), (256, 23), (512, 3))


@dataclass(frozen=True)
class ResNeXt101:
    """Attributes:
    groups: Groups of each 3 x 3 convolution.
    width: Channels of a group in the first stage; doubles from stage to stage.
    """

    groups: int = 32
    width: int = 8

    def __call__(self, x: KerasTensor) -> KerasTensor:
        """Applies the network to images and returns its last feature map ``(batch, h, w, 2048)``."""
        x = blocks.max_pool(blocks.plain_stem(x), name="stem_pool")
        for stage, (filters, count) in enumerate(RESNEXT_STAGES, start=1):
            for block in range(1, count + 1):
                x = blocks.bottleneck_block(
                    x,
                    4 * filters,
                    filters * self.width * self.groups // 64,
                    stride=2 if stage > 1 and block == 1 else 1,
                    groups=self.groups,
                    name=f"stage{stage}_block{block}",
                )
        return x


# The paper does not say which; 32x8d is the one ResNeXt-101 that its framework, PyTorch, has had under that name from
# the start. ``ResNeXt101(width=4)`` is the 32x4d of the ResNeXt paper, half the size.
RESNEXT101 = ResNeXt101(width=8)


@dataclass(frozen=True)
class Application:
    """Attributes:
    factory: Function of ``keras.applications``, bound to what makes it start at standardised images.
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
        """Applies the network to images and returns its last feature map, or the vector that its own head makes."""
        network = self.backbone(input_tensor=x)
        _train_like_ours(network.layers)
        if self.dense:
            return self._fully_connected(network.output)
        return blocks.pooled_dropout(network.output, self.dropout) if self.dropout else network.output

    def backbone(self, **options: object) -> keras.Model:
        """The application up to its last feature map, with random weights; colour images unless told otherwise."""
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

    Keras' default initialisation is made for tanh: through VGG's layers, which nothing normalises, it lets an image
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
