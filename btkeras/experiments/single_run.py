"""One job of a cross-validation, in this process: trained or resumed, then tested."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from btkeras.config import ExperimentConfig
from btkeras.datasets.dataset import Dataset
from btkeras.errors import ModelError, RunError
from btkeras.evaluation.calibrate import calibrate_and_evaluate
from btkeras.experiments import lbp_run
from btkeras.experiments.experiment import Experiment, Job, model_config, models
from btkeras.logging import logger
from btkeras.models import build
from btkeras.models.lbp import CLASSIFIERS
from btkeras.runs import Run, open_run
from btkeras.splitting.splits import Split
from btkeras.training import trainer
from btkeras.training.checkpoint import drop_weights
from btkeras.training.precision import resolve_precision


def check_model_name(name: str) -> None:
    """Checks that there is a model of this name.

    Raises:
        ModelError: If not; it says the nearest.
    """
    build.check_name(name, (*build.MODELS, *CLASSIFIERS))


def check_model(config: ExperimentConfig) -> None:
    """Checks, before anything is read, that ``config.model`` can be trained; downloads weights if it asks for them.

    Raises:
        ModelError: If not; of an unknown name it says the nearest.
    """
    check_model_name(config.model.name)
    if config.model.name not in CLASSIFIERS:
        trainer.check_network(config)
    elif config.model.weights != "random":
        raise ModelError("Weights are for networks", received=f"{config.model.weights} for {config.model.name}")


def start_run(
    config: ExperimentConfig,
    dataset: Dataset,
    out: Path,
    *,
    split: Split | None = None,
    skip_broken: bool = False,
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Trains, calibrates and tests; arguments and errors as ``training.trainer.train``.

    Returns:
        The test figures, as ``evaluation.evaluate.evaluate_split``.
    """
    check_model(config)
    begin = lbp_run.train if config.model.name in CLASSIFIERS else trainer.train
    return _tested(begin(config, dataset, out, split=split, skip_broken=skip_broken, facts=facts))


def resume_run(out: Path, config: ExperimentConfig | None = None) -> dict[str, Any]:
    """Does what is left of a run; arguments and errors as ``training.trainer.resume``."""
    name = open_run(out).config().model.name
    go_on = lbp_run.resume if name in CLASSIFIERS else trainer.resume
    return _tested(go_on(out, config))


def _tested(run: Run) -> dict[str, Any]:
    if run.config().model.name in CLASSIFIERS:
        return run.metrics()
    return calibrate_and_evaluate(run)


def check_models(config: ExperimentConfig) -> None:
    """Checks names and changes before anything is read, and downloads weights once before many jobs want them.

    Raises:
        ModelError: If a network is unknown, or its weights cannot be had.
        ConfigError: If ``cv.overrides`` names a wrong key.
    """
    names = models(config)
    # Changes of networks that are not trained this time do no harm; those of networks that do not exist do nothing.
    for name in (*names, *config.cv.overrides):
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
            logger.info(f"{experiment.run(job).path} is finished already")
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
