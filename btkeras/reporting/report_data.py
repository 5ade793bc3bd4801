"""Several sources joined: every model with its metrics, and what keeps models from being compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.config import ExperimentConfig
from btkeras.config_io import changed_keys
from btkeras.errors import RunError
from btkeras.experiments.summary import summarize_experiment
from btkeras.metrics import METRICS
from btkeras.metrics.calibration import without_temperature
from btkeras.metrics.conformal import prediction_sets
from btkeras.reporting.document import slug
from btkeras.reporting.sources import Source, TrainedRun, read_source

# What distinguishes the models of an experiment anyway.
_EXPECTED = ("model.name", "cv.models", "cv.folds", "cv.overrides", "cv.seeds", "cv.test", "train.seed")
# More of them nobody reads.
_NAMED_KEYS = 6
# Of the calibration.
STAGES = ("before", "after")
_APART = "Their metrics do not compare."


@dataclass(frozen=True)
class ReportedModel:
    """A model of a report: a unique name and its slug, its name in the registry, source, summary and trainings."""

    name: str
    slug: str
    model: str
    source: Source
    metrics: Mapping[str, Any]
    runs: tuple[TrainedRun, ...]

    @property
    def accuracy(self) -> float:
        """Mean over the trainings."""
        return float(self.metrics["mean"]["accuracy"])

    @property
    def spreads(self) -> dict[str, dict[str, float | None]]:
        """``mean`` and ``std`` over the trainings of each of ``METRICS``."""
        std = self.metrics["std"] or {}
        return {name: {"mean": self.metrics["mean"][name], "std": std.get(name)} for name in METRICS}

    @property
    def accuracy_interval(self) -> list[float]:
        """The bootstrap's interval; Wilson's where every prediction is right, or wrong, and that has no width."""
        intervals = self.metrics["intervals"]
        low, high = intervals["accuracy"]
        return [low, high] if high > low else list(intervals["accuracy_wilson"])

    @property
    def correct(self) -> int:
        """Number of right predictions of all trainings."""
        return sum(row[i] for i, row in enumerate(self.metrics["pooled"]["confusion_matrix"]))

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """``[n]`` test images of all trainings."""
        return tuple(path for run in self.runs for path in run.result.paths)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """``[n]`` class indices."""
        return np.concatenate([run.result.labels for run in self.runs])

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """``[n, classes]``, calibrated where the trainings are."""
        return np.concatenate([run.result.probabilities for run in self.runs])

    @cached_property
    def misclassified(self) -> set[str]:
        """Test images that it is wrong about at least once."""
        wrong = np.flatnonzero(self.probabilities.argmax(axis=1) != self.labels)
        return {self.paths[i] for i in wrong}

    @property
    def is_calibrated(self) -> bool:
        """Whether every training is."""
        return all(run.calibration.get("conformal") for run in self.runs)

    @cached_property
    def temperatures(self) -> list[float]:
        """Of the trainings; 1 where one is not calibrated."""
        return [float(run.calibration.get("temperature", 1)) for run in self.runs]

    @cached_property
    def stages(self) -> dict[str, NDArray[np.float64]]:
        """Probabilities ``[n, classes]`` ``before`` calibration and, where every training is calibrated, ``after``."""
        raw = [
            without_temperature(run.result.probabilities, temperature)
            for run, temperature in zip(self.runs, self.temperatures, strict=True)
        ]
        before = {"before": np.concatenate(raw)}
        return before | {"after": self.probabilities} if self.is_calibrated else before

    def prediction_sets(self) -> dict[float, NDArray[np.bool_]]:
        """Conformal sets ``[n, classes]`` by wanted coverage; empty if not every training is calibrated."""
        if not self.is_calibrated:
            return {}
        # Each training has thresholds of its own.
        rows = zip(*(run.calibration["conformal"]["sets"] for run in self.runs), strict=True)
        return {row[0]["coverage"]: self._sets([own["threshold"] for own in row]) for row in rows}

    def _sets(self, thresholds: Sequence[float]) -> NDArray[np.bool_]:
        found = [prediction_sets(r.result.probabilities, own) for r, own in zip(self.runs, thresholds, strict=True)]
        return np.concatenate(found)

    def known(self, key: str) -> list[Any]:
        """Values of a manifest's key in its runs, where known."""
        values = [run.manifest.get(key) for run in self.runs]
        return [value for value in values if value is not None]


