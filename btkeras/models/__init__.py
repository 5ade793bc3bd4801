"""The networks."""

# ruff: noqa: E402
from btkeras.quiet import load_tensorflow

load_tensorflow()

from btkeras.models.applications import (
    ImprovedResNet34,
    ResNet34,
    ResNet34Inception,
    ResNet34MultiScale,
    ResNet34SE,
)
from btkeras.models.build import MODELS, build_model, count_macs
from btkeras.models.head import backbone_layers, set_backbone_trainable

__all__ = [
    "MODELS",
    "ImprovedResNet34",
    "ResNet34",
    "ResNet34Inception",
    "ResNet34MultiScale",
    "ResNet34SE",
    "backbone_layers",
    "build_model",
    "count_macs",
    "set_backbone_trainable",
]
