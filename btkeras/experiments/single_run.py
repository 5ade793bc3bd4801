"""One training in this process: started or resumed, then calibrated and tested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from btkeras.config import AugmentConfig, ExperimentConfig
from btkeras.datasets.dataset import Dataset
from btkeras.decisions.calibration import load_calibration
from btkeras.errors import ModelError, RunError
from btkeras.evaluation.calibrate import calibrate_and_evaluate
from btkeras.evaluation.evaluate import load_best
from btkeras.evaluation.results import EvaluationResult
from btkeras.experiments.experiment import Experiment, Job, model_config, models
from btkeras.files import require_new, sha256
from btkeras.locks import only_writer
from btkeras.logging import logger
from btkeras.machine import cache_folder
from btkeras.models import build
from btkeras.models.lbp import CLASSIFIERS, fit_lbp
from btkeras.runs import Run, create_run, open_run, require_same_config
from btkeras.splitting.near_duplicates import duplicated_in_training
from btkeras.splitting.splits import Split, make_split
from btkeras.training import checks, trainer
from btkeras.training.device import resolve_precision
from btkeras.training.pipeline import SplitImages, load_split_images
from btkeras.training.tracking import Trackers

# What a cross-validation's manifest tells those of its runs.
_FACTS = ("precision", "precision_reason", "tracking")


def _check_name(name: str) -> None:
    build.check_name(name, (*build.MODELS, *CLASSIFIERS))


def check_model(config: ExperimentConfig) -> None:
    """Raises ``ModelError`` if ``config.model`` cannot be trained, before anything is read; downloads its weights."""
    _check_name(config.model.name)
    if config.model.name not in CLASSIFIERS:
        checks.check_network(config)
        return
    for key, own, default in (
        ("model.weights", config.model.weights, "random"),
        ("train.loss", config.train.loss, "cross_entropy"),
        ("train.class_weight", config.train.class_weight, "none"),
        ("train.teacher", config.train.teacher, ""),
    ):
        if own != default:
            raise ModelError(f"{key} is for networks", received=f"{own} for {config.model.name}")


def start_run(
    config: ExperimentConfig,
    dataset: Dataset,
    out: Path,
    *,
    split: Split | None = None,
    skip_broken: bool = False,
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Trains, calibrates and tests; as ``training.trainer.train``, but it returns the test metrics."""
    check_model(config)
    if config.model.name not in CLASSIFIERS:
        return _train(*trainer.begin(config, dataset, out, split=split, skip_broken=skip_broken, manifest=facts))
    require_new(out)
    split = split or make_split(dataset, config.data, cache_folder())
    inputs = _lbp_inputs(config, dataset, split, skip_broken=skip_broken)
    run = create_run(out, config, dataset, split, inputs.pixels, broken=inputs.left_out, **facts)
    return _run_lbp(run, dataset, split, inputs)


def resume_run(out: Path, config: ExperimentConfig | None = None) -> dict[str, Any]:
    """Does what is left of a run; arguments and errors as ``training.trainer.resume``."""
    return _resume(open_run(out), config)


@only_writer
def _train(run: Run, images: SplitImages) -> dict[str, Any]:
    # One lock around both, so that no other process gets between them.
    with Trackers(run) as trackers:
        trackers.tested(metrics := calibrate_and_evaluate(trainer.fit(run, images, trackers)))
    return metrics


@only_writer
def _resume(run: Run, config: ExperimentConfig | None) -> dict[str, Any]:
    if "ensemble" in run.manifest():
        raise RunError(
            "A run must be a training to go on with",
            received=f"{run.path}, an ensemble",
            remedy="Train its runs on, and average them again: btkeras ensemble RUN... --out NEW",
        )
    if run.config().model.name not in CLASSIFIERS:
        before = sha256(run.best_model) if run.best_model.is_file() else ""
        with Trackers(run) as trackers:
            trainer.resume(run.path, config, trackers)
            # Of a run that was finished, calibration and test stay: they may be of data of the user's own.
            done = before == sha256(run.best_model) and _is_calibrated(run)
            trackers.tested(metrics := run.metrics() if done else calibrate_and_evaluate(run))
        return metrics
    require_same_config(run, config)
    dataset = run.dataset()
    split = run.split(dataset)
    return _run_lbp(run, dataset, split, _lbp_inputs(run.config(), dataset, split))


