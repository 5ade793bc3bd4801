"""A cross-validation: its folder with settings, splits, jobs and runs; running it; and its summary."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

from btkeras.checksums import read_document, record_files, recorded_file
from btkeras.config import ExperimentConfig
from btkeras.config_io import changed_keys, dump_config, override_config
from btkeras.datasets.dataset import Dataset
from btkeras.errors import RunError
from btkeras.evaluation.results import read_predictions
from btkeras.experiments.near_duplicates import pooled_without_near_duplicates
from btkeras.experiments.patients import known_patients
from btkeras.experiments.summary import FoldResult, summarize_experiment
from btkeras.files import new_folder, require_new, write_json, write_text
from btkeras.locks import locked, writing
from btkeras.machine import cache_folder
from btkeras.provenance import first_manifest
from btkeras.runs import MemberPath, Run, TrainingFolder
from btkeras.splitting.fingerprints import check_images
from btkeras.splitting.split_file import load_split, save_split
from btkeras.splitting.splits import Split, make_folds


@dataclass(frozen=True)
class Job:
    """One training of a cross-validation; ``index`` is its position in ``Experiment.jobs``, ``fold`` counts from 0."""

    index: int
    model: str
    seed: int
    fold: int

    def __str__(self) -> str:
        return f"{self.model}, seed {self.seed}, fold {self.fold}"


@dataclass(frozen=True)
class Experiment(TrainingFolder):
    """A cross-validation's folder: ``config.yaml``, ``manifest.json``, ``splits/``, a run per job, ``summary.json``."""

    summary_file = MemberPath("summary.json")
    splits = MemberPath("splits")

    def splits_file(self, fold: int) -> Path:
        """The split of a fold, which its runs copy."""
        return self.splits / f"fold_{fold}.json"

    def config(self) -> ExperimentConfig:
        return _read_config(self)

    def jobs(self) -> list[Job]:
        """Every training, fold by fold, so that all networks have some folds early."""
        config = self.config()
        order = product(config.cv.seeds, range(config.cv.folds), models(config))
        return [Job(index, model, seed, fold) for index, (seed, fold, model) in enumerate(order)]

    def run(self, job: Job) -> Run:
        """The run folder of a job, which may not be there yet."""
        seed = f"seed_{job.seed}" if len(self.config().cv.seeds) > 1 else ""
        return Run(self.path / job.model / seed / f"fold_{job.fold}")

    def is_finished(self, job: Job) -> bool:
        """Whether a job has been trained and tested: the metrics are written last, or by a test before the end."""
        run = self.run(job)
        return run.metrics_file.is_file() and not run.unfinished() and "unfinished" not in run.metrics()

    def log_file(self, job: Job) -> Path:
        """The output of a job's process."""
        return self.path / "logs" / f"{job.model}_seed_{job.seed}_fold_{job.fold}.log"

    def config_of(self, job: Job) -> ExperimentConfig:
        """The configuration of a job's run: the experiment's, with the model's overrides and the job's seed."""
        config = model_config(self.config(), job.model)
        return replace(config, train=replace(config.train, seed=job.seed))

    def use_dataset(self, dataset: Dataset) -> None:
        """Records where the dataset is now, also in unfinished runs; errors as ``Run.use_dataset``."""
        load_split(self.splits_file(0), dataset)
        with self.writing():
            self.update_manifest(dataset=str(dataset.root.resolve()))
        for job in self.jobs():
            if self.run(job).path.exists() and not self.is_finished(job):
                self.run(job).use_dataset(dataset)

    def split(self, fold: int, dataset: Dataset) -> Split:
        """The split of a fold, verified against the dataset, also as the folds before it have seen it."""
        seen = next((file for job in self.jobs() if (file := self.run(job).images_file).is_file()), None)
        if seen:
            check_images(seen, dataset.root)
        return load_split(self.splits_file(fold), dataset)

    def writing(self) -> AbstractContextManager[None]:
        """Waits until this process is the only one that writes to the manifest or the summary; see ``locks``."""
        return writing(self.path, wait=True)

    def working_on(self, job: Job) -> AbstractContextManager[Any]:
        """Waits until this process is the only one that does a job."""
        return locked(self.path / "locks" / f"job_{job.index}.lock", wait=True)


# The configuration is read for every job, and never changes.
_read_config = functools.cache(TrainingFolder.config)


def models(config: ExperimentConfig) -> tuple[str, ...]:
    """The networks that a cross-validation trains."""
    return config.cv.models or (config.model.name,)


def model_config(config: ExperimentConfig, name: str) -> ExperimentConfig:
    """The configuration of one network of a cross-validation, with its overrides."""
    changed = override_config(config, config.cv.overrides.get(name, ()))
    return replace(changed, model=replace(changed.model, name=name))


