"""Training one network on one split; and a metric, a schedule and callbacks for any ``fit``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btkeras.lazy import lazy_names
from btkeras.quiet import load_tensorflow

if TYPE_CHECKING:
    from btkeras.training.callbacks import ProgressLine as ProgressLine
    from btkeras.training.callbacks import ReplicaMean as ReplicaMean
    from btkeras.training.confusion_matrix import ConfusionMatrix as ConfusionMatrix
    from btkeras.training.macro_recall import MacroRecall as MacroRecall
    from btkeras.training.schedules import Schedule as Schedule

__all__ = ["ConfusionMatrix", "MacroRecall", "ProgressLine", "ReplicaMean", "Schedule"]

load_tensorflow()
__getattr__ = lazy_names(
    __name__,
    {
        "ConfusionMatrix": "btkeras.training.confusion_matrix",
        "MacroRecall": "btkeras.training.macro_recall",
        "ProgressLine": "btkeras.training.callbacks",
        "ReplicaMean": "btkeras.training.callbacks",
        "Schedule": "btkeras.training.schedules",
    },
)
