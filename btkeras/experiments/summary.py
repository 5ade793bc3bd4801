"""The content of ``summary.json``: each model's metrics over its folds, their intervals, and comparisons of models."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.config import TESTS
from btkeras.errors import ConfigError, RunError
from btkeras.metrics import (
    METRICS,
    Difference,
    Resampling,
    clustered_bootstrap,
    holm,
    mcnemar,
    paired_bootstrap,
    summarize,
    wilson,
)
from btkeras.metrics.classification import IntArray
from btkeras.metrics.groups import group_metrics
from btkeras.metrics.scores import score_metrics
from btkeras.metrics.tumor_classes import tumor_class_metrics

_FOLD_KEYS = ("images", "accuracy", "macro", "per_class", "confusion_matrix")
SIZES = ("parameters", "trainable_parameters", "macs")
_SIGNIFICANT = 0.05
# With B resamples no p is below 2 / (B + 1), and Holm multiplies it by the number of pairs: from 51 pairs on, 2,000
# resamples could find no difference significant.
_SAMPLES_PER_PAIR = 200
_RESAMPLING = Resampling()


@dataclass(frozen=True)
class FoldResult:
    """A model's predictions for the test subset of one fold."""

    model: str
    seed: int  # of the training
    fold: int  # from 0
    paths: tuple[str, ...]  # the images
    labels: NDArray[np.int64]  # ``[n]`` class indices
    probabilities: NDArray[np.float64]  # ``[n, classes]``
    parameters: Mapping[str, Any]  # those of ``SIZES`` that are known

    def __str__(self) -> str:
        return f"{self.model}, seed {self.seed}, fold {self.fold}"


class _Predictions:
    """A model's predictions of all its folds; ``images`` are positions in ``paths``."""

    def __init__(self, folds: Sequence[FoldResult], paths: Sequence[str], *, fixed: bool) -> None:
        position = {path: i for i, path in enumerate(paths)}
        self.images = np.array([position[path] for fold in folds for path in fold.paths])
        self.labels = np.concatenate([fold.labels for fold in folds])
        self.probabilities = np.concatenate([fold.probabilities for fold in folds])
        self.classes = self.probabilities.argmax(axis=1)
        # Where the folds share a test subset, each predicts every patient; else the folds of a seed do so together.
        self.repeats = [(fold.seed, fold.fold if fixed else 0) for fold in folds for _ in fold.paths]

    def correct(self) -> NDArray[np.float64]:
        """Share of correct predictions for each image: ``[images]`` in 0..1."""
        right = np.bincount(self.images, weights=self.classes == self.labels)
        return right / np.bincount(self.images)

    def is_single(self) -> bool:
        """Whether each image has one prediction."""
        return len(self.images) == self.images.max() + 1


def summarize_experiment(
    results: Sequence[FoldResult],
    classes: Sequence[str],
    *,
    groups: Mapping[str, str],
    test: str,
    patients: Mapping[str, str] = MappingProxyType({}),
    resampling: Resampling = _RESAMPLING,
) -> dict[str, Any]:
    """Metrics of each model over its folds, their intervals, and a comparison of every pair of models.

    Means and sample standard deviations (``ddof=1``, None for one fold) are over folds: what another training would
    change. Intervals and comparisons are of the predictions of all folds together: what other images would change.
    Wilson's interval counts each image once, however often it was predicted.

    Args:
        results: Of all folds; models are reported in the order of their first.
        classes: Names, in the order of the indices.
        groups: Group of an image, such as its patient, by path; an image without one is a group of its own.
        test: ``rotating`` where each image is tested in one fold, ``fixed`` where every fold tests the same ones.
        patients: Patient of an image by path, where it is known.
        resampling: Least number of resamples (200 a pair of models are taken), seed, level.

    Raises:
        RunError: If the results cannot be summarised together.
        ConfigError: If ``test`` is another word.
    """
    _check_results(results, test)
    order = sorted(results, key=lambda fold: (fold.seed, fold.fold))
    names = dict.fromkeys(result.model for result in results)
    models = {model: [fold for fold in order if fold.model == model] for model in names}
    paths = sorted({path for result in results for path in result.paths})
    # The flag keeps a group's name from being taken for a path.
    named = ((path, groups.get(path) or patients.get(path)) for path in paths)
    keys = [(name, True) if name else (path, False) for path, name in named]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    members = np.array([numbers[key] for key in keys])
    found = {model: _Predictions(folds, paths, fixed=test == "fixed") for model, folds in models.items()}
    pairs = len(models) * (len(models) - 1) // 2
    resampling = replace(resampling, samples=max(resampling.samples, _SAMPLES_PER_PAIR * pairs))
    patient_names = [patients.get(path, "") for path in paths]
    return {
        "classes": list(classes),
        "models": {
            model: _summary(folds, found[model], members, patient_names, classes, resampling)
            for model, folds in models.items()
        },
        "comparisons": _comparisons(found, members, resampling),
        "bootstrap": {
            "samples": resampling.samples,
            "seed": resampling.seed,
            "level": resampling.level,
            "groups": int(members.max()) + 1,
            "images": len(members),
        },
    }


