"""ResNeXt-101 (Xie et al. 2017, arXiv:1611.05431): ResNet's bottlenecks with their 3 x 3 convolution in groups."""

from __future__ import annotations

from dataclasses import dataclass

from keras import KerasTensor

from btkeras.models import blocks

STAGES = ((64, 3), (128, 4), (256, 23), (512, 3))


@dataclass(frozen=True)
class ResNeXt101:
    """Attributes:
    groups: Groups of each 3 x 3 convolution.
    width: Channels of a group in the first stage; doubles from stage to stage.
    """

    groups: int = 32
    width: int = 8

    def __call__(self, x: KerasTensor) -> KerasTensor:
        """Applies the network to pictures and returns its last feature map ``(batch, h, w, 2048)``."""
        x = blocks.max_pool(blocks.plain_stem(x), name="stem_pool")
        for stage, (filters, count) in enumerate(STAGES, start=1):
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
