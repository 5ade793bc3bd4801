"""The networks."""

from btkeras.models.build import MODELS, build_model
from btkeras.models.finetuning import backbone_layers, set_backbone_trainable
from btkeras.models.macs import count_macs

__all__ = ["MODELS", "backbone_layers", "build_model", "count_macs", "set_backbone_trainable"]
