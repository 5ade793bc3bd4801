"""What a fold sees of its machine, on Ray; ``tests/test_ray.py`` runs folds on a real cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from btkeras.cli import main
from btkeras.datasets.dataset import load_dataset
from btkeras.errors import ConfigError
from btkeras.experiments import single_run
from btkeras.experiments.executors import run_on_ray
from tests.fake_experiment import fake_experiment


def ray_in_this_process(asked: list[dict[str, Any]]) -> Any:
    """A stand-in for Ray that runs a task at once; a worker has its node's environment, and the GPUs it asked for."""

    def remote(**options: Any) -> Callable[[Callable[..., None]], Any]:
        def decorate(function: Callable[..., None]) -> Any:
            def start(*arguments: Any) -> object:
                asked.append(options)
                with pytest.MonkeyPatch.context() as environment:
                    # As Ray 2.60: without GPUs it leaves the variable alone.
                    visible = "0" if options["num_gpus"] else "0,1"
                    environment.setattr(os, "environ", {"CUDA_VISIBLE_DEVICES": visible})
                    function(*arguments)
                return object()

            return SimpleNamespace(remote=start)

        return decorate

    return SimpleNamespace(
        init=lambda **_: None,
        remote=remote,
        wait=lambda references, **_: (references[:1], references[1:]),
        get=lambda reference: None,
        cancel=lambda reference, force: None,
        exceptions=SimpleNamespace(RayError=RuntimeError),
    )


@pytest.mark.parametrize(("gpus", "visible"), [(0, ""), (1, "0"), (0.5, "0")])
def test_a_fold_on_ray_sees_the_gpus_that_were_asked_for(
    tmp_path: Path, shared_images: Path, monkeypatch: pytest.MonkeyPatch, gpus: float, visible: str
) -> None:
    experiment = fake_experiment(tmp_path / "cv", load_dataset(shared_images), "cv.models=[resnet34]", "cv.folds=2")
    seen: list[str] = []
    monkeypatch.setattr(single_run, "run_job", lambda *job: seen.append(os.environ["CUDA_VISIBLE_DEVICES"]))
    asked: list[dict[str, Any]] = []
    monkeypatch.setitem(sys.modules, "ray", ray_in_this_process(asked))
    run_on_ray(experiment, experiment.jobs(), address=None, cpus=1, gpus=gpus)
    assert seen == [visible] * 2
    assert [(options["num_gpus"], options["max_calls"]) for options in asked] == [(gpus, 1)] * 2


def test_a_part_of_several_gpus_is_refused(tmp_path: Path, shared_images: Path) -> None:
    experiment = fake_experiment(tmp_path / "cv", load_dataset(shared_images), "cv.models=[resnet34]", "cv.folds=2")
    with pytest.raises(ConfigError, match=r"--gpus above 1 must be a whole number. Received: 1.5"):
        run_on_ray(experiment, experiment.jobs(), address=None, cpus=1, gpus=1.5)


@pytest.mark.parametrize(
    ("gpus", "message"), [("1.5", "must be a whole number"), ("nan", "must be a whole number"), ("1", "needs Ray")]
)
def test_what_ray_cannot_do_is_refused_before_a_folder_is_made(
    tmp_path: Path, shared_images: Path, monkeypatch: pytest.MonkeyPatch, gpus: str, message: str
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    options = ["--data", str(shared_images), "--out", str(tmp_path / "cv"), "--executor", "ray", "--gpus", gpus]
    result = CliRunner().invoke(main, ["cv", *options])
    assert result.exit_code == 2 and message in result.output and not (tmp_path / "cv").exists()