def _is_calibrated(run: Run) -> bool:
    """Whether calibration, checkpoint and test metrics are there, whole, and of one calibration."""
    try:
        return run.calibration_file.is_file() and bool(load_calibration(run, load_best(run)) and run.metrics())
    except RunError:
        return False


def _lbp_inputs(config: ExperimentConfig, dataset: Dataset, split: Split, *, skip_broken: bool = False) -> SplitImages:
    # The patterns are of grey images and depend on the scale, so images are whole and nothing is augmented.
    grey = replace(config, augment=AugmentConfig(crop=(1.0, 1.0)), data=replace(config.data, channels=1))
    return load_split_images(dataset, split, grey, skip_broken=skip_broken, cache_test=True)


@only_writer
def _run_lbp(run: Run, dataset: Dataset, split: Split, inputs: SplitImages) -> dict[str, Any]:
    with Trackers(run) as trackers:
        trackers.tested(metrics := _test_lbp(run, dataset, split, inputs))
    return metrics


def _test_lbp(run: Run, dataset: Dataset, split: Split, inputs: SplitImages) -> dict[str, Any]:
    """Fits and tests local binary patterns with a classifier (paper, table 6), and saves its predictions only."""
    config = run.config()
    images = {subset: cache.take(np.arange(len(cache))) for subset, cache in inputs.caches.items()}
    labels = {subset: np.array(values) for subset, values in inputs.labels.items()}
    classifier = fit_lbp(
        CLASSIFIERS[config.model.name],
        images["train"],
        labels["train"],
        images["validation"],
        labels["validation"],
        seed=config.train.seed,
    )
    logger.info(f"{config.model.name}: {classifier}")
    run.update_manifest(precision="float64", classifier=str(classifier))
    records = tuple(record for record in split.test if record.path not in inputs.broken)
    known = duplicated_in_training(dataset, split, cache_folder())
    probabilities = classifier.probabilities(images["test"])
    result = EvaluationResult(records, run.classes(), probabilities, None, near_duplicates=known, groups=split.groups)
    metrics = result.metrics(dataset, "test", broken=len(split.test) - len(records))
    result.write(run.path, metrics)
    return metrics


def check_models(config: ExperimentConfig) -> None:
    """Checks all models of a cross-validation and their ``cv.overrides``, as ``check_model``."""
    # Overrides of known models that are not trained are allowed.
    for name in (*models(config), *config.cv.overrides):
        _check_name(name)
    for name in models(config):
        check_model(model_config(config, name))


def run_job(experiment: Experiment, index: int) -> None:
    """Does what is left of a job; nothing if it is finished. A second process with the same job waits for the first."""
    jobs = experiment.jobs()
    if not 0 <= index < len(jobs):
        raise RunError(
            f"A job of {experiment.path} must be 0 to {len(jobs) - 1}",
            received=index,
            remedy=f"List them: btkeras cv --plan --resume --out {experiment.path}",
        )
    job = jobs[index]
    with experiment.working_on(job):
        if experiment.is_finished(job):
            logger.info(f"{experiment.run(job).path} is finished already")
            return
        run = experiment.run(job)
        if run.path.exists():
            resume_run(run.path)
        else:
            _start(experiment, job)


def _start(experiment: Experiment, job: Job) -> None:
    # The precision of all folds is chosen by the first: measured in each, it might differ.
    with experiment.writing():
        if "precision" not in experiment.manifest():
            experiment.update_manifest(**resolve_precision(experiment.config().train.precision))
    manifest, dataset = experiment.manifest(), experiment.dataset()
    start_run(
        experiment.config_of(job),
        dataset,
        experiment.run(job).path,
        split=experiment.split(job.fold, dataset),
        skip_broken=manifest["skip_broken"],
        facts={"fold": job.fold} | {key: manifest[key] for key in _FACTS if key in manifest},
    )
