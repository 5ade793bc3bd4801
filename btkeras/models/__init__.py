"""The networks."""

from btkeras.models.build import MODELS, build_model

__all__ = ["MODELS", "build_model"]
