"""A network's weights and outputs must be numbers: the most probable class of NaN would pass for a prediction."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from btkeras.errors import ModelError


def is_finite(arrays: Iterable[Any]) -> bool:
    """Whether all arrays, or variables, hold neither NaN nor infinity."""
    return all(bool(np.isfinite(np.asarray(array)).all()) for array in arrays)


def require_finite(what: str, arrays: Iterable[Any], source: Path) -> None:
    """Raises ``ModelError`` unless all arrays are finite; ``what`` (weights, outputs) of the model at ``source``."""
    if not is_finite(arrays):
        exported = source.suffix != ".keras"
        check = f"btkeras selftest --model {source}" if exported else "restore it, or train the run again"
        raise ModelError(
            f"A model's {what} must be finite numbers",
            received=f"others from {source}",
            remedy=f"Is it damaged? {check}",
        )
