"""The content of an experiment's ``summary.json``: each model's figures, how sure they are, and which models differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.experiments.fold_results import FoldResult, by_model, check_results
from btkeras.metrics import (
    METRICS,
    Difference,
    IntArray,
    Resampling,
    clustered_bootstrap,
    holm,
    mcnemar,
    paired_bootstrap,
    summarize,
    wilson,
)

__all__ = ["FoldResult", "compare_models", "conclusion", "summarize_experiment"]

_FOLD_KEYS = ("images", "accuracy", "macro", "per_class", "confusion_matrix")
_SIZE_KEYS = ("parameters", "trainable_parameters", "macs")
_SIGNIFICANT = 0.05
# With B resamples no p is below 2 / (B + 1), and Holm multiplies it by the number of pairs: from 51 pairs on, 2,000
# resamples could never call a difference more than noise.
_SAMPLES_PER_PAIR = 200
_RESAMPLING = Resampling()


@dataclass(frozen=True)
class _Images:
    """What is the same for every model.

    Attributes:
        position: Of an image, by path, in the order of the sorted paths.
        groups: ``[images]`` numbers of groups.
    """

    position: Mapping[str, int]
    groups: IntArray


@dataclass(frozen=True)
class _Answers:
    """A model's answers from all of its folds.

    Attributes:
        images: ``[n]`` positions of the images.
        labels: ``[n]`` class indices.
        probabilities: ``[n, classes]``.
    """

    images: IntArray
    labels: IntArray
    probabilities: NDArray[np.float64]

    @property
    def predictions(self) -> IntArray:
        return self.probabilities.argmax(axis=1)

    def correct(self) -> NDArray[np.float64]:
        """In how many of its answers to an image the model is right: ``[images]`` in 0..1."""
        right = np.bincount(self.images, weights=self.predictions == self.labels)
        return right / np.bincount(self.images)

    def is_single(self) -> bool:
        """Whether there is one answer an image."""
        return len(self.images) == self.images.max() + 1


def summarize_experiment(
    results: Sequence[FoldResult],
    classes: Sequence[str],
    *,
    groups: Mapping[str, str],
    test: str,
    resampling: Resampling = _RESAMPLING,
) -> dict[str, Any]:
    """Figures of each model over its folds, their intervals, and a comparison of every pair of models.

    A mean is over folds, with the sample standard deviation (``ddof=1``, None for one fold). The intervals and the
    differences are those of the answers of all folds together: they say what other images would have changed, where
    the standard deviation says what another training would. Wilson's interval counts each image once, however often
    it was answered. With many pairs the bootstrap takes more resamples, 200 a pair; the summary says how many.

    Args:
        results: Of all folds; models are reported in the order of their first.
        classes: Names, in the order of the indices.
        groups: Group of an image, such as its patient, by path; an image without one is a group of its own.
        test: ``rotating`` where each image is tested in one fold, ``fixed`` where every fold tests the same ones.
        resampling: Resamples at least, seed, level.

    Returns:
        JSON-ready, without NaN; equal results give an equal summary.

    Raises:
        RunError: If there is no result, a fold is there twice or its arrays do not fit each other, an image is tested
            more often than ``test`` says, its label differs, or models or seeds were tested on different images.
    """
    check_results(results, len(classes), test)
    models = by_model(results)
    images = _images(results, groups)
    answers = {model: _answers(folds, images) for model, folds in models.items()}
    resampling = _enough(resampling, len(models))
    return {
        "classes": list(classes),
        "models": {
            model: _model(folds, answers[model], images, classes, resampling) for model, folds in models.items()
        },
        "comparisons": _comparisons(answers, images, resampling),
        "bootstrap": {
            "samples": resampling.samples,
            "seed": resampling.seed,
            "level": resampling.level,
            "groups": int(images.groups.max()) + 1,
            "images": len(images.position),
        },
    }


def compare_models(
    results: Sequence[FoldResult],
    classes: Sequence[str],
    *,
    groups: Mapping[str, str],
    test: str,
    resampling: Resampling = _RESAMPLING,
) -> list[dict[str, Any]]:
    """The ``comparisons`` of ``summarize_experiment`` alone; arguments and errors as there."""
    check_results(results, len(classes), test)
    models, images = by_model(results), _images(results, groups)
    answers = {model: _answers(folds, images) for model, folds in models.items()}
    return _comparisons(answers, images, _enough(resampling, len(models)))


def _enough(resampling: Resampling, models: int) -> Resampling:
    pairs = models * (models - 1) // 2
    return replace(resampling, samples=max(resampling.samples, _SAMPLES_PER_PAIR * pairs))


def _images(results: Sequence[FoldResult], groups: Mapping[str, str]) -> _Images:
    paths = sorted({path for result in results for path in result.paths})
    numbers: dict[tuple[str, bool], int] = {}
    # The second part keeps a group's name from being taken for a path.
    keys = [(groups[path], True) if groups.get(path) else (path, False) for path in paths]
    members = [numbers.setdefault(key, len(numbers)) for key in keys]
    return _Images({path: i for i, path in enumerate(paths)}, np.array(members))


def _answers(folds: Sequence[FoldResult], images: _Images) -> _Answers:
    return _Answers(
        np.array([images.position[path] for fold in folds for path in fold.paths]),
        np.concatenate([fold.labels for fold in folds]),
        np.concatenate([fold.probabilities for fold in folds]),
    )


def _model(
    folds: Sequence[FoldResult],
    answers: _Answers,
    images: _Images,
    classes: Sequence[str],
    resampling: Resampling,
) -> dict[str, Any]:
    summaries = [summarize(fold.labels, fold.probabilities, classes) for fold in folds]
    rows = np.array([[row["accuracy"], *(row["macro"][name] for name in METRICS[1:])] for row in summaries])
    spread = rows.std(axis=0, ddof=1).tolist() if len(rows) > 1 else [None] * len(METRICS)
    correct = answers.correct()
    return {
        **{key: folds[0].parameters.get(key) for key in _SIZE_KEYS},
        "folds": [
            {"fold": fold.fold, "seed": fold.seed, **{key: row[key] for key in _FOLD_KEYS}}
            for fold, row in zip(folds, summaries, strict=True)
        ],
        "mean": dict(zip(METRICS, rows.mean(axis=0).tolist(), strict=True)),
        "std": dict(zip(METRICS, spread, strict=True)),
        "pooled": summarize(answers.labels, answers.probabilities, classes),
        "intervals": {
            "accuracy_wilson": list(wilson(float(correct.sum()), len(correct), resampling.level)),
            **clustered_bootstrap(
                answers.labels, answers.predictions, images.groups[answers.images], classes, resampling
            ),
        },
    }


def _comparisons(answers: Mapping[str, _Answers], images: _Images, resampling: Resampling) -> list[dict[str, Any]]:
    """Every pair of models, in the order of the models; p values adjusted over all of them."""
    if len(answers) < 2:
        return []
    correct = np.stack([answer.correct() for answer in answers.values()], axis=1)
    differences = paired_bootstrap(correct, images.groups, resampling)
    tests = [
        mcnemar(correct[:, difference.first] == 1, correct[:, difference.second] == 1)
        if a.is_single() and b.is_single()
        else None
        for difference, (a, b) in zip(differences, combinations(answers.values(), 2), strict=True)
    ]
    bootstrap_p = holm([difference.p for difference in differences])
    mcnemar_p = iter(holm([test.p for test in tests if test]))
    names = list(answers)
    found = []
    for difference, adjusted, test in zip(differences, bootstrap_p, tests, strict=True):
        pair = [names[difference.first], names[difference.second]]
        found.append(
            {
                "models": pair,
                "difference": difference.value,
                "interval": difference.interval,
                "bootstrap_p": difference.p,
                "bootstrap_p_adjusted": adjusted,
                "discordant": [test.only_a, test.only_b] if test else None,
                "mcnemar_p": test.p if test else None,
                "mcnemar_p_adjusted": next(mcnemar_p) if test else None,
                "conclusion": conclusion(pair, difference, adjusted, resampling.level),
            }
        )
    return found


def conclusion(models: Sequence[str], difference: Difference, adjusted_p: float, level: float) -> str:
    """Says in a sentence whether two models differ: by the grouped bootstrap's adjusted p at 0.05."""
    value, (low, high) = 100 * difference.value, (100 * end for end in difference.interval)
    first, second = models
    # The interval is this pair's alone; p is adjusted for all pairs, so it may be large where the interval excludes 0.
    sureness = f"{100 * level:g} % interval {{:z.2f}} to {{:z.2f}}, p adjusted for all pairs {adjusted_p:.2g}"
    if adjusted_p > _SIGNIFICANT:
        figures = f"difference {value:z.2f} points, {sureness.format(low, high)}"
        return f"{first} and {second} cannot be told apart on these images ({figures}): it may be noise"
    if value < 0:
        first, second, value, low, high = second, first, -value, -high, -low
    return f"{first} is better than {second} by {value:z.2f} points ({sureness.format(low, high)}): more than noise"