def create_experiment(
    path: Path,
    config: ExperimentConfig,
    dataset: Dataset,
    *,
    skip_broken: bool = False,
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> Experiment:
    """Makes an experiment's folder with its configuration, the splits of all folds and its manifest, all at once.

    ``facts`` are further entries of the manifest. Raises ``RunError`` if something is there already.
    """
    require_new(path)
    folds = make_folds(dataset, config.data, config.cv, cache_folder())
    seeds = {"train": list(config.cv.seeds), "split": config.data.split_seed}
    with new_folder(path) as temporary:
        experiment = Experiment(temporary)
        write_text(experiment.config_file, dump_config(config))
        for fold, split in enumerate(folds):
            save_split(split, dataset, experiment.splits_file(fold))
        manifest = first_manifest(config, dataset) | {"skip_broken": skip_broken, "seeds": seeds, **facts}
        write_json(experiment.manifest_file, manifest)
        record_files(temporary, [experiment.config_file, *map(experiment.splits_file, range(len(folds)))])
    return Experiment(path)


def is_experiment(path: Path) -> bool:
    """Whether a folder is a cross-validation's."""
    return Experiment(path).config_file.is_file() and Experiment(path).splits.is_dir()


def open_experiment(path: Path, config: ExperimentConfig | None = None) -> Experiment:
    """Opens a cross-validation's folder, and checks that its configuration equals ``config``, if given.

    Raises:
        RunError: If it is no such folder, or the configuration differs.
    """
    if not is_experiment(path):
        raise RunError(
            "A cross-validation's folder must hold config.yaml and splits/",
            received=path,
            remedy="Name the folder given to `btkeras cv --out`",
        )
    experiment = Experiment(path)
    different = changed_keys(experiment.config(), config) if config else []
    if different:
        raise RunError(
            "A resumed cross-validation must keep its configuration",
            received=f"another {', '.join(different)}",
            remedy=f"Leave the options that set it away, or start a new one (its own is in {experiment.config_file})",
        )
    return experiment


Executor = Callable[[Experiment, Sequence[Job]], None]


def unfinished(experiment: Experiment) -> list[Job]:
    """The jobs that are not finished."""
    return [job for job in experiment.jobs() if not experiment.is_finished(job)]


def require_finished(experiment: Experiment) -> None:
    """Raises ``RunError`` if a job is not finished."""
    if missing := unfinished(experiment):
        begun = [(job, experiment.run(job)) for job in missing if experiment.run(job).path.exists()]
        states = [f"{job}: {run.unfinished() or 'not tested yet'}" for job, run in begun] or [str(missing[0])]
        raise RunError(
            "A cross-validation must have finished every fold to be summarized or reported",
            received=f"{experiment.path}, {len(missing)} of {len(experiment.jobs())} folds unfinished ({states[0]})",
            remedy=f"Go on with: btkeras cv --resume --out {experiment.path}",
        )


def cross_validate(experiment: Experiment, executor: Executor) -> dict[str, Any]:
    """Runs the unfinished jobs by ``executor``, which returns when all are finished, and writes the summary."""
    jobs = unfinished(experiment)
    if jobs:
        executor(experiment, jobs)
    return write_summary(experiment)


def write_summary(experiment: Experiment) -> dict[str, Any]:
    """Computes ``summary.json`` from the folds' predictions.

    It holds no times and no paths of the machine, so that two runs of the same experiment give equal files.

    Raises:
        RunError: If a fold is missing, or an image was tested twice.
    """
    require_finished(experiment)
    config, manifest = experiment.config(), experiment.manifest()
    split = read_document(experiment.splits_file(0))
    results = []
    known: dict[str, list[Mapping[str, Any] | None]] = defaultdict(list)
    for job in experiment.jobs():
        run = experiment.run(job)
        known[job.model].append(run.metrics().get("without_near_duplicates"))
        found = read_predictions(run.predictions_file, manifest["classes"])
        results.append(FoldResult(job.model, job.seed, job.fold, *found, run.manifest()))
    summary = {
        "protocol": {
            "group_by": split["group_by"],
            "test": config.cv.test,
            "folds": config.cv.folds,
            "seeds": list(config.cv.seeds),
            "split_seed": config.data.split_seed,
            "models": list(models(config)),
        },
        "dataset": {"images": manifest["images"], "digest": split["dataset_digest"], "patients": manifest["patients"]},
        **summarize_experiment(
            results,
            manifest["classes"],
            groups=split["groups"],
            patients=known_patients(manifest, split),
            test=config.cv.test,
        ),
    }
    for model, found_in_training in known.items():
        summary["models"][model]["without_near_duplicates"] = pooled_without_near_duplicates(found_in_training)
    with experiment.writing():
        write_json(experiment.summary_file, summary, recorded_file)
    return summary
