"""The folder of a cross-validation: its settings, splits, jobs and runs."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from btkeras.config import ExperimentConfig
from btkeras.config_io import changed_keys, dump_config, load_config, override_config
from btkeras.datasets.dataset import Dataset
from btkeras.errors import RunError
from btkeras.files import atomic_folder, read_json, write_json, write_text
from btkeras.logging import logger
from btkeras.machine import cache_folder
from btkeras.runs import MemberPath, Run, dataset_of, first_manifest, require_new
from btkeras.splitting.splits import Split, load_split, make_folds, save_split

# A wait for a lock that takes longer is logged.
_PATIENCE_SECONDS = 5


@dataclass(frozen=True)
class Job:
    """One training of a cross-validation; ``index`` is its position in ``Experiment.jobs``, ``fold`` counts from 0."""

    index: int
    model: str
    seed: int
    fold: int


@dataclass(frozen=True)
class Experiment:
    """A cross-validation's folder: ``config.yaml``, ``manifest.json``, ``splits/``, a run per job, ``summary.json``."""

    path: Path

    config_file = MemberPath("config.yaml")
    manifest_file = MemberPath("manifest.json")
    summary_file = MemberPath("summary.json")
    splits = MemberPath("splits")

    def splits_file(self, fold: int) -> Path:
        """The split of a fold, which its runs copy."""
        return self.splits / f"fold_{fold}.json"

    def config(self) -> ExperimentConfig:
        """The experiment's configuration, with every default."""
        return _read_config(self.config_file)

    def manifest(self) -> dict[str, Any]:
        """Dataset, versions, seeds, precision."""
        return read_json(self.manifest_file)

    def jobs(self) -> list[Job]:
        """Every training, fold by fold, so that all networks have some folds early."""
        config = self.config()
        order = product(config.cv.seeds, range(config.cv.folds), models(config))
        return [Job(index, model, seed, fold) for index, (seed, fold, model) in enumerate(order)]

    def run(self, job: Job) -> Run:
        """The run folder of a job, which may not be there yet."""
        several = len(self.config().cv.seeds) > 1
        seed = Path(f"seed_{job.seed}") if several else Path()
        return Run(self.path / job.model / seed / f"fold_{job.fold}")

    def is_finished(self, job: Job) -> bool:
        """Whether a job has been trained and tested."""
        # Written last.
        return self.run(job).metrics_file.is_file()

    def log_file(self, job: Job) -> Path:
        """The output of a job's process."""
        return self.path / "logs" / f"{job.model}_seed_{job.seed}_fold_{job.fold}.log"

    def config_of(self, job: Job) -> ExperimentConfig:
        """The configuration of a job's run: the experiment's, with the model's overrides and the job's seed."""
        config = model_config(self.config(), job.model)
        return replace(config, train=replace(config.train, seed=job.seed))

    def dataset(self) -> Dataset:
        """The dataset of the experiment; errors as ``dataset_of``."""
        return dataset_of(self.manifest())

    def use_dataset(self, dataset: Dataset) -> None:
        """Records where the dataset is now, also in unfinished runs; errors as ``Run.use_dataset``."""
        load_split(self.splits_file(0), dataset)
        with self.lock("manifest"):
            self.update_manifest(dataset=str(dataset.root.resolve()))
        for job in self.jobs():
            if self.run(job).path.exists() and not self.is_finished(job):
                self.run(job).use_dataset(dataset)

    def split(self, fold: int, dataset: Dataset) -> Split:
        """The split of a fold, verified against the dataset."""
        return load_split(self.splits_file(fold), dataset)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Waits for a lock and holds it, also across machines that share the folder."""
        file = self.path / "locks" / f"{name}.lock"
        file.parent.mkdir(exist_ok=True)
        lock = FileLock(file)
        try:
            lock.acquire(timeout=_PATIENCE_SECONDS)
        except Timeout:
            logger.info(f"waiting for another process, which holds {file}")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def update_manifest(self, **values: Any) -> None:
        """Adds to the manifest, or replaces values; call it under a lock."""
        write_json(self.manifest_file, self.manifest() | values)


# The configuration is read for every job, and never changes.
_read_config = functools.cache(load_config)


def models(config: ExperimentConfig) -> tuple[str, ...]:
    """The networks that a cross-validation trains."""
    return config.cv.models or (config.model.name,)


def model_config(config: ExperimentConfig, name: str) -> ExperimentConfig:
    """The configuration of one network of a cross-validation, with its overrides."""
    changed = override_config(config, config.cv.overrides.get(name, ()))
    return replace(changed, model=replace(changed.model, name=name))


def create_experiment(
    path: Path, config: ExperimentConfig, dataset: Dataset, *, skip_broken: bool = False
) -> Experiment:
    """Makes an experiment's folder with its configuration, the splits of all folds and its manifest, all at once.

    Raises:
        RunError: If something is there already.
        DataError: If the dataset cannot be split into folds.
    """
    require_new(path)
    folds = make_folds(dataset, config.data, config.cv, cache_folder())
    facts = {"skip_broken": skip_broken, "seeds": {"train": list(config.cv.seeds), "split": config.data.split_seed}}
    with atomic_folder(path) as temporary:
        experiment = Experiment(temporary)
        write_text(experiment.config_file, dump_config(config))
        for fold, split in enumerate(folds):
            save_split(split, dataset, experiment.splits_file(fold))
        write_json(experiment.manifest_file, first_manifest(config, dataset) | facts)
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
