"""Occlusion: a map of an answer from nothing but answers, so that any engine's network has it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from btkeras.evaluation.explain_methods import Occlusion

Floats = NDArray[np.float32]
Indices = NDArray[np.integer]
Answers = Callable[[Floats], Floats]

_COVERED_BATCH = 64
# A softmax may give 0.
_SMALLEST = 1e-12


def occlude(answers: Answers, images: Floats, classes: Indices, settings: Occlusion) -> Floats:
    """Occlusion maps of anything that gives probabilities; arguments and result as ``explain.explain``.

    Args:
        answers: From float32 ``[k, height, width, channels]`` to probabilities ``[k, classes]``.
        images: The pictures.
        classes: What to explain.
        settings: Size and distance of the squares.
    """
    rows, columns = (_squares(side, settings) for side in images.shape[1:3])
    covers = np.einsum("ia,jb->abij", rows, columns).reshape(-1, *images.shape[1:3], 1)
    counts = np.outer(rows.sum(axis=1), columns.sum(axis=1))
    maps = np.zeros(images.shape[:3], np.float32)
    for i, (image, index) in enumerate(zip(images, classes, strict=True)):
        whole = _log_odds(answers(image[None]), int(index))[0]
        losses = []
        for start in range(0, len(covers), _COVERED_BATCH):
            covered = image * (1 - covers[start : start + _COVERED_BATCH])
            losses.append(whole - _log_odds(answers(covered), int(index)))
        grid = np.concatenate(losses).reshape(rows.shape[1], columns.shape[1])
        maps[i] = np.maximum(rows @ grid @ columns.T / counts, 0)
    return to_one(maps)


def _squares(side: int, settings: Occlusion) -> Floats:
    """Which pixels each square covers along one side, ``[side, squares]``: each pixel about as often as another."""
    window, stride = (max(1, round(part * side)) for part in (settings.window, settings.stride))
    first = np.arange(stride - window, side, stride)
    pixels = np.arange(side)[:, None]
    return ((pixels >= first) & (pixels < first + window)).astype(np.float32)


def _log_odds(probabilities: Floats, index: int) -> NDArray[np.float64]:
    """Of one class against the rest, whose sum is exact where one minus the class is not."""
    others = np.delete(probabilities.astype(float), index, axis=1).sum(axis=1)
    return np.asarray(np.log(probabilities[:, index] + _SMALLEST) - np.log(others + _SMALLEST))


def to_one(maps: Floats) -> Floats:
    """Scales maps ``[n, height, width]`` so that the highest value of each is 1; one without any stays 0."""
    highest = maps.max(axis=(1, 2), keepdims=True)
    return np.divide(maps, highest, out=np.zeros(maps.shape, np.float32), where=highest > 0)
