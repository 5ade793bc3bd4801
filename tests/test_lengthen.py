"""More epochs for a finished run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from btkeras.config import ExperimentConfig
from btkeras.datasets import load_dataset
from btkeras.errors import RunError
from btkeras.evaluation.evaluate import load_best
from btkeras.training import trainer
from tests.test_cli import btkeras, fails

CONSTANT = ("schedule.name=constant", "schedule.warmup_epochs=0", "train.keep_state=true")


def test_a_lengthened_run_is_one_that_had_as_many_epochs_from_the_start(
    tmp_path: Path, shared_images: Path, tiny_config: Callable[..., ExperimentConfig]
) -> None:
    dataset, longer = load_dataset(shared_images), tiny_config(*CONSTANT, "train.epochs=3")
    short = trainer.train(tiny_config(*CONSTANT, "train.epochs=1"), dataset, tmp_path / "short")
    assert not short.unfinished()
    whole = trainer.train(longer, dataset, tmp_path / "whole")
    trainer.lengthen(short, longer)
    assert short.unfinished() == "epoch 1 of 3, unfinished"
    # Without saying so again, as after a kill.
    trainer.resume(short.path)
    assert not short.unfinished()
    for name in ("history.csv", "config.yaml"):
        assert (short.path / name).read_bytes() == (whole.path / name).read_bytes()
    weights = (load_best(run).get_weights() for run in (short, whole))
    assert all(np.array_equal(x, y) for x, y in zip(*weights, strict=True))


def test_a_run_that_kept_no_state_says_how_the_next_can(trained_run: Path) -> None:
    before = json.loads((trained_run / "manifest.json").read_text())
    failed = btkeras("train", "--resume", "--out", trained_run, "--set", "train.epochs=20")
    fails(failed, "lengthened if it kept its state", "train.epochs=20", "--set train.keep_state=true")
    assert json.loads((trained_run / "manifest.json").read_text()) == before


def test_nothing_else_may_change_and_there_are_not_fewer_epochs(
    trained_run: Path, tiny_config: Callable[..., ExperimentConfig]
) -> None:
    for settings, name in (("train.epochs=20 train.seed=1", "train.seed"), ("train.epochs=5", "train.epochs")):
        with pytest.raises(RunError, match=rf"must keep its configuration.*{name}"):
            trainer.resume(trained_run, tiny_config(*settings.split()))