@dataclass(frozen=True)
class ReportData:
    """What a report is about.

    Attributes:
        sources: As they were named.
        models: Every model of every source.
        comparisons: Of all pairs that were tested on the same images, as in a summary.
        differences: Why some models must not be compared, as sentences.
    """

    sources: tuple[Source, ...]
    models: tuple[ReportedModel, ...]
    comparisons: tuple[Mapping[str, Any], ...]
    differences: tuple[str, ...]

    @property
    def ranked(self) -> list[ReportedModel]:
        """The models by mean accuracy, the best first."""
        return sorted(self.models, key=lambda model: -model.accuracy)

    @property
    def best(self) -> ReportedModel:
        """The model of the highest mean accuracy, of several the first."""
        return self.ranked[0]

    @property
    def pooled(self) -> str:
        """Which predictions a metric is of that is not one of single trainings, as words."""
        several = any(len(model.runs) > 1 for model in self.models)
        return "the predictions of all folds together" if several else "the predictions for the test subset"

    def of_model(self, name: str) -> list[ReportedModel]:
        """The models of a name: one a source at most."""
        return [model for model in self.models if model.model == name]


def load_report_data(
    paths: Sequence[Path], intervals_group_by: str | None = None, cache: Path | None = None
) -> ReportData:
    """Reads and joins sources.

    Args:
        paths: Their folders.
        intervals_group_by: What intervals are clustered by; None takes the groups of the splits.
        cache: Folder that keeps what is found in the images.

    Raises:
        RunError: If a folder is no finished source or is named twice.
    """
    repeated = [path for path, times in Counter(path.resolve() for path in paths).items() if times > 1]
    if repeated:
        raise RunError("A report must be given each RUN once", received=f"{repeated[0]} twice")
    sources = tuple(read_source(path, intervals_group_by, cache) for path in paths)
    models = _unique_names([model for source in sources for model in _models(source)])
    return ReportData(sources, models, tuple(_comparisons(models)), tuple(_differences(sources)))


def _models(source: Source) -> list[ReportedModel]:
    return [
        ReportedModel(name, slug(name), name, source, metrics, tuple(run for run in source.runs if run.model == name))
        for name, metrics in source.summary["models"].items()
    ]


def _unique_names(models: Sequence[ReportedModel]) -> tuple[ReportedModel, ...]:
    """Puts the source's folder behind a name that occurs twice: its name, or its path where that is the same too."""
    names = Counter(model.model for model in models)
    places = Counter((model.model, model.source.path.name) for model in models)
    found: list[ReportedModel] = []
    for model in models:
        path = model.source.path
        place = path.name if places[model.model, path.name] == 1 else path
        name = model.model if names[model.model] == 1 else f"{model.model} ({place})"
        found.append(replace(model, name=name, slug=_unique(slug(name), {other.slug for other in found})))
    return tuple(found)


def _unique(name: str, taken: Collection[str]) -> str:
    candidates = (name, *(f"{name}-{number}" for number in range(2, len(taken) + 2)))
    return next(candidate for candidate in candidates if candidate not in taken)


def _comparisons(models: Sequence[ReportedModel]) -> Iterator[Mapping[str, Any]]:
    """Of every two models that share splits: the source's own, or, over several sources, by the report's names."""
    shared: dict[tuple[Any, ...], list[ReportedModel]] = {}
    for model in models:
        shared.setdefault(model.source.tested, []).append(model)
    for members in shared.values():
        source, summary = members[0].source, members[0].source.summary
        if any(model.source is not source or model.name != model.model for model in members):
            results = [replace(run.result, model=model.name) for model in members for run in model.runs]
            summary = summarize_experiment(
                results, summary["classes"], groups=source.groups, test=source.test or "fixed"
            )
        yield from summary["comparisons"]


def _differences(sources: Sequence[Source]) -> list[str]:
    first, found = sources[0], []
    for other in sources[1:]:
        both = f"{first.path} and {other.path}"
        if other.dataset_digest != first.dataset_digest:
            found.append(f"Different datasets: {both} do not have the same images and labels. {_APART}")
        elif other.tested != first.tested:
            found.append(f"Different splits: {both} were not tested on the same images. {_APART}")
        settings = _settings(first.config, other.config)
        if settings:
            found.append(f"Different settings: {both} were trained with other {settings}.")
    return found


def _settings(one: ExperimentConfig, other: ExperimentConfig) -> str:
    keys = [key for key in changed_keys(one, other) if key not in _EXPECTED]
    more = f" and {len(keys) - _NAMED_KEYS} more settings" if len(keys) > _NAMED_KEYS else ""
    return ", ".join(keys[:_NAMED_KEYS]) + more
