"""The ways to explain an answer, as data; ``explain`` has what is done with them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from btkeras.errors import ConfigError

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Cam:
    """A class activation map: a feature map's channels, weighted by the gradient of the class's logit.

    Attributes:
        title: What people call it.
        combine: From feature maps and gradients ``[n, h, w, channels]`` to ``[n, h, w]``; what is below 0 is cut off.
        stages: Which feature maps, 0 for the last one, 1 for the last one of the stage before. Of several, each is
            drawn at the picture's size with its highest value 1, and they are multiplied: the last ones know the class
            and the early ones the place.
        mirrored: Whether the map of the mirrored picture is added, turned back.
    """

    title: str
    combine: Callable[[Floats, Floats], Floats]
    stages: tuple[int, ...] = (0,)
    mirrored: bool = False


@dataclass(frozen=True)
class Occlusion:
    """Occlusion (Zeiler and Fergus 2014, arXiv:1311.2901): how much a class loses if a square is blackened.

    The loss is in log odds; a pixel's value is the mean over the squares that cover it, what is below 0 is cut off.

    Attributes:
        title: What people call it.
        window: Side of a square as a fraction of the picture's.
        stride: Distance between squares, likewise.
    """

    title: str
    window: float
    stride: float


def _gradcam(maps: Floats, gradients: Floats) -> Floats:
    return np.asarray(np.einsum("nhwc,nc->nhw", maps, gradients.mean(axis=(1, 2))))


def _layercam(maps: Floats, gradients: Floats) -> Floats:
    return np.asarray((maps * np.maximum(gradients, 0)).sum(axis=-1))


# docs/trust.md has what was measured, also of variants that are not here.
METHODS: Mapping[str, Cam | Occlusion] = MappingProxyType(
    {
        # Selvaraju et al. 2017, arXiv:1610.02391.
        "gradcam": Cam("Grad-CAM", _gradcam),
        # Jiang et al. 2021, IEEE Transactions on Image Processing 30, 5875; there the stages' maximum is taken.
        "layercam": Cam("LayerCAM of four stages", _layercam, stages=(0, 1, 2, 3), mirrored=True),
        "occlusion": Occlusion("Occlusion", window=1 / 4, stride=1 / 8),
    }
)
DEFAULT_METHOD = "layercam"


def method_of(name: str) -> Cam | Occlusion:
    """The method of this name.

    Raises:
        ConfigError: If there is none; it names the nearest.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"Did you mean {near[0]!r}" if near else ""
        raise ConfigError(f"A method must be one of {', '.join(METHODS)}", received=repr(name), remedy=hint)
    return METHODS[name]
