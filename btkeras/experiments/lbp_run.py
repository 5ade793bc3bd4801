"""Local binary patterns with a classical classifier, trained and tested as a run (paper, table 6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.config import AugmentConfig, ExperimentConfig
from btkeras.datasets.dataset import Dataset
from btkeras.evaluation.results import EvaluationResult
from btkeras.logging import logger
from btkeras.machine import cache_folder
from btkeras.models.lbp import CLASSIFIERS, fit_lbp
from btkeras.preprocessing.cache import ImageCache
from btkeras.runs import Run, create_run, open_run, require_new, require_same_config
from btkeras.splitting.splits import Split, make_split
from btkeras.training.pipeline import Inputs, build_inputs


def train(
    config: ExperimentConfig,
    dataset: Dataset,
    out: Path,
    *,
    split: Split | None = None,
    skip_broken: bool = False,
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> Run:
    """Fits and tests the classifier that ``config.model.name`` names; arguments and errors as ``trainer.train``.

    Images are seen whole, at ``data.image_size``: the patterns depend on the scale, so nothing is augmented. The
    run keeps its answers and not its model, which is fitted again in seconds.
    """
    require_new(out)
    split = split or make_split(dataset, config.data, cache_folder())
    inputs = _inputs(config, dataset, split, skip_broken=skip_broken)
    broken = [{"path": path, "reason": reason} for path, reason in inputs.broken.items()]
    return _fit(create_run(out, config, dataset, split, broken=broken, **facts), dataset, split, inputs)


def resume(out: Path, config: ExperimentConfig | None = None) -> Run:
    """Does what is left of a run; arguments and errors as ``trainer.resume``."""
    run = open_run(out)
    require_same_config(run, config)
    dataset = run.dataset()
    split = run.split(dataset)
    return _fit(run, dataset, split, _inputs(run.config(), dataset, split))


def _inputs(config: ExperimentConfig, dataset: Dataset, split: Split, *, skip_broken: bool = False) -> Inputs:
    whole = replace(config, augment=AugmentConfig(crop=(1.0, 1.0)))
    return build_inputs(dataset, split, whole, skip_broken=skip_broken, keep_test=True)


def _fit(run: Run, dataset: Dataset, split: Split, inputs: Inputs) -> Run:
    config = run.config()
    labels = {subset: np.array(values) for subset, values in inputs.labels.items()}
    classifier = fit_lbp(
        CLASSIFIERS[config.model.name],
        _all(inputs.stores["train"]),
        labels["train"],
        _all(inputs.stores["validation"]),
        labels["validation"],
        seed=config.train.seed,
    )
    probabilities = classifier.probabilities(_all(inputs.stores["test"]))
    records = [record for record in split.test if record.path not in inputs.broken]
    logger.info(f"{config.model.name}: {classifier}")
    run.update_manifest(precision="float64", classifier=str(classifier))
    result = EvaluationResult(tuple(records), run.classes(), probabilities, calibration=None)
    broken = len(split.test) - len(records)
    metrics = {"dataset": str(dataset.root), "split": "test", "broken": broken, **result.metrics()}
    result.write(run.path, metrics)
    return run


def _all(store: ImageCache) -> NDArray[np.uint8]:
    return store.take(np.arange(len(store)))
