"""Runs jobs in processes on this machine, or as tasks on a Ray cluster whose nodes share the experiment's folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from btkeras.errors import ConfigError, RunError
from btkeras.experiments.experiment import Experiment, Job
from btkeras.logging import duration, log_to_terminal
from btkeras.machine import parent_environment, thread_environment, threads, visible_gpus
from btkeras.models.lbp import CLASSIFIERS


class _Progress:
    """A progress bar of jobs, read from their run folders."""

    def __init__(self, experiment: Experiment, jobs: Sequence[Job]) -> None:
        self._runs = {job: experiment.run(job) for job in jobs}
        self._epochs = {j: 1 if j.model in CLASSIFIERS else experiment.config_of(j).train.epochs for j in jobs}
        self._done: set[Job] = set()
        self._first, self._start = self._worked(), time.perf_counter()
        total = sum(self._epochs.values())
        self.bar: tqdm[Any] = tqdm(
            total=total, initial=self._first, unit=" epochs", file=sys.stderr, leave=False, disable=None
        )

    def update(self) -> None:
        """Shows the finished epochs."""
        self.bar.n = self._worked()
        self.bar.set_description(f"{len(self._done)}/{len(self._runs)} folds")

    def finish(self, job: Job) -> None:
        """Shows that a job is finished."""
        self._done.add(job)
        accuracy, seconds = self._runs[job].metrics()["accuracy"], time.perf_counter() - self._start
        worked, left = self._worked() - self._first, sum(self._epochs.values()) - self._worked()
        text = f", about {duration(seconds / worked * left)} left" if worked and left else ""
        line = f"{job}: test accuracy {100 * accuracy:.2f} %  ({len(self._done)} of {len(self._runs)}{text})"
        self.bar.write(line, file=sys.stderr)
        self.update()

    def _worked(self) -> int:
        # A job that stopped early has nothing left to do.
        runs = self._runs.items()
        return sum(self._epochs[job] if job in self._done else _lines(run.history_file) for job, run in runs)


def _lines(history: Path) -> int:
    return max(history.read_text(encoding="utf-8").count("\n") - 1, 0) if history.is_file() else 0


# How the command line is started in a process of its own.
COMMAND = (sys.executable, "-m", "btkeras")

_POLL_SECONDS = 0.5
# SIGTERM is repeated, since Python drops an exception that is raised while an object is destroyed.
_PATIENCE_SECONDS, _REQUESTS = 12, 5
_LOG_LINES = 20
_SUCCEED = "Every job of a cross-validation must succeed"


class RunningJob(NamedTuple):
    """A job's process."""

    job: Job
    slot: int
    process: subprocess.Popen[bytes]


def run_locally(experiment: Experiment, jobs: Sequence[Job], workers: int) -> None:
    """Runs jobs, ``workers`` at a time; each has its share of the cores, and a GPU where there are several.

    Raises:
        RunError: If a job fails; the others are stopped after their last finished epoch.
    """
    progress = _Progress(experiment, jobs)
    waiting, running = list(reversed(jobs)), list[RunningJob]()
    gpus = visible_gpus()
    try:
        while waiting or running:
            free = sorted(set(range(workers)) - {task.slot for task in running})
            while waiting and free:
                running.append(_start(experiment, waiting.pop(), free.pop(0), workers, gpus))
            time.sleep(_POLL_SECONDS)
            for task in [task for task in running if task.process.poll() is not None]:
                running.remove(task)
                if task.process.returncode:
                    raise _failed(experiment, task.job)
                progress.finish(task.job)
            progress.update()
    finally:
        stop_jobs(running)
        progress.bar.close()


def stop_jobs(running: Sequence[RunningJob]) -> None:
    """Terminates processes, more than once if need be, kills those that stay, and waits for their ends."""
    for task in running:
        task.process.terminate()
    for process in (task.process for task in running):
        for end in (*[process.terminate] * _REQUESTS, process.kill):
            try:
                process.wait(_PATIENCE_SECONDS)
                break
            except subprocess.TimeoutExpired:
                end()
        process.wait()


