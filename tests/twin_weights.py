"""Seeded weights and images that PyTorch's twin of the networks and the Keras networks both compute for themselves.

The rule: a variable's values come from ``numpy.random.default_rng([crc32(path), SEED]).random(shape)``, stretched to
u in [-1, 1), in Keras' shape (kernels height, width, in, out; dense layers in, out) and in float64 before rounding to
float32. The path's last part says what becomes of u:

    kernel           u * sqrt(6 / fan_in), so that its variance is He's 2 / fan_in
    gamma            0.75 + 0.25 u; behind a residual block's second convolution 0.3 + 0.15 u
    beta, bias       0.2 u
    moving_mean      0.2 u
    moving_variance  1 + 0.5 u

The gammas are what keeps activations of order one through sixteen blocks. Needs NumPy only:
``scripts/make_twin_reference.py``, which writes the reference, has no Keras.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SEED = 2024
NETWORKS = ("resnet34", "resnet34_inception", "resnet34_multiscale", "resnet34_se", "improved_resnet34")
CLASSES = 4


@dataclass(frozen=True)
class Case:
    """Two images with their shape (height, width, channels) and the statistics that standardise them."""

    name: str
    shape: tuple[int, int, int]
    mean: float | tuple[float, ...]
    variance: float | tuple[float, ...]

    @property
    def images(self) -> NDArray[np.float32]:
        """``(2, height, width, channels)`` whole numbers in 0..255: blocks of 8 pixels, with noise on them."""
        height, width, channels = self.shape
        rng = _rng(f"images/{self.name}")
        blocks = rng.random((2, -(-height // 8), -(-width // 8), channels)).repeat(8, axis=1).repeat(8, axis=2)
        noise = rng.random((2, height, width, channels))
        return np.floor(256 * (0.75 * blocks[:, :height, :width] + 0.25 * noise)).astype(np.float32)


CASES = (
    Case("rgb", (96, 96, 3), (120.0, 100.0, 140.0), (3600.0, 2500.0, 4900.0)),
    Case("grey", (80, 64, 1), 110.0, 3025.0),
)


def seeded(path: str, shape: Sequence[int]) -> NDArray[np.float32]:
    """Values of the variable at a Keras path such as ``stage2_block1_conv1/kernel``, in Keras' shape."""
    u = 2 * _rng(path).random(tuple(shape)) - 1
    layer, kind = path.rsplit("/", 1)
    if kind == "kernel":
        values = u * np.sqrt(6 / np.prod(shape[:-1]))
    elif kind == "gamma":
        values = 0.3 + 0.15 * u if layer.endswith("_conv2_bn") else 0.75 + 0.25 * u
    elif kind == "moving_variance":
        values = 1 + 0.5 * u
    elif kind in ("beta", "bias", "moving_mean"):
        values = 0.2 * u
    else:
        raise ValueError(f"The rule has no values for {path!r}.")
    return values.astype(np.float32)


def fingerprint() -> NDArray[np.float32]:
    """A few values of the rule; should NumPy ever draw others, this tells it from a fault in a network."""
    return seeded("stage1_block1_conv1/kernel", (3, 3, 64, 64)).ravel()[:: 64 * 64]


def _rng(name: str) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(name.encode()), SEED])
