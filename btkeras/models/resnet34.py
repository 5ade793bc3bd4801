"""ResNet34 and the paper's three changes to it, each of which can be switched on alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from keras import KerasTensor

from btkeras.models import blocks

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))


@dataclass(frozen=True)
class ResNet34Variant:
    """Attributes:
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
        for number, (filters, count) in enumerate(STAGES, start=1):
            for block in range(1, count + 1):
                x = self._block(x, filters, halve=number > 1 and block == 1, name=f"stage{number}_block{block}")
        return x

    def _block(self, x: KerasTensor, filters: int, *, halve: bool, name: str) -> KerasTensor:
        if halve and self.inception:
            return blocks.inception_downsample(x, name=name)
        return blocks.residual_block(x, filters, stride=2 if halve else 1, attention=self.attention, name=name)


# The ablation of the paper's table 3.
RESNET34_VARIANTS: Mapping[str, ResNet34Variant] = MappingProxyType(
    {
        "resnet34": ResNet34Variant(),
        "resnet34_inception": ResNet34Variant(inception=True),
        "resnet34_multiscale": ResNet34Variant(multi_scale=True),
        "resnet34_se": ResNet34Variant(attention=True),
        "improved_resnet34": ResNet34Variant(inception=True, multi_scale=True, attention=True),
    }
)
