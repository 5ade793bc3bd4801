"""Several sources joined: every model with its metrics, and what keeps models from being compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.config_io import changed_keys
from btkeras.decisions.calibration import prediction_sets
from btkeras.errors import RunError
from btkeras.experiments.near_duplicates import pooled_without_near_duplicates
from btkeras.metrics import METRICS
from btkeras.metrics.calibration import without_temperature
from btkeras.reporting.document import slug
from btkeras.reporting.sources import Source, TrainedRun, read_source

# What distinguishes the models of an experiment anyway.
_EXPECTED = ("model.name", "cv.models", "cv.folds", "cv.overrides", "cv.seeds", "cv.test", "train.seed")
# More settings that differ nobody reads.
_NAMED_KEYS = 6
# Of the calibration.
STAGES = ("before", "after")


@dataclass(frozen=True)
class ReportedModel:
    """A model of a report, with the predictions of all its trainings."""

    name: str  # unique in the report
    slug: str  # the same for anchors and files
    model: str  # in the registry
    source: Source
    metrics: Mapping[str, Any]  # of the source's summary
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
    def unfinished(self) -> str:
        """How far its training is, if that is unfinished; the first of several."""
        return next((run.unfinished for run in self.runs if run.unfinished), "")

    @property
    def accuracy_interval(self) -> list[float]:
        """Of all predictions, as of ``metrics.clustered_bootstrap``."""
        return list(self.metrics["intervals"]["accuracy"])

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
    def wrong(self) -> NDArray[np.int64]:
        """Indices of the wrong predictions."""
        return np.flatnonzero(self.probabilities.argmax(axis=1) != self.labels)

    @cached_property
    def without_near_duplicates(self) -> dict[str, Any] | None:
        """As ``near_duplicates.pooled_without_near_duplicates``, of all trainings."""
        return pooled_without_near_duplicates([run.without_near_duplicates for run in self.runs])

    @property
    def is_calibrated(self) -> bool:
        return all(run.calibration.get("conformal") for run in self.runs)

    @property
    def temperatures(self) -> list[float] | None:
        """Of the trainings, if all are calibrated."""
        return [float(run.calibration["temperature"]) for run in self.runs] if self.is_calibrated else None

    @cached_property
    def stages(self) -> dict[str, NDArray[np.float64]]:
        """Probabilities ``[n, classes]`` ``before`` calibration and, where every training is calibrated, ``after``."""
        raw = [
            without_temperature(run.result.probabilities, float(run.calibration.get("temperature", 1)))
            for run in self.runs
        ]
        before = {"before": np.concatenate(raw)}
        return before | {"after": self.probabilities} if self.is_calibrated else before

    def prediction_sets(self) -> dict[float, NDArray[np.bool_]]:
        """Conformal sets ``[n, classes]`` by wanted coverage; empty if not every training is calibrated."""
        sets: dict[float, list[NDArray[np.bool_]]] = {}
        # Each training has thresholds of its own.
        for run in self.runs if self.is_calibrated else ():
            for row in run.calibration["conformal"]["sets"]:
                found = prediction_sets(run.result.probabilities, row["threshold"])
                sets.setdefault(row["coverage"], []).append(found)
        return {coverage: np.concatenate(found) for coverage, found in sets.items()}


@dataclass(frozen=True)
class ReportData:
    """What a report is about."""

    sources: tuple[Source, ...]  # as they were named
    models: tuple[ReportedModel, ...]  # of every source
    comparisons: tuple[Mapping[str, Any], ...]  # of all pairs that were tested on the same images, as in a summary
    differences: tuple[str, ...]  # why some models must not be compared, as sentences

    @property
    def ranked(self) -> list[ReportedModel]:
        """The models by mean accuracy, the best first."""
        return sorted(self.models, key=lambda model: -model.accuracy)

    @property
    def best(self) -> ReportedModel:
        """The model of the highest mean accuracy, of several the first."""
        return self.ranked[0]

    @property
    def title(self) -> str:
        """The sources' folders; of equal names with the folder above, as of folds of different networks."""
        paths = [source.path.resolve() for source in self.sources]
        times = Counter(path.name for path in paths)
        return ", ".join(path.name if times[path.name] == 1 else f"{path.parent.name}/{path.name}" for path in paths)

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
    """Reads and joins sources; arguments and errors as of ``read_source``, and a folder must not be named twice."""
    repeated = [path for path, times in Counter(path.resolve() for path in paths).items() if times > 1]
    if repeated:
        raise RunError("A report must be given each RUN once", received=f"{repeated[0]} twice")
    sources = tuple(read_source(path, intervals_group_by, cache) for path in paths)
    models = _models(sources)
    return ReportData(sources, models, tuple(_comparisons(models)), tuple(_differences(sources)))


def _models(sources: Sequence[Source]) -> tuple[ReportedModel, ...]:
    """The models, a name that occurs twice followed by its source's folder, or path where that is the same too."""
    found = [(model, source) for source in sources for model in source.summary["models"]]
    names = Counter(model for model, _ in found)
    places = Counter((model, source.path.name) for model, source in found)
    models: dict[str, ReportedModel] = {}
    for model, source in found:
        place = source.path.name if places[model, source.path.name] == 1 else source.path
        name = model if names[model] == 1 else f"{model} ({place})"
        numbered = (f"{slug(name)}-{number}" if number > 1 else slug(name) for number in count(1))
        unique = next(candidate for candidate in numbered if candidate not in models)
        runs = tuple(run for run in source.runs if run.model == model)
        models[unique] = ReportedModel(name, unique, model, source, source.summary["models"][model], runs)
    return tuple(models.values())


def _comparisons(models: Sequence[ReportedModel]) -> Iterator[Mapping[str, Any]]:
    """Of every two models that share splits: the source's own, or, over several sources, by the report's names."""
    shared: dict[tuple[Any, ...], list[ReportedModel]] = {}
    for model in models:
        shared.setdefault(model.source.tested, []).append(model)
    for members in shared.values():
        source = members[0].source
        summary = source.summary
        if any(model.source is not source or model.name != model.model for model in members):
            summary = source.summarize([replace(r.result, model=model.name) for model in members for r in model.runs])
        yield from summary["comparisons"]


def _differences(sources: Sequence[Source]) -> Iterator[str]:
    first = sources[0]
    for other in sources[1:]:
        both = f"{first.path} and {other.path}"
        if other.dataset_digest != first.dataset_digest:
            yield f"Different datasets: {both} do not have the same images and labels. Their metrics do not compare."
        elif other.tested != first.tested:
            yield f"Different splits: {both} were not tested on the same images. Their metrics do not compare."
        keys = [key for key in changed_keys(first.config, other.config) if key not in _EXPECTED]
        if keys:
            more = f" and {len(keys) - _NAMED_KEYS} more settings" if len(keys) > _NAMED_KEYS else ""
            yield f"Different settings: {both} were trained with other {', '.join(keys[:_NAMED_KEYS])}{more}."
