"""How far a cross-validation is: a bar over all epochs on a terminal, a line for each job that ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from btkeras.console import duration
from btkeras.experiments.experiment import Experiment, Job
from btkeras.models.lbp import CLASSIFIERS


class Progress:
    """Reads the run folders of some jobs, whoever works on them.

    Args:
        experiment: The cross-validation.
        jobs: Those that are left to do.
    """

    def __init__(self, experiment: Experiment, jobs: Sequence[Job]) -> None:
        self._experiment = experiment
        self._runs = {job: experiment.run(job) for job in jobs}
        self._epochs = {job: _epochs(experiment, job) for job in jobs}
        self._done: set[Job] = set()
        self._first, self._start = self._worked(), time.perf_counter()
        self._bar: tqdm[Any] = tqdm(
            total=sum(self._epochs.values()),
            initial=self._first,
            desc=f"0/{len(jobs)} folds",
            unit=" epochs",
            file=sys.stderr,
            leave=False,
            disable=None,
        )

    def update(self) -> None:
        """Shows what has been done since; call it now and then."""
        self._bar.n = self._worked()
        self._bar.set_description(f"{len(self._done)}/{len(self._runs)} folds", refresh=False)
        self._bar.refresh()

    def finish(self, job: Job) -> None:
        """Says that a job has ended."""
        self._done.add(job)
        metrics = self._runs[job].metrics()
        line = f"{job.model}, seed {job.seed}, fold {job.fold}: test accuracy {100 * metrics['accuracy']:.2f} %"
        self._bar.write(f"{line}  ({len(self._done)} of {len(self._runs)}{self._left()})", file=sys.stderr)
        self.update()

    def close(self) -> None:
        """Takes the bar away."""
        self._bar.close()

    def _left(self) -> str:
        worked, seconds = self._worked() - self._first, time.perf_counter() - self._start
        left = sum(self._epochs.values()) - self._worked()
        return f", about {duration(seconds / worked * left)} left" if worked and left else ""

    def _worked(self) -> int:
        return sum(self._worked_on(job) for job in self._runs)

    def _worked_on(self, job: Job) -> int:
        # A job that stopped early has nothing left to do.
        if job in self._done:
            return self._epochs[job]
        history = self._runs[job].history_file
        return max(history.read_text(encoding="utf-8").count("\n") - 1, 0) if history.is_file() else 0


def _epochs(experiment: Experiment, job: Job) -> int:
    return 1 if job.model in CLASSIFIERS else experiment.config_of(job).train.epochs
