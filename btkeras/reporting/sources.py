"""What a report is made from: a cross-validation's folder, or a single run's, in the same terms."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from btkeras.checksums import check_file, read_document, remedy
from btkeras.config import ExperimentConfig
from btkeras.errors import DataError, RunError
from btkeras.evaluation.results import read_predictions
from btkeras.experiments.experiment import Experiment, is_experiment, require_finished
from btkeras.experiments.patients import known_patients
from btkeras.experiments.summary import FoldResult, summarize_experiment
from btkeras.runs import Run, dataset_of
from btkeras.splitting.groups import group_records
from btkeras.splitting.published import OFFICIAL_FOLD
from btkeras.splitting.split_file import files_digest


@dataclass(frozen=True)
class TrainedRun:
    """A run of a source: its folder, model, seed, and fold from 0."""

    run: Run
    model: str
    seed: int
    fold: int

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        return self.run.manifest()

    @cached_property
    def result(self) -> FoldResult:
        """The predictions for the test subset."""
        file, images = self.run.predictions_file, self._metrics.get("images")
        paths, labels, probabilities = read_predictions(file, self.manifest["classes"])
        # Without checksums, in older runs, a cut file shows only so.
        if images not in (None, len(paths)):
            rule = f"{file} and {self.run.metrics_file.name} must be of one evaluation"
            raise RunError(rule, received=f"{len(paths):,} and {images:,} images", remedy=remedy(file))
        return FoldResult(self.model, self.seed, self.fold, paths, labels, probabilities, self.manifest)

    @cached_property
    def history(self) -> dict[str, list[float]]:
        """The columns of ``history.csv``; empty for what does not learn in epochs."""
        file = self.run.history_file
        if file.is_file():
            check_file(file)
        try:
            rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines())) if file.is_file() else []
            return {name: [float(row[name]) for row in rows] for name in (rows[0] if rows else ())}
        except (OSError, ValueError, TypeError, csv.Error) as error:
            rule = f"{file} must be a CSV file of numbers, a line per epoch"
            raise RunError(rule, received=error, remedy=remedy(file)) from error

    @cached_property
    def calibration(self) -> Mapping[str, Any]:
        """The calibration metrics of its evaluation; empty for runs of before there were any."""
        # Not calibration.json: metrics.json is written with the predictions, and kept where weights are not.
        return self._metrics.get("calibration") or {}

    @property
    def risk_coverage(self) -> Mapping[str, Any]:
        """The risk-coverage curve of its evaluation; empty for runs of before there was one."""
        return self._metrics.get("risk_coverage") or {}

    @cached_property
    def unfinished(self) -> str:
        """How far the training was that was tested, or is, ``epoch 3 of 36, unfinished``; "" if it is finished."""
        return str(self._metrics.get("unfinished", "")) or self.run.unfinished()

    @property
    def without_near_duplicates(self) -> Mapping[str, Any] | None:
        """The metrics of the test images without a near-duplicate in training; None where that was not measured."""
        return self._metrics.get("without_near_duplicates")

    @cached_property
    def _metrics(self) -> Mapping[str, Any]:
        return self.run.metrics() if self.run.metrics_file.is_file() else {}


@dataclass(frozen=True)
class Source:
    """A finished cross-validation, or a single run as one of one fold."""

    path: Path  # the folder
    config: ExperimentConfig  # as it was resolved
    manifest: Mapping[str, Any]  # what is known about it
    splits: tuple[Mapping[str, Any], ...]  # documents of the folds' splits
    runs: tuple[TrainedRun, ...]  # every training
    test: str  # "rotating" or "fixed", see ``CvConfig.test``; "" for a single run
    groups: Mapping[str, str]  # group of an image, such as its patient, by path: what intervals are clustered by
    regrouped_by: str = ""  # what the groups are of, if it is not what the splits say

    @cached_property
    def summary(self) -> Mapping[str, Any]:
        """Metrics and comparisons of the models, and the bootstrap, as in a ``summary.json``."""
        return self.summarize([run.result for run in self.runs])

    def summarize(self, results: Sequence[FoldResult]) -> Mapping[str, Any]:
        """The same of other results on its splits."""
        return summarize_experiment(
            results,
            self.manifest["classes"],
            groups=self.groups,
            patients=known_patients(self.manifest, self.splits[0]),
            test=self.test or "fixed",
        )

    @property
    def group_by(self) -> str:
        """What the splits are by."""
        return str(self.splits[0].get("group_by", "image"))

    @property
    def split_kind(self) -> str:
        """What the splits are by, with the column of a published one."""
        column = self.splits[0].get("column", "")
        return f"{self.group_by} (column {column})" if column else self.group_by

    @property
    def published_test(self) -> bool:
        """Whether the test subset is one that was published, by a column other than that of FigShare's folds."""
        return self.splits[0].get("column", OFFICIAL_FOLD) != OFFICIAL_FOLD

    @property
    def dataset_digest(self) -> str:
        """Digest of the dataset's list of files."""
        return str(self.splits[0]["dataset_digest"])

    @property
    def split_digests(self) -> tuple[str, ...]:
        return tuple(str(split["digest"]) for split in self.splits)

    @property
    def tested(self) -> tuple[Any, ...]:
        """What must be equal for models to compare: dataset, splits, classes, and the images that could be read."""
        paths = tuple(sorted({path for run in self.runs for path in run.result.paths}))
        return self.dataset_digest, self.split_digests, tuple(self.manifest["classes"]), paths


