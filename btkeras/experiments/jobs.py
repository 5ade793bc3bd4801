"""One job of a cross-validation, in this process: trained or resumed, then tested."""

from __future__ import annotations

from btkeras.config import ExperimentConfig
from btkeras.console import notice
from btkeras.errors import RunError
from btkeras.experiments.experiment import Experiment, Job, model_config, models
from btkeras.experiments.single import check_model, check_model_name, resume_run, start_run
from btkeras.training.precision import resolve_precision
from btkeras.training.state import drop_weights


def check_models(config: ExperimentConfig) -> None:
    """Checks names and changes before anything is read, and downloads weights once before many jobs want them.

    Raises:
        ModelError: If a network is unknown, or its weights cannot be had.
        ConfigError: If ``cv.changes`` names a wrong key.
    """
    names = models(config)
    # Changes of networks that are not trained this time do no harm; those of networks that do not exist do nothing.
    for name in (*names, *config.cv.changes):
        check_model_name(name)
    for name in names:
        check_model(model_config(config, name))


def run_job(experiment: Experiment, index: int) -> None:
    """Does what is left of a job; nothing if it is finished.

    Two processes with the same job do not do it twice: the second waits, and then finds it finished.

    Raises:
        RunError: If there is no such job, or as ``experiments.single.start_run``.
    """
    jobs = experiment.jobs()
    if not 0 <= index < len(jobs):
        raise RunError(
            f"A job of {experiment.path} must be 0 to {len(jobs) - 1}",
            received=index,
            remedy=f"List them: btkeras cv --plan --resume --out {experiment.path}",
        )
    job = jobs[index]
    with experiment.lock(f"job_{index}"):
        if experiment.is_finished(job):
            notice(f"{experiment.run(job).path} is finished already")
            return
        run = experiment.run(job)
        if run.path.exists():
            resume_run(run.path)
        else:
            _start(experiment, job)
        if run.state_file.is_file():
            # Many folds would fill a disk with what none of them needs any more.
            drop_weights(run.state_file)


def _start(experiment: Experiment, job: Job) -> None:
    dataset = experiment.dataset()
    start_run(
        experiment.config_of(job),
        dataset,
        experiment.run(job).path,
        split=experiment.split(job.fold, dataset),
        skip_broken=experiment.manifest()["skip_broken"],
        facts={"fold": job.fold, **_precision(experiment)},
    )


def _precision(experiment: Experiment) -> dict[str, str]:
    """The precision of every fold, decided by the first: measured twice, two folds might differ."""
    with experiment.lock("manifest"):
        if "precision" not in experiment.manifest():
            precision = resolve_precision(experiment.config().train.precision)
            experiment.update_manifest(precision=precision.policy, precision_reason=precision.reason)
    manifest = experiment.manifest()
    return {key: manifest[key] for key in ("precision", "precision_reason")}
