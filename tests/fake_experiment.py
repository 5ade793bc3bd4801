"""Folders as `btkeras cv` and `btkeras train` leave them, with made-up predictions: no network is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from btkeras.checksums import recorded_file
from btkeras.config import ExperimentConfig
from btkeras.config_io import load_config
from btkeras.datasets.dataset import Dataset
from btkeras.evaluation.results import write_predictions
from btkeras.experiments.experiment import Experiment, create_experiment, write_summary
from btkeras.files import write_json
from btkeras.metrics import summarize
from btkeras.runs import Run, create_run, write_history
from btkeras.splitting.splits import Split, make_folds

# How strongly a made-up network sees the true class.
SKILL = {"improved_resnet34": 3.0, "resnet34": 2.8, "vgg16": 2.5, "lbp_knn": 2.0}
_EPOCHS = 6
_FACTS = {
    "device": "CPU, 2 cores",
    "precision": "float32",
    "precision_reason": "made up",
    "training_seconds": 4000.0,
    "parameters": 17_359_000,
    "trainable_parameters": 17_344_280,
    "macs": 3_900_000_000,
    "training_images_per_second": 41.5,
    "evaluation_images_per_second": 120.25,
}


def fake_experiment(path: Path, dataset: Dataset, *overrides: str, unfinished: bool = False) -> Experiment:
    """A cross-validation of ``cv.models``, and its summary.

    Args:
        path: The folder to make.
        dataset: Its images are not opened, but for their digests.
        *overrides: As for ``--set``.
        unfinished: Leave the last fold and the summary out.
    """
    experiment = create_experiment(path, load_config(None, overrides), dataset)
    jobs = experiment.jobs()
    for job in jobs[: -1 if unfinished else None]:
        split = experiment.split(job.fold, dataset)
        _write_run(experiment.run(job).path, experiment.config_of(job), dataset, split, fold=job.fold)
    if not unfinished:
        write_summary(experiment)
    return experiment


def fake_run(path: Path, dataset: Dataset, *overrides: str, evaluated: bool = True) -> Run:
    """A run of its own, on the first of two folds."""
    config = load_config(None, overrides)
    split = make_folds(dataset, config.data, config.cv)[0]
    return _write_run(path, config, dataset, split, evaluated=evaluated)


def _write_run(
    path: Path, config: ExperimentConfig, dataset: Dataset, split: Split, *, evaluated: bool = True, **facts: int
) -> Run:
    path.parent.mkdir(parents=True, exist_ok=True)
    learns = not config.model.name.startswith("lbp")
    learned = {"epochs": _EPOCHS, "best_epoch": _EPOCHS - 1} if learns else {"classifier": "made up"}
    run = create_run(path, config, dataset, split, **_FACTS, **learned, **facts)
    if learns:
        write_history(run.history_file, _history(config, split))
    if evaluated:
        labels = np.array([dataset.classes.index(record.label) for record in split.test])
        probabilities = _probabilities(config, [record.path for record in split.test], labels, len(dataset.classes))
        write_predictions(run.predictions_file, split.test, dataset.classes, probabilities.tolist())
        metrics = summarize(labels, probabilities, dataset.classes)
        write_json(
            run.metrics_file, {"dataset": str(dataset.root), "split": "test", "chance": 0.25, **metrics}, recorded_file
        )
    return run


def _history(config: ExperimentConfig, split: Split) -> Sequence[Mapping[str, float]]:
    rng = np.random.default_rng([config.train.seed, *config.model.name.encode(), *split.test[0].path.encode()])
    rows = []
    for epoch in range(1, _EPOCHS + 1):
        loss = math.exp(-epoch / 3) + 0.1 * rng.random()
        row = {"loss": loss, "accuracy": 1 - loss / 2, "val_loss": 1.2 * loss, "val_accuracy": 1 - 0.6 * loss}
        rows.append({"epoch": epoch, "learning_rate": 1e-3, **row})
    return rows


def _probabilities(config: ExperimentConfig, paths: Sequence[str], labels: np.ndarray, classes: int) -> np.ndarray:
    """Softmax of noise, of which a part belongs to the image: what is hard for one network is hard for all."""
    name = config.model.name
    own = np.random.default_rng([config.train.seed, *name.encode()])
    logits = own.normal(size=(len(paths), classes))
    logits += np.stack([np.random.default_rng(list(path.encode())).normal(size=classes) for path in paths])
    logits[np.arange(len(paths)), labels] += SKILL.get(name, 2.5)
    odds = np.exp(logits)
    return odds / odds.sum(axis=1, keepdims=True)
