"""The rate at which a core multiplies matrices with NumPy: what other rates are shares of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.rounds import Engine
from btkeras.machine import describe

# Large enough to be at the rate, small enough for short turns.
SIDE = 1536


def matrix_engine() -> Engine:
    """Multiplies large matrices of float32 with NumPy, on one core."""
    # OpenBLAS knows processors by their names, and takes those that it does not know for older ones.
    kernels = {"OPENBLAS_CORETYPE": "SkylakeX"} if "avx512f" in describe()["instructions"] else {}
    return Engine("matrices", f"{__name__}:matrices", environment=kernels)


def matrices() -> tuple[Callable[[NDArray[Any]], NDArray[np.float32]], dict[str, Any]]:
    """The product of two large matrices, ``SIDE ** 3`` multiply-accumulates."""
    from threadpoolctl import threadpool_limits

    # One thread: several wait for each other, which counts as processor time.
    threadpool_limits(1)
    values = np.random.default_rng(0).random((SIDE, SIDE), np.float32)
    return lambda _: values @ values, {}
