"""What a report is made from: a cross-validation's folder, or a single run's, in the same terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from btkeras.config import ExperimentConfig
from btkeras.errors import DataError, RunError
from btkeras.evaluation.results import read_predictions
from btkeras.experiments.experiment import Experiment, is_experiment
from btkeras.experiments.summary import FoldResult, summarize_experiment
from btkeras.files import read_json
from btkeras.runs import Run, dataset_of
from btkeras.splitting.groups import group_records
from btkeras.splitting.splits import files_digest

_SUMMARY_KEYS = ("protocol", "dataset", "classes", "models", "comparisons", "bootstrap")


@dataclass(frozen=True)
class TrainedRun:
    """A run of a source: its folder, model, seed, and fold from 0."""

    run: Run
    model: str
    seed: int
    fold: int

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """What is known about the run."""
        return self.run.manifest()

    @cached_property
    def result(self) -> FoldResult:
        """The predictions for the test subset."""
        paths, labels, probabilities = read_predictions(self.run.predictions_file, self.manifest["classes"])
        return FoldResult(self.model, self.seed, self.fold, paths, labels, probabilities, self.manifest)

    @cached_property
    def calibration(self) -> Mapping[str, Any]:
        """The calibration metrics of its evaluation; empty for runs of before there were any."""
        # Not calibration.json: metrics.json is written with the predictions, and kept where weights are not.
        metrics = self.run.metrics() if self.run.metrics_file.is_file() else {}
        return metrics.get("calibration") or {}


@dataclass(frozen=True)
class Source:
    """A finished cross-validation, or a single run as one of one fold.

    Attributes:
        path: The folder.
        is_single: Whether it is a single run.
        config: The configuration as it was resolved.
        manifest: What is known about it.
        summary: As a cross-validation's ``summary.json``.
        splits: The documents of the folds' splits.
        runs: Every training.
        regrouped_by: What the intervals are grouped by, if it is not what the splits say; else "".
    """

    path: Path
    is_single: bool
    config: ExperimentConfig
    manifest: Mapping[str, Any]
    summary: Mapping[str, Any]
    splits: tuple[Mapping[str, Any], ...]
    runs: tuple[TrainedRun, ...]
    regrouped_by: str = ""

    @property
    def dataset_digest(self) -> str:
        """Digest of the dataset's list of files."""
        return str(self.splits[0]["dataset_digest"])

    @property
    def split_digests(self) -> tuple[str, ...]:
        """Digests of the folds' splits."""
        return tuple(str(split["digest"]) for split in self.splits)

    @property
    def groups(self) -> Mapping[str, str]:
        """Group of an image, such as its patient, by path."""
        return self.splits[0].get("groups", {})

    @property
    def tested(self) -> tuple[Any, ...]:
        """What must be equal for models to compare: dataset, splits, classes, and the images that could be read."""
        paths = tuple(sorted({path for run in self.runs for path in run.result.paths}))
        return self.dataset_digest, self.split_digests, tuple(self.summary["classes"]), paths


def read_source(path: Path) -> Source:
    """Reads a finished cross-validation or an evaluated run.

    Raises:
        RunError: If the folder is neither, or a file of it cannot be read.
    """
    if is_experiment(path):
        return _read_experiment(Experiment(path))
    run = Run(path)
    if not (run.config_file.is_file() and run.manifest_file.is_file() and run.splits_file.is_file()):
        raise RunError(
            "A report must be made of cross-validations and runs",
            received=f"{path}, which is neither",
            remedy="Name folders given to `btkeras cv --out` or `btkeras train --out`",
        )
    return _read_run(run)


def regroup(source: Source, group_by: str, cache: Path | None = None) -> Source:
    """The same predictions, with intervals and comparisons clustered by other groups than those of the splits.

    Args:
        source: Whose predictions.
        group_by: See ``splitting.groups.group_records``.
        cache: Folder that keeps what is found in the images.

    Raises:
        DataError: If the dataset is gone, has changed, or cannot be grouped so.
    """
    dataset = dataset_of(source.manifest)
    if files_digest(dataset.records) != source.dataset_digest:
        raise DataError(
            "The dataset must be the one that was split",
            received=f"{dataset.root}, whose list of files differs from that of {source.path}",
            remedy="Restore it, or leave --intervals-group-by out",
        )
    groups = group_records(dataset, group_by, cache)
    results, test = [run.result for run in source.runs], source.summary["protocol"]["test"]
    metrics = summarize_experiment(results, source.summary["classes"], groups=groups, test=test)
    splits = tuple({**split, "groups": groups} for split in source.splits)
    return replace(source, summary={**source.summary, **metrics}, splits=splits, regrouped_by=group_by)


def _read_experiment(experiment: Experiment) -> Source:
    if not experiment.summary_file.is_file():
        raise RunError(
            "A cross-validation must be finished before it is reported",
            received=f"{experiment.path} without {experiment.summary_file.name}",
            remedy=f"Finish it: btkeras cv --resume --out {experiment.path}",
        )
    config = experiment.config()
    return Source(
        path=experiment.path,
        is_single=False,
        config=config,
        manifest=experiment.manifest(),
        summary=_read_summary(experiment),
        splits=tuple(read_json(experiment.splits_file(fold)) for fold in range(config.cv.folds)),
        runs=tuple(TrainedRun(experiment.run(job), job.model, job.seed, job.fold) for job in experiment.jobs()),
    )


def _read_summary(experiment: Experiment) -> dict[str, Any]:
    summary = read_json(experiment.summary_file)
    missing = [key for key in _SUMMARY_KEYS if key not in summary]
    if missing:
        raise RunError(
            f"{experiment.summary_file} must be as `btkeras cv` writes it",
            received=f"no {', '.join(missing)} in it",
            remedy=f"Write it again: btkeras cv --resume --out {experiment.path}",
        )
    return summary


def _read_run(run: Run) -> Source:
    if not (run.metrics_file.is_file() and run.predictions_file.is_file()):
        raise RunError(
            "A run must be evaluated before it is reported",
            received=f"{run.path} without {run.metrics_file.name} or {run.predictions_file.name}",
            remedy=f"Evaluate it: btkeras evaluate {run.path}",
        )
    config, manifest, split = run.config(), run.manifest(), read_json(run.splits_file)
    trained = TrainedRun(run, config.model.name, config.train.seed, int(manifest.get("fold") or 0))
    protocol = {
        "group_by": split.get("group_by", "image"),
        "test": "fixed",
        "folds": 1,
        "seeds": [trained.seed],
        "split_seed": config.data.split_seed,
        "models": [trained.model],
    }
    dataset = {
        "images": manifest.get("images", {}),
        "digest": split["dataset_digest"],
        "patients": manifest.get("patients"),
    }
    metrics = summarize_experiment([trained.result], run.classes(), groups=split.get("groups", {}), test="fixed")
    summary = {"protocol": protocol, "dataset": dataset, **metrics}
    return Source(run.path, True, config, manifest, summary, (split,), (trained,))
