"""Keras' JAX backend: tf.data feeds it, and its checkpoints are ordinary ones."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from btkeras import Predictor
from tests.cli_with_tiny import COMMAND
from tests.conftest import TINY, write_images
from tests.test_cli import btkeras, fails

ROOT = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.jax,
    pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs the extra btkeras[jax]"),
]


# Those that hold for every backend.
FORM_TESTS = (
    "test_its_weights_have_the_networks_names_shapes_order_and_values[improved_resnet34]",
    "test_gradients_are_as_near_to_those_of_float64_as_the_networks[improved_resnet34]",
    "test_grey_images_need_one_of_equal_channels[improved_resnet34]",
    "test_grey_images_need_one_of_equal_channels[resnet34]",
)


def jax_process(command: Sequence[object], **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONWARNINGS": "default", **variables}
    return subprocess.run(list(map(str, command)), cwd=ROOT, env=environment, capture_output=True, text=True)


def test_the_quick_configuration_trains_under_jax_and_predicts_under_tensorflow(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "btkeras", "train", "--data", "phantom", "--config", "configs/quick.yaml"]
    done = jax_process([*command, "--set", "train.epochs=2", "--out", run])
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout and '"device": "jax' in (run / "manifest.json").read_text()
    image = next((Path(os.environ["BTKERAS_CACHE"])).glob("phantom-*/images/glioma/*.png"))
    assert Predictor(run).predict([image]).probabilities.sum() == pytest.approx(1, abs=1e-5)


def test_batches_made_on_the_device_train_as_those_of_the_pipeline(shared_images: Path, tmp_path: Path) -> None:
    """All but the noise's random numbers; validated with a batch that is smaller than the others."""
    settings = (*TINY, "train.epochs=2", "train.batch_size=6", "optimizer.ema=0.9", "train.keep_state=true")
    settings = (*settings, "augment.rotation=10", "intensity.histogram=0.3", "intensity.bias_field=0.3")
    command = [*COMMAND, "train", "--data", shared_images, *(f"--set={each}" for each in settings)]
    histories = []
    for cache in ("memory", "device"):
        run = tmp_path / cache
        done = jax_process([*command, f"--set=data.cache={cache}", "--out", run])
        assert done.returncode == 0, done.stderr
        histories.append(np.genfromtxt(run / "history.csv", delimiter=",", names=True))
    for name in histories[0].dtype.names:
        np.testing.assert_allclose(histories[1][name], histories[0][name], rtol=2e-3, err_msg=name)


def test_the_networks_form_for_training_computes_and_learns_the_same() -> None:
    tests = [f"tests/test_training_layers.py::{name}" for name in FORM_TESTS]
    done = jax_process([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests], JAX_ENABLE_X64="1")
    assert done.returncode == 0, done.stdout


def test_on_the_device_a_resumed_run_equals_the_uninterrupted_one(shared_images: Path, tmp_path: Path) -> None:
    settings = (*TINY, "data.cache=device", "intensity.noise=0.3", "train.keep_state=true")
    command = [*COMMAND, "train", "--data", shared_images, *(f"--set={each}" for each in settings)]
    for epochs, out in ((3, "whole"), (1, "cut")):
        done = jax_process([*command, f"--set=train.epochs={epochs}", "--out", tmp_path / out])
        assert done.returncode == 0, done.stderr
    done = jax_process([*command, "--resume", "--set=train.epochs=3", "--out", tmp_path / "cut"])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "cut/history.csv").read_bytes() == (tmp_path / "whole/history.csv").read_bytes()


def test_the_device_is_jaxs(shared_images: Path, tmp_path: Path) -> None:
    done = btkeras("train", "--data", shared_images, "--set", "data.cache=device", "--out", tmp_path / "run")
    fails(done, "data.cache=device needs Keras' JAX backend", "KERAS_BACKEND=jax")


def test_folds_share_what_is_compiled(tmp_path: Path) -> None:
    """Of other means of their training images, and not quite the same number."""
    cache, names = tmp_path / "xla", []
    for count in (10, 11):
        write_images(tmp_path / f"of_{count}", per_class=count, seed=count)
        command = [*COMMAND, "train", "--data", tmp_path / f"of_{count}", *(f"--set={each}" for each in TINY)]
        out = [
            "--set=data.cache=device",
            "--set=train.epochs=1",
            "--set=train.batch_size=20",
            "--out",
            tmp_path / f"run_{count}",
        ]
        done = jax_process(
            [*command, *out], JAX_COMPILATION_CACHE_DIR=str(cache), JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0"
        )
        assert done.returncode == 0, done.stderr
        names.append({file.name for file in cache.iterdir() if "steps" in file.name or "predictions" in file.name})
    assert names[0] == names[1] and len(names[0]) > 0
