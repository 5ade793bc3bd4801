"""btkeras: classify brain-tumour MRI slices with Keras 3 and TensorFlow.

Importing this package loads neither TensorFlow nor Keras; the names below are imported on first use. Once both are
imported, Keras loads models that hold btkeras' layer, metric or learning-rate schedule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from btkeras.lazy import lazy_names
from btkeras.registration import register_with_keras

if TYPE_CHECKING:
    from btkeras import datasets as datasets
    from btkeras import models as models
    from btkeras import preprocessing as preprocessing
    from btkeras import training as training
    from btkeras.inference.predictor import Predictor as Predictor

__version__ = "0.1.0"

__all__ = ["Predictor", "__version__", "datasets", "models", "preprocessing", "training"]

_FOLDERS = ("datasets", "models", "preprocessing", "training")
__getattr__ = lazy_names(
    __name__, {"Predictor": "btkeras.inference.predictor"} | {name: f"btkeras.{name}" for name in _FOLDERS}
)
register_with_keras()
