"""GoogLeNet (Szegedy et al. 2015, arXiv:1409.4842), without auxiliary classifiers.

As torchvision has it, the paper's framework: batch normalisation behind every convolution, and 3 x 3 in the branch that
is 5 x 5 in the publication (a slip there that its trained weights made permanent).
"""

from __future__ import annotations

from keras import KerasTensor, layers

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
    """Applies the network to pictures and returns ``(batch, 1024)``: the pooled last feature map behind dropout."""
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
    # Of even pictures, "same" takes the windows that PyTorch takes with ceil_mode.
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
