"""One run from its beginning, or from where it was cut off, to its test figures, whatever kind of model it trains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from btkeras.config import ExperimentConfig
from btkeras.data.records import Dataset
from btkeras.data.splits import Split
from btkeras.errors import ModelError
from btkeras.evaluation.calibrate import calibrate
from btkeras.evaluation.evaluate import evaluate_split
from btkeras.evaluation.fit_outliers import fit_outliers
from btkeras.experiments import classical
from btkeras.models import build
from btkeras.models.lbp import CLASSIFIERS
from btkeras.runs import Run, open_run
from btkeras.training import trainer


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
    begin = classical.train if config.model.name in CLASSIFIERS else trainer.train
    return _tested(begin(config, dataset, out, split=split, skip_broken=skip_broken, facts=facts))


def resume_run(out: Path, config: ExperimentConfig | None = None) -> dict[str, Any]:
    """Does what is left of a run; arguments and errors as ``training.trainer.resume``."""
    name = open_run(out).config().model.name
    go_on = classical.resume if name in CLASSIFIERS else trainer.resume
    return _tested(go_on(out, config))


def _tested(run: Run) -> dict[str, Any]:
    if run.config().model.name in CLASSIFIERS:
        return run.metrics()
    calibrate(run)
    fit_outliers(run)
    return evaluate_split(run)
