"""Jobs as plain tasks on a Ray cluster whose nodes share the experiment's folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from btkeras.errors import ConfigError, RunError
from btkeras.experiments.experiment import Experiment, Job
from btkeras.experiments.progress import Progress
from btkeras.machine import thread_environment

# A node may die under a task so often; a task that fails by itself is not tried again.
_RETRIES = 3
_POLL_SECONDS = 1.0


def run_on_ray(experiment: Experiment, jobs: Sequence[Job], *, address: str | None, cpus: int, gpus: float) -> None:
    """Runs jobs on a Ray cluster, each as a task in a process of its own.

    A task whose node dies is run again elsewhere and resumes after its last finished epoch. The job's lock keeps the
    lost process, should it still live, and the new one from working at once.

    Args:
        experiment: Its folder, and its dataset's, must be at the same path on every node.
        jobs: What to do.
        address: The cluster; None takes ``$RAY_ADDRESS``, or starts one on this machine.
        cpus: Cores that a job needs; it uses as many threads.
        gpus: GPUs that a job needs.

    Raises:
        ConfigError: If Ray is not installed.
        RunError: If a job fails.
    """
    ray = _import_ray()
    ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
    # One task a process: TensorFlow never gives memory back, and its threads are set before it is loaded.
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_calls=1, max_retries=_RETRIES)(_task)
    progress = Progress(experiment, jobs)
    running = {task.remote(str(experiment.path.resolve()), job.index, cpus): job for job in jobs}
    try:
        while running:
            done, _ = ray.wait(list(running), num_returns=1, timeout=_POLL_SECONDS)
            for reference in done:
                _collect(ray, reference, running[reference])
                progress.finish(running.pop(reference))
            progress.update()
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        progress.close()


def _task(path: str, index: int, cpus: int) -> None:
    os.environ.update(thread_environment(cpus))
    # Here, because it loads TensorFlow.
    from btkeras.experiments.jobs import run_job

    run_job(Experiment(Path(path)), index)


def _collect(ray: Any, reference: Any, job: Job) -> None:
    try:
        ray.get(reference)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        raise RunError(
            "Every job of a cross-validation must succeed",
            received=f"job {job.index} ({job.model}, seed {job.seed}, fold {job.fold}): {cause}",
            remedy="Mend the cause, and go on with --resume",
        ) from error


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "--executor ray needs Ray", received=f"{error}", remedy="Install it: pip install 'btkeras[ray]'"
        ) from error
    return ray
