"""Jobs in processes of their own on this machine, some side by side with its threads and GPUs shared out."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from btkeras.errors import RunError
from btkeras.experiments.experiment import Experiment, Job
from btkeras.experiments.progress import Progress
from btkeras.machine import parent_environment, thread_environment, threads, visible_gpus

# How the command line is started in a process of its own.
COMMAND = (sys.executable, "-m", "btkeras")

_POLL_SECONDS = 0.5
# An interruption can be lost: Python drops an exception that is raised while an object is destroyed. So it is repeated.
_PATIENCE_SECONDS, _REQUESTS = 12, 5
_LOG_LINES = 20


@dataclass
class _Running:
    job: Job
    slot: int
    process: subprocess.Popen[bytes]
    log: IO[bytes]

    def close(self) -> int:
        """Waits for the end and returns the exit code."""
        try:
            return self.process.wait()
        finally:
            self.log.close()

    def end(self) -> None:
        """Waits for the end of a process that was asked to end, asks again, and kills it at last."""
        for _ in range(_REQUESTS):
            try:
                self.process.wait(_PATIENCE_SECONDS)
                break
            except subprocess.TimeoutExpired:
                self.process.terminate()
        else:
            self.process.kill()
        self.close()


def run_locally(experiment: Experiment, jobs: Sequence[Job], workers: int) -> None:
    """Runs jobs, ``workers`` at a time; each has its share of the cores, and a GPU where there are several.

    Raises:
        RunError: If a job fails; the others are stopped after their last finished epoch.
    """
    progress = Progress(experiment, jobs)
    waiting, running = list(reversed(jobs)), list[_Running]()
    gpus = visible_gpus()
    try:
        while waiting or running:
            free = sorted(set(range(workers)) - {task.slot for task in running})
            while waiting and free:
                running.append(_start(experiment, waiting.pop(), free.pop(0), workers, gpus))
            time.sleep(_POLL_SECONDS)
            for task in [task for task in running if task.process.poll() is not None]:
                running.remove(task)
                if task.close():
                    raise _failed(experiment, task.job)
                progress.finish(task.job)
            progress.update()
    finally:
        _stop(running)
        progress.close()


def _start(experiment: Experiment, job: Job, slot: int, workers: int, gpus: Sequence[str]) -> _Running:
    environment = os.environ | thread_environment(max(threads() // workers, 1)) | parent_environment()
    if workers > 1 and gpus:
        environment["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    file = experiment.log_file(job)
    file.parent.mkdir(exist_ok=True)
    log = file.open("ab")
    command = [*COMMAND, "cv", "--out", str(experiment.path), "--task", str(job.index)]
    # A session of its own: Ctrl-C reaches this process alone, which then asks its children to end.
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )
    return _Running(job, slot, process, log)


def _stop(running: Sequence[_Running]) -> None:
    for task in running:
        task.process.terminate()
    for task in running:
        task.end()


def _failed(experiment: Experiment, job: Job) -> RunError:
    file = experiment.log_file(job)
    lines = file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    # The command line's own message stands last; a crash of TensorFlow may need more.
    first = max((i for i, line in enumerate(lines) if line.startswith("Error: ")), default=len(lines) - _LOG_LINES)
    said = "\n  ".join(lines[max(first, 0) :])
    return RunError(
        "Every job of a cross-validation must succeed",
        received=f"job {job.index} ({job.model}, seed {job.seed}, fold {job.fold}) failed:\n  {said}",
        remedy=f"Its whole output is in {file}; go on with: btkeras cv --resume --out {experiment.path}",
    )
