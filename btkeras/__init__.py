"""btkeras: classify brain-tumour MRI slices with Keras 3 and TensorFlow.

Importing this package loads neither TensorFlow nor Keras; the names below are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from btkeras.inference.predictor import Predictor as Predictor

__version__ = "0.1.0"

__all__ = ["Predictor", "__version__"]


def __getattr__(name: str) -> Any:
    if name != "Predictor":
        raise AttributeError(f"module 'btkeras' has no attribute {name!r}")
    from btkeras.inference.predictor import Predictor

    return Predictor
