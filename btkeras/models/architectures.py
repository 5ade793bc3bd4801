"""The networks: functions from standardised images to the last feature map, or to the vector of the network's own head.

The layer ``features`` is the vector in front of the last dense layer, where a network has more than pooling there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import keras
from keras import KerasTensor, initializers, layers

from btkeras.models import blocks

# Filters and blocks of each stage.
_RESNET34_STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
_RESNEXT101_STAGES = ((64, 3), (128, 4), (256, 23), (512, 3))
# Filters of each module: 1 x 1; 1 x 1 and 3 x 3; 1 x 1 and "5 x 5"; 1 x 1 behind the pooling. One tuple a stage.
_GOOGLENET_STAGES = (
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


@dataclass(frozen=True)
class ResNet34:
    """ResNet34 and the paper's three changes to it, each of which can be switched on alone.

    Attributes:
        inception: Module A, Inception-v2 downsampling in place of the first block of stages 2 to 4.
        multi_scale: Module B, the multi-scale stem in place of the 7 x 7 convolution.
        attention: Module C, squeeze-and-excitation in every residual block.
    """

    inception: bool = False
    multi_scale: bool = False
    attention: bool = False

    def __call__(self, x: KerasTensor) -> KerasTensor:
        """Applies the network to images and returns its last feature map ``(batch, h, w, 512)``."""
        stem = blocks.multi_scale_stem if self.multi_scale else blocks.plain_stem
        x = blocks.max_pool(stem(x), name="stem_pool")
        for stage, (filters, count) in enumerate(_RESNET34_STAGES, start=1):
            for block in range(1, count + 1):
                name, halve = f"stage{stage}_block{block}", stage > 1 and block == 1
                if halve and self.inception:
                    x = blocks.inception_downsample(x, name=name)
                else:
                    x = blocks.residual_block(x, filters, stride=1 + halve, attention=self.attention, name=name)
        return x


# The ablation of the paper's table 3.
RESNET34_VARIANTS: Mapping[str, ResNet34] = {
    "resnet34": ResNet34(),
    "resnet34_inception": ResNet34(inception=True),
    "resnet34_multiscale": ResNet34(multi_scale=True),
    "resnet34_se": ResNet34(attention=True),
    "improved_resnet34": ResNet34(inception=True, multi_scale=True, attention=True),
}


@dataclass(frozen=True)
class ResNeXt101:
    """32 groups of ``width`` channels in each 3 x 3 convolution of the first stage, twice as many in each next stage.

    The paper does not say which: 8 is the one ResNeXt-101 that PyTorch has had from the start (32x8d); 4 is the ResNeXt
    paper's 32x4d, half the size.
    """

    width: int = 8

    def __call__(self, x: KerasTensor) -> KerasTensor:
        """Applies the network to images and returns its last feature map ``(batch, h, w, 2048)``."""
        x = blocks.max_pool(blocks.plain_stem(x), name="stem_pool")
        for stage, (filters, count) in enumerate(_RESNEXT101_STAGES, start=1):
            for block in range(1, count + 1):
                stride, name = 2 if stage > 1 and block == 1 else 1, f"stage{stage}_block{block}"
                x = blocks.bottleneck_block(
                    x, 4 * filters, filters * self.width // 2, stride=stride, groups=32, name=name
                )
        return x


def googlenet(x: KerasTensor) -> KerasTensor:
    """Applies the network to images and returns ``(batch, 1024)``: the pooled last feature map behind dropout."""
    x = blocks.conv_bn(x, 64, 7, stride=2, name="stem_conv1")
    x = _halved(x, 3, name="stem_pool1")
    x = blocks.conv_bn(x, 64, 1, name="stem_conv2")
    x = blocks.conv_bn(x, 192, 3, name="stem_conv3")
    x = _halved(x, 3, name="stem_pool2")
    for stage, modules in enumerate(_GOOGLENET_STAGES, start=1):
        if stage > 1:
            x = _halved(x, 3 if stage == 2 else 2, name=f"stage{stage}_pool")
        for number, filters in enumerate(modules, start=1):
            x = _inception(x, filters, name=f"stage{stage}_module{number}")
    return blocks.pooled_dropout(x, 0.2)


def _halved(x: KerasTensor, size: int, *, name: str) -> KerasTensor:
    # Of even images, "same" takes the windows that PyTorch takes with ceil_mode.
    return layers.MaxPooling2D(size, strides=2, padding="same", name=name)(x)


def _inception(x: KerasTensor, filters: Sequence[int], *, name: str) -> KerasTensor:
    """Four branches side by side, concatenated at the size they came in."""
    single, double1, double2, triple1, triple2, pooled = filters
    pool = layers.MaxPooling2D(3, strides=1, padding="same", name=f"{name}_pool")(x)
    branches = [blocks.conv_bn(x, single, 1, name=f"{name}_single")]
    for branch, narrow, wide in (("double", double1, double2), ("triple", triple1, triple2)):
        reduced = blocks.conv_bn(x, narrow, 1, name=f"{name}_{branch}1")
        branches.append(blocks.conv_bn(reduced, wide, 3, name=f"{name}_{branch}2"))
    branches.append(blocks.conv_bn(pool, pooled, 1, name=f"{name}_pooled"))
    return layers.Concatenate(name=f"{name}_concat")(branches)


@dataclass(frozen=True)
class Application:
    """A network of ``keras.applications``, inlined into ours and set up to be trained as ours are.

    Attributes:
        factory: Function of ``keras.applications``, bound to what makes it start at standardised images.
        dense: Widths of fully connected layers between the flattened feature map and the last dense layer; none means
            that the feature map is averaged.
        dropout: Fraction of the inputs dropped behind each of them, or behind the average; 0 means no such layer.
    """

    factory: Callable[..., keras.Model]
    dense: tuple[int, ...] = ()
    dropout: float = 0.0

    def __call__(self, x: KerasTensor) -> KerasTensor:
        """Applies the network to images and returns its last feature map, or the vector that its own head makes."""
        x = _train_like_ours(self.backbone(input_tensor=x)).output
        if not self.dense:
            return blocks.pooled_dropout(x, self.dropout) if self.dropout else x
        x = layers.Flatten(name="flatten")(x)
        for number, units in enumerate(self.dense, start=1):
            x = layers.Dense(units, activation="relu", kernel_initializer="he_normal", name=f"fc{number}")(x)
            last = number == len(self.dense)
            x = layers.Dropout(self.dropout, name="features" if last else f"fc{number}_dropout")(x)
        return x

    def backbone(self, **options: object) -> keras.Model:
        """The application up to its last feature map, with random weights; ``options`` as of its factory."""
        network: keras.Model = self.factory(include_top=False, weights=None, **options)
        return network


def _train_like_ours(network: keras.Model) -> keras.Model:
    """Initialisation and moving statistics as in ``blocks``; what the network computes stays Keras' own.

    Keras' default initialisation is made for tanh: through VGG's layers, which nothing normalises, it lets an image
    fade to nothing. DenseNet's two paddings get names, because Keras counts those of unnamed layers up.
    """
    names = iter(("conv1_pad", "pool1_pad"))
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = blocks.BN_MOMENTUM
        elif isinstance(layer, layers.ZeroPadding2D) and layer.name.startswith("zero_padding2d"):
            layer.name = next(names)
        elif isinstance(layer, layers.Conv2D) and isinstance(layer.kernel_initializer, initializers.GlorotUniform):
            layer.kernel_initializer = initializers.HeNormal()
            layer.kernel.assign(layer.kernel_initializer(layer.kernel.shape))
    return network


# The paper's tables 5 (trained from nothing) and 6 (fine-tuned from ImageNet: ``vgg19`` and ``resnet50_gap``, Kumar et
# al. 2021, "Multi-class brain tumor classification using residual network and global average pooling"). ResNet50 ends
# in global average pooling as it is, so ``resnet50`` and ``resnet50_gap`` are one network here.
APPLICATIONS: Mapping[str, Application] = {
    "vgg16": Application(keras.applications.VGG16, dense=(4096, 4096), dropout=0.5),
    "vgg19": Application(keras.applications.VGG19, dense=(4096, 4096), dropout=0.5),
    "resnet50": Application(keras.applications.ResNet50),
    "resnet50_gap": Application(keras.applications.ResNet50),
    "efficientnetv2": Application(
        functools.partial(keras.applications.EfficientNetV2S, include_preprocessing=False), dropout=0.2
    ),
    "densenet": Application(keras.applications.DenseNet121),
}
