"""A model's answers to the test part of a fold, and what must hold between those of an experiment."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.config import TESTS
from btkeras.errors import ConfigError, RunError


@dataclass(frozen=True)
class FoldResult:
    """A model's answers to the test part of one fold.

    Attributes:
        model: Name of the network.
        seed: Seed of the training.
        fold: Number of the fold, from 0.
        paths: The images.
        labels: ``[n]`` class indices.
        probabilities: ``[n, classes]``.
        parameters: ``parameters``, ``trainable_parameters`` and ``macs`` of the network, where known.
    """

    model: str
    seed: int
    fold: int
    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    parameters: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The fold in words, for messages."""
        return f"{self.model}, seed {self.seed}, fold {self.fold}"


def by_model(results: Sequence[FoldResult]) -> dict[str, list[FoldResult]]:
    """Models in the order of their first fold; their folds in the order of seed and number."""
    found: dict[str, list[FoldResult]] = {}
    for result in results:
        found.setdefault(result.model, []).append(result)
    return {model: sorted(folds, key=lambda fold: (fold.seed, fold.fold)) for model, folds in found.items()}


def check_results(results: Sequence[FoldResult], classes: int, test: str) -> None:
    """Checks that results can be summarised together.

    Args:
        results: Of all folds.
        classes: Number of classes.
        test: ``rotating`` where each image is tested in one fold, ``fixed`` where every fold tests the same ones.

    Raises:
        ConfigError: If ``test`` is neither.
        RunError: If there is no result, a fold is there twice or its arrays do not fit each other, an image is tested
            more often than ``test`` says, its label differs, or models or seeds were tested on different images.
    """
    if test not in TESTS:
        raise ConfigError(f"test must be one of {', '.join(TESTS)}", received=repr(test))
    if not results:
        raise RunError("An experiment must have a finished fold before it can be summarised", received="none")
    for result in results:
        _check_arrays(result, classes)
    repeated = _first_repeated([result.name for result in results])
    if repeated:
        raise RunError("A fold must be there once", received=f"{repeated} twice")
    _check_images(results, test)


def _check_arrays(result: FoldResult, classes: int) -> None:
    count = len(result.paths)
    shapes = (result.labels.shape, result.probabilities.shape)
    if not count or shapes != ((count,), (count, classes)):
        raise RunError(
            "A fold must have a label and a probability per class for each of its images, of which it has some",
            received=f"{shapes} for {count} images and {classes} classes in {result.name}",
        )
    if not np.isfinite(result.probabilities).all():
        raise RunError("Probabilities must be numbers", received=f"NaN or infinity in {result.name}")
    if not (result.labels.min() >= 0 and result.labels.max() < classes):
        raise RunError(f"Labels must be in 0..{classes - 1}", received=f"others in {result.name}")


def _check_images(results: Sequence[FoldResult], test: str) -> None:
    """Checks that what is compared was tested on the same images, and each as often as it must be."""
    tested: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    labels: dict[str, int] = {}
    for result in results:
        key = (result.model, result.seed) if test == "rotating" else (result.model, result.seed, result.fold)
        tested[key] += result.paths
        for path, label in zip(result.paths, result.labels.tolist(), strict=True):
            if labels.setdefault(path, label) != label:
                raise RunError("An image must have one label in all folds", received=f"two of {path}: {result.name}")
    for (model, seed, *fold), paths in tested.items():
        where = f"{model}, seed {seed}" + "".join(f", fold {number}" for number in fold)
        repeated = _first_repeated(paths)
        if repeated:
            raise RunError("An image must be tested once per model and seed", received=f"{repeated} twice in {where}")
        missing = labels.keys() - set(paths)
        if missing:
            others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise RunError(
                "All models, with all their seeds, must be tested on the same images",
                received=f"{min(missing)} not in {where}{others}",
                remedy="Finish the missing folds first",
            )


def _first_repeated(names: Sequence[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)
