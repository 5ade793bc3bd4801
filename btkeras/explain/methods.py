"""The explanation methods, and occlusion, which needs predictions only and so works with any inference backend."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from btkeras.errors import ConfigError

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Cam:
    """A class activation map: a feature map's channels, weighted by the gradient of the class's logit.

    The maps of several stages are scaled to the image's size and to 1, and multiplied: the last stages know the class
    and the early ones the place.
    """

    title: str  # its name in the literature
    # From feature maps and gradients ``[n, h, w, channels]`` to ``[n, h, w]``; values below 0 are cut off.
    combine: Callable[[Floats, Floats], Floats]
    stages: tuple[int, ...] = (0,)  # 0 for the last stage, 1 for the one before
    mirrored: bool = False  # whether the map of the mirrored image, mirrored back, is added


@dataclass(frozen=True)
class Occlusion:
    """Occlusion (Zeiler and Fergus 2014, arXiv:1311.2901): the log odds that a class loses if a square is black.

    A pixel's value is the mean over the squares that cover it; values below 0 are cut off.
    """

    title: str  # its name in the literature
    window: float  # side of a square as a fraction of the image's
    stride: float  # distance between squares, likewise


def _gradcam(maps: Floats, gradients: Floats) -> Floats:
    return np.asarray(np.einsum("nhwc,nc->nhw", maps, gradients.mean(axis=(1, 2))))


def _layercam(maps: Floats, gradients: Floats) -> Floats:
    return np.asarray((maps * np.maximum(gradients, 0)).sum(axis=-1))


# The map's maximum lies in the tumour's box in 13.9 % of 476 validation slices by Grad-CAM; by LayerCAM in 14.1 % with
# the last stage alone, 23.1 % with the stages' maximum, 38.0 % with their product, and 47.3 % with that mirrored too.
METHODS: Mapping[str, Cam | Occlusion] = {
    # Selvaraju et al. 2017, arXiv:1610.02391.
    "gradcam": Cam("Grad-CAM", _gradcam),
    # Jiang et al. 2021, IEEE Transactions on Image Processing 30, 5875; there the stages' maximum is taken.
    "layercam": Cam("LayerCAM of four stages", _layercam, stages=(0, 1, 2, 3), mirrored=True),
    "occlusion": Occlusion("Occlusion", window=1 / 4, stride=1 / 8),
}
DEFAULT_METHOD = "layercam"


def method_of(name: str) -> Cam | Occlusion:
    """The method of this name. Raises ``ConfigError`` if there is none, and suggests the nearest."""
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"Did you mean {near[0]!r}" if near else ""
        raise ConfigError(f"A method must be one of {', '.join(METHODS)}", received=repr(name), remedy=hint)
    return METHODS[name]


Indices = NDArray[np.integer]
Predict = Callable[[Floats], Floats]

_COVERED_BATCH = 64
_SMALLEST = 1e-12


def occlude(predict: Predict, images: Floats, classes: Indices, settings: Occlusion) -> Floats:
    """Occlusion maps of any classifier; result as ``cam.explain``.

    Args:
        predict: From float32 ``[k, height, width, channels]`` to probabilities ``[k, classes]``.
        images: float32 ``[n, height, width, channels]``.
        classes: ``[n]`` index of the class to explain.
        settings: The squares.
    """
    rows, columns = (_squares(side, settings) for side in images.shape[1:3])
    covers = np.einsum("ia,jb->abij", rows, columns).reshape(-1, *images.shape[1:3], 1)
    counts = np.outer(rows.sum(axis=1), columns.sum(axis=1))
    maps = np.zeros(images.shape[:3], np.float32)
    for i, (image, index) in enumerate(zip(images, classes, strict=True)):
        whole = _log_odds(predict(image[None]), int(index))[0]
        losses = []
        for start in range(0, len(covers), _COVERED_BATCH):
            covered = image * (1 - covers[start : start + _COVERED_BATCH])
            losses.append(whole - _log_odds(predict(covered), int(index)))
        grid = np.concatenate(losses).reshape(rows.shape[1], columns.shape[1])
        maps[i] = np.maximum(rows @ grid @ columns.T / counts, 0)
    return to_one(maps)


def _squares(side: int, settings: Occlusion) -> Floats:
    """Which pixels each square covers along one side, ``[side, squares]``."""
    window, stride = (max(1, round(fraction * side)) for fraction in (settings.window, settings.stride))
    first = np.arange(stride - window, side, stride)
    pixels = np.arange(side)[:, None]
    return ((pixels >= first) & (pixels < first + window)).astype(np.float32)


def _log_odds(probabilities: Floats, index: int) -> NDArray[np.float64]:
    """Of one class against the sum of the others, which is exact where one minus the class is not."""
    others = np.delete(probabilities.astype(float), index, axis=1).sum(axis=1)
    return np.asarray(np.log(probabilities[:, index] + _SMALLEST) - np.log(others + _SMALLEST))


def to_one(maps: Floats) -> Floats:
    """Scales maps ``[n, height, width]`` so that the highest value of each is 1; one without any stays 0."""
    highest = maps.max(axis=(1, 2), keepdims=True)
    return np.divide(maps, highest, out=np.zeros(maps.shape, np.float32), where=highest > 0)