def read_source(path: Path, group_by: str | None = None, cache: Path | None = None) -> Source:
    """Reads a finished cross-validation or an evaluated run.

    Args:
        path: The folder.
        group_by: What intervals are clustered by, see ``splitting.groups.group_records``; None: the splits' groups.
        cache: Folder that keeps what is found in the images.

    Raises:
        RunError: If the folder is neither, or a file of it cannot be read.
        DataError: If the dataset must be regrouped but is gone, has changed, or cannot be grouped so.
    """
    run = Run(path)
    if is_experiment(path):
        source = _read_experiment(Experiment(path))
    elif run.config_file.is_file() and run.manifest_file.is_file() and run.splits_file.is_file():
        source = _read_run(run)
    else:
        raise RunError(
            "A report must be made of cross-validations and runs",
            received=f"{path}, which is neither",
            remedy="Name folders given to `btkeras cv --out` or `btkeras train --out`",
        )
    if not group_by:
        return source
    dataset = dataset_of(source.manifest)
    if files_digest(dataset.records) != source.dataset_digest:
        raise DataError(
            "The dataset must be the one that was split",
            received=f"{dataset.root}, whose list of files differs from that of {source.path}",
            remedy="Restore it, or leave --intervals-group-by out",
        )
    return replace(source, groups=group_records(dataset, group_by, cache), regrouped_by=group_by)


def _read_experiment(experiment: Experiment) -> Source:
    require_finished(experiment)
    # Written last; its content is computed from the folds here too.
    if not experiment.summary_file.is_file():
        raise RunError(
            "A cross-validation must be finished before it is reported",
            received=f"{experiment.path} without {experiment.summary_file.name}",
            remedy=f"Finish it: btkeras cv --resume --out {experiment.path}",
        )
    read_document(experiment.summary_file)
    config = experiment.config()
    splits = tuple(read_document(experiment.splits_file(fold)) for fold in range(config.cv.folds))
    runs = tuple(TrainedRun(experiment.run(job), job.model, job.seed, job.fold) for job in experiment.jobs())
    groups = splits[0].get("groups", {})
    return Source(experiment.path, config, experiment.manifest(), splits, runs, config.cv.test, groups)


def _read_run(run: Run) -> Source:
    if not (run.metrics_file.is_file() and run.predictions_file.is_file()):
        state = run.unfinished()
        missing = f"{run.path} without {run.metrics_file.name} or {run.predictions_file.name}"
        raise RunError(
            "A run must be evaluated before it is reported",
            received=f"{missing} ({state})" if state else missing,
            remedy=f"Train on: btkeras train --resume --out {run.path}"
            if state
            else f"Evaluate it: btkeras evaluate {run.path}",
        )
    config, manifest, split = run.config(), run.manifest(), run.split_document()
    trained = TrainedRun(run, config.model.name, config.train.seed, int(manifest.get("fold") or 0))
    return Source(run.path, config, manifest, (split,), (trained,), "", split.get("groups", {}))