def _check_results(results: Sequence[FoldResult], test: str) -> None:
    """Checks that results can be summarised together; errors as ``summarize_experiment``."""
    if test not in TESTS:
        raise ConfigError(f"test must be one of {', '.join(TESTS)}", received=repr(test))
    if not results:
        raise RunError("An experiment must have a finished fold before it can be summarised", received="none")
    _require_once("A fold must be there once", map(str, results))
    tested: dict[str, list[str]] = defaultdict(list)
    labels: dict[str, int] = {}
    for result in results:
        tested[f"{result.model}, seed {result.seed}" if test == "rotating" else str(result)] += result.paths
        for path, label in zip(result.paths, result.labels.tolist(), strict=True):
            if labels.setdefault(path, label) != label:
                raise RunError("An image must have one label in all folds", received=f"two of {path}: {result}")
    for where, paths in tested.items():
        _require_once("An image must be tested once per model and seed", paths, f" in {where}")
        missing = labels.keys() - set(paths)
        if missing:
            others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise RunError(
                "All models, with all their seeds, must be tested on the same images",
                received=f"{min(missing)} not in {where}{others}",
                remedy="Finish the missing folds first",
            )


def _require_once(rule: str, names: Iterable[str], where: str = "") -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise RunError(rule, received=f"{name} twice{where}")


def _summary(
    folds: Sequence[FoldResult],
    found: _Predictions,
    members: IntArray,
    patients: Sequence[str],
    classes: Sequence[str],
    resampling: Resampling,
) -> dict[str, Any]:
    summaries = [summarize(fold.labels, fold.probabilities, classes) for fold in folds]
    rows = np.array([[row["accuracy"], *(row["macro"][name] for name in METRICS[1:])] for row in summaries])
    spread = rows.std(axis=0, ddof=1).tolist() if len(rows) > 1 else [None] * len(METRICS)
    correct, groups = found.correct(), members[found.images]
    data = found.labels, found.probabilities
    # More resamples are for the comparisons' p values alone, and these take longer.
    few = replace(resampling, samples=min(resampling.samples, _RESAMPLING.samples))
    scores, score_intervals = score_metrics(*data, groups, few)
    return {
        **{key: folds[0].parameters.get(key) for key in SIZES},
        "folds": [
            {"fold": fold.fold, "seed": fold.seed, **{key: row[key] for key in _FOLD_KEYS}}
            for fold, row in zip(folds, summaries, strict=True)
        ],
        "mean": dict(zip(METRICS, rows.mean(axis=0).tolist(), strict=True)),
        "std": dict(zip(METRICS, spread, strict=True)),
        "pooled": summarize(*data, classes) | scores,
        "intervals": {
            "accuracy_wilson": list(wilson(float(correct.sum()), len(correct), resampling.level)),
            **clustered_bootstrap(found.labels, found.classes, groups, classes, resampling),
            **score_intervals,
        },
        "tumor_classes": tumor_class_metrics(*data, groups, classes, few),
        "per_patient": group_metrics(*data, [patients[i] for i in found.images], classes, few, found.repeats),
    }


def _comparisons(found: Mapping[str, _Predictions], members: IntArray, resampling: Resampling) -> list[dict[str, Any]]:
    """Every pair of models, in the order of the models; p values adjusted over all pairs."""
    if len(found) < 2:
        return []
    correct = np.stack([one.correct() for one in found.values()], axis=1)
    differences = paired_bootstrap(correct, members, resampling)
    tests = [
        mcnemar(correct[:, difference.first] == 1, correct[:, difference.second] == 1)
        if a.is_single() and b.is_single()
        else None
        for difference, (a, b) in zip(differences, combinations(found.values(), 2), strict=True)
    ]
    bootstrap_p = holm([difference.p for difference in differences])
    mcnemar_p = iter(holm([test.p for test in tests if test]))
    names, comparisons = list(found), []
    for difference, adjusted, test in zip(differences, bootstrap_p, tests, strict=True):
        pair = [names[difference.first], names[difference.second]]
        comparisons.append(
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
    return comparisons


def conclusion(models: Sequence[str], difference: Difference, adjusted_p: float, level: float) -> str:
    """A sentence: whether two models differ, by the grouped bootstrap's adjusted p at 0.05."""
    value, (low, high) = 100 * difference.value, (100 * end for end in difference.interval)
    first, second = models
    # p is adjusted for all pairs and the interval is not, so p may be large where the interval excludes 0.
    sureness = f"{100 * level:g} % interval {{:z.2f}} to {{:z.2f}}, p adjusted for all pairs {adjusted_p:.2g}"
    if adjusted_p > _SIGNIFICANT:
        figures = f"difference {value:z.2f} points, {sureness.format(low, high)}"
        return f"{first} and {second} cannot be told apart on these images ({figures}): it may be noise"
    if value < 0:
        first, second, value, low, high = second, first, -value, -high, -low
    return f"{first} is better than {second} by {value:z.2f} points ({sureness.format(low, high)}): more than noise"
