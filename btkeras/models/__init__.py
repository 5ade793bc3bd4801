"""The networks."""

from btkeras.models.build import MODELS, build_model, count_macs
from btkeras.models.head import backbone_layers, set_backbone_trainable

__all__ = ["MODELS", "backbone_layers", "build_model", "count_macs", "set_backbone_trainable"]