def _start(experiment: Experiment, job: Job, slot: int, workers: int, gpus: Sequence[str]) -> RunningJob:
    environment = os.environ | thread_environment(max(threads() // workers, 1)) | parent_environment()
    if workers > 1 and gpus:
        environment["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    file = experiment.log_file(job)
    file.parent.mkdir(exist_ok=True)
    command = [*COMMAND, "cv", "--out", str(experiment.path), "--task", str(job.index)]
    with file.open("ab") as log:
        # A session of its own: Ctrl-C reaches this process alone, which then asks its children to end.
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    return RunningJob(job, slot, process)


def _failed(experiment: Experiment, job: Job) -> RunError:
    file = experiment.log_file(job)
    lines = file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    # The command line's own message stands last; without one it was a crash.
    first = max((i for i, line in enumerate(lines) if line.startswith("Error: ")), default=len(lines) - _LOG_LINES)
    reason = " failed:\n  " + "\n  ".join(lines[max(first, 0) :])
    remedy = f"Its whole output is in {file}; go on with: btkeras cv --resume --out {experiment.path}"
    return RunError(_SUCCEED, received=f"job {job.index} ({job}){reason}", remedy=remedy)


# How often a task is retried when its node dies; a task that fails is not retried.
_RETRIES = 3
_RAY_POLL_SECONDS = 1.0


def run_on_ray(experiment: Experiment, jobs: Sequence[Job], *, address: str | None, cpus: int, gpus: float) -> None:
    """Runs jobs on a Ray cluster, each as a task in a process of its own.

    A task whose node dies runs again elsewhere and resumes after its last finished epoch. The job's lock excludes the
    old process, should it still run.

    The experiment's folder, and its dataset's, must be at the same path on every node. A job needs so many ``cpus``,
    and uses as many threads, and ``gpus``; of none, a node's GPUs are hidden from it. Without an address,
    ``$RAY_ADDRESS`` is taken, or a cluster is started on this machine.

    Raises:
        ConfigError: If Ray is not installed, or shares no GPUs like that.
        RunError: If a job fails.
    """
    ray = require_ray(gpus)
    ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
    # One task a process: TensorFlow never frees memory, and its threads are set before it is loaded.
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_calls=1, max_retries=_RETRIES)(_task)
    progress = _Progress(experiment, jobs)
    running = {task.remote(str(experiment.path.resolve()), job.index, cpus, gpus): job for job in jobs}
    try:
        while running:
            done, _ = ray.wait(list(running), num_returns=1, timeout=_RAY_POLL_SECONDS)
            for reference in done:
                job = running.pop(reference)
                try:
                    ray.get(reference)
                except ray.exceptions.RayError as error:
                    received = f"job {job.index} ({job}): {getattr(error, 'cause', None) or error}"
                    remedy = "Mend the cause, and go on with --resume"
                    raise RunError(_SUCCEED, received=received, remedy=remedy) from error
                progress.finish(job)
            progress.update()
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        progress.bar.close()


def _task(path: str, index: int, cpus: int, gpus: float) -> None:
    os.environ.update(thread_environment(cpus))
    if not gpus:
        # Ray leaves this as it is on the node, and TensorFlow would take every GPU, as would the folds beside it.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    log_to_terminal()
    # Imported here because it loads TensorFlow.
    from btkeras.experiments.single_run import run_job

    run_job(Experiment(Path(path)), index)


def require_ray(gpus: float) -> Any:
    """Ray, able to give each fold so many GPUs. Raises ConfigError if it is not installed, or shares none like that."""
    # NaN passes no comparison.
    if not (gpus <= 1 or gpus % 1 == 0):
        remedy = "A fold takes a part of one GPU, or several whole ones"
        raise ConfigError("--gpus above 1 must be a whole number", received=gpus, remedy=remedy)
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "--executor ray needs Ray", received=f"{error}", remedy="Install it: pip install 'btkeras[ray]'"
        ) from error
    return ray
