"""Several sources joined: every network with its figures, and what keeps them from being compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.config import ExperimentConfig
from btkeras.config_io import changed_keys
from btkeras.errors import RunError
from btkeras.experiments.summary import compare_models
from btkeras.reporting.numbers import slug
from btkeras.reporting.sources import Source, TrainedRun, read_source, regroup

# What distinguishes the networks of an experiment anyway.
_EXPECTED = ("model.name", "cv.models", "cv.folds", "cv.overrides", "cv.seeds", "cv.test", "train.seed")
# More of them nobody reads.
_NAMED_KEYS = 6
_APART = "Their figures do not compare."


@dataclass(frozen=True)
class ReportedModel:
    """A network of a report.

    Attributes:
        name: Unique in the report.
        slug: The same, of letters, digits and hyphens.
        model: Name of its network.
        source: Where it was trained.
        figures: Its part of the source's summary.
        runs: Its trainings, in the order of seed and fold.
    """

    name: str
    slug: str
    model: str
    source: Source
    figures: Mapping[str, Any]
    runs: tuple[TrainedRun, ...]

    @property
    def accuracy(self) -> float:
        """Mean over the folds."""
        return float(self.figures["mean"]["accuracy"])

    @cached_property
    def answers(self) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.float64]]:
        """Paths, labels and probabilities of all folds' test parts."""
        results = [run.result for run in self.runs]
        return (
            tuple(path for result in results for path in result.paths),
            np.concatenate([result.labels for result in results]),
            np.concatenate([result.probabilities for result in results]),
        )

    def known(self, key: str) -> list[Any]:
        """Values of a manifest's key in its runs, where known."""
        values = [run.manifest.get(key) for run in self.runs]
        return [value for value in values if value is not None]


@dataclass(frozen=True)
class ReportData:
    """What a report is about.

    Attributes:
        sources: As they were named.
        networks: Every network of every source.
        comparisons: Of all pairs that were tested on the same images, as in a summary.
        differences: Why some networks must not be compared, as sentences.
    """

    sources: tuple[Source, ...]
    networks: tuple[ReportedModel, ...]
    comparisons: tuple[Mapping[str, Any], ...]
    differences: tuple[str, ...]

    @property
    def best(self) -> ReportedModel:
        """The network of the highest mean accuracy, of several the first."""
        return max(self.networks, key=lambda network: network.accuracy)

    @property
    def pooled(self) -> str:
        """In words, which answers a figure is of that is not one of single trainings."""
        several = any(len(network.runs) > 1 for network in self.networks)
        return "the answers of all folds together" if several else "the answers to the test part"

    def of_model(self, model: str) -> list[ReportedModel]:
        """The networks of a name: one a source at most."""
        return [network for network in self.networks if network.model == model]


def load_report_data(paths: Sequence[Path], intervals_by: str | None = None, cache: Path | None = None) -> ReportData:
    """Reads and joins sources.

    Args:
        paths: Their folders.
        intervals_by: What intervals are clustered by; None takes the groups of the splits.
        cache: Folder that keeps what is found in the images.

    Raises:
        RunError: If a folder is no finished source or is named twice.
    """
    repeated = [path for path, count in Counter(path.resolve() for path in paths).items() if count > 1]
    if repeated:
        raise RunError("A report must be given each RUN once", received=f"{repeated[0]} twice")
    sources = tuple(read_source(path) for path in paths)
    if intervals_by:
        sources = tuple(regroup(source, intervals_by, cache) for source in sources)
    networks = _unique_names([network for source in sources for network in _networks(source)])
    return ReportData(sources, networks, tuple(_comparisons(networks)), tuple(_differences(sources)))


def _networks(source: Source) -> list[ReportedModel]:
    return [
        ReportedModel(
            model, slug(model), model, source, figures, tuple(run for run in source.runs if run.model == model)
        )
        for model, figures in source.summary["models"].items()
    ]


def _unique_names(networks: Sequence[ReportedModel]) -> tuple[ReportedModel, ...]:
    """Puts the source's folder behind a name that occurs twice: its name, or its path where that is the same too."""
    models = Counter(network.model for network in networks)
    short = Counter((network.model, network.source.path.name) for network in networks)
    found: list[ReportedModel] = []
    for network in networks:
        path = network.source.path
        place = path.name if short[network.model, path.name] == 1 else path
        name = network.model if models[network.model] == 1 else f"{network.model} ({place})"
        found.append(replace(network, name=name, slug=_unique(slug(name), {other.slug for other in found})))
    return tuple(found)


def _unique(name: str, taken: Collection[str]) -> str:
    candidates = (name, *(f"{name}-{number}" for number in range(2, len(taken) + 2)))
    return next(candidate for candidate in candidates if candidate not in taken)


def _comparisons(networks: Sequence[ReportedModel]) -> list[Mapping[str, Any]]:
    """Of the networks that share splits: the source's own, or, for several sources, computed over all of them.

    Computed too where a network is called otherwise than in its source: it has the same numbers, and sentences that
    say which is meant.
    """
    shared: dict[tuple[Any, ...], list[ReportedModel]] = {}
    for network in networks:
        shared.setdefault(_tested(network.source), []).append(network)
    found: list[Mapping[str, Any]] = []
    for members in shared.values():
        several = len({network.source.path for network in members}) > 1
        renamed = any(network.name != network.model for network in members)
        found += _compared(members) if several or renamed else members[0].source.summary["comparisons"]
    return found


def _compared(networks: Sequence[ReportedModel]) -> Sequence[Mapping[str, Any]]:
    results = [replace(run.result, model=network.name) for network in networks for run in network.runs]
    source = networks[0].source
    test = source.summary["protocol"]["test"]
    return compare_models(results, source.summary["classes"], groups=source.groups, test=test)


def _tested(source: Source) -> tuple[Any, ...]:
    return source.dataset_digest, source.split_digests, tuple(source.summary["classes"]), tuple(_paths(source))


def _paths(source: Source) -> list[str]:
    """The tested images: sources with equal splits may have left out different broken ones."""
    return sorted({path for run in source.runs for path in run.result.paths})


def _differences(sources: Sequence[Source]) -> list[str]:
    first, found = sources[0], []
    for other in sources[1:]:
        both = f"{first.path} and {other.path}"
        if other.dataset_digest != first.dataset_digest:
            found.append(f"Different datasets: {both} do not have the same images and labels. {_APART}")
        elif _tested(other) != _tested(first):
            found.append(f"Different splits: {both} were not tested on the same images. {_APART}")
        settings = _settings(first.config, other.config)
        if settings:
            found.append(f"Different settings: {both} were trained with other {settings}.")
    return found


def _settings(one: ExperimentConfig, other: ExperimentConfig) -> str:
    keys = [key for key in changed_keys(one, other) if key not in _EXPECTED]
    more = f" and {len(keys) - _NAMED_KEYS} more settings" if len(keys) > _NAMED_KEYS else ""
    return ", ".join(keys[:_NAMED_KEYS]) + more
