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


# Two steps of the network in its form for training, on all devices.
_DATA_PARALLEL = """
import keras, numpy as np
from btkeras.models import build_model
from btkeras.models.reparameterize import reparameterize

keras.distribution.set_distribution(keras.distribution.DataParallel())
keras.utils.set_random_seed(0)
model = build_model("improved_resnet34", input_shape=(32, 32, 1), mean=100.0, variance=2500.0)
model = reparameterize(model, grey=True, trainable=True)
model.compile("sgd", "categorical_crossentropy")
images = np.random.default_rng(0).uniform(0, 255, (8, 32, 32, 1)).astype("float32")
print(*(model.train_on_batch(images, np.eye(4)[[0, 1, 2, 3] * 2]) for _ in range(2)))
"""


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


def test_batches_made_on_the_device_train_as_those_of_the_pipeline(image_folder: Path, tmp_path: Path) -> None:
    """All but the noise's random numbers; validated with a batch that is smaller than the others; with a rare class."""
    for image in sorted((image_folder / "glioma").iterdir())[6:]:
        image.unlink()
    settings = (*TINY, "train.epochs=2", "train.batch_size=6", "optimizer.ema=0.9", "train.keep_state=true")
    settings = (*settings, "augment.rotation=10", "intensity.histogram=0.3", "intensity.bias_field=0.3")
    settings = (*settings, "train.loss=focal", "train.class_weight=balanced")
    command = [*COMMAND, "train", "--data", image_folder, *(f"--set={each}" for each in settings)]
    histories = []
    for cache in ("memory", "device"):
        run = tmp_path / cache
        done = jax_process([*command, f"--set=data.cache={cache}", "--out", run])
        assert done.returncode == 0, done.stderr
        histories.append(np.genfromtxt(run / "history.csv", delimiter=",", names=True))
    for name in histories[0].dtype.names:
        np.testing.assert_allclose(histories[1][name], histories[0][name], rtol=2e-3, err_msg=name)


def test_a_teacher_teaches_on_the_device_as_in_the_pipeline(
    trained_run: Path, shared_images: Path, tmp_path: Path
) -> None:
    settings = (*TINY, "train.epochs=2", "train.teacher_share=0.9")
    command = [*COMMAND, "train", "--data", shared_images, *(f"--set={each}" for each in settings)]
    losses = []
    teacher = f"--teacher={trained_run}"
    for options in (("--set=data.cache=memory", teacher), ("--set=data.cache=device", teacher), ()):
        run = tmp_path / str(len(losses))
        done = jax_process([*command, *options, "--out", run])
        assert done.returncode == 0, done.stderr
        losses.append(np.genfromtxt(run / "history.csv", delimiter=",", names=True)["loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-3)
    assert np.abs(losses[2] - losses[0]).max() > 0.01


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


def test_two_devices_train_as_one(shared_images: Path, tmp_path: Path) -> None:
    settings = (*TINY, "data.cache=device", "optimizer.ema=0.9", "train.batch_size=6", "train.epochs=2")
    command = [*COMMAND, "train", "--data", shared_images, *(f"--set={each}" for each in settings)]
    histories = []
    for count in ("1", "2"):
        flags = f"--xla_force_host_platform_device_count={count}"
        done = jax_process([*command, "--out", tmp_path / count], XLA_FLAGS=flags)
        assert done.returncode == 0, done.stderr
        assert f'"device": "jax: {count} x' in (tmp_path / count / "manifest.json").read_text()
        histories.append(np.genfromtxt(tmp_path / count / "history.csv", delimiter=",", names=True))
    for name in histories[0].dtype.names:
        np.testing.assert_allclose(histories[1][name], histories[0][name], rtol=2e-3, err_msg=name)
    done = jax_process([*command, "--set=train.batch_size=5", "--out", tmp_path / "odd"], XLA_FLAGS=flags)
    assert done.returncode == 1 and "must be a multiple of the number of devices, 2" in done.stderr


def test_keras_data_parallel_gives_the_loss_of_one_device(tmp_path: Path) -> None:
    losses = []
    for count in ("1", "2"):
        flags = f"--xla_force_host_platform_device_count={count}"
        done = jax_process([sys.executable, "-c", _DATA_PARALLEL], XLA_FLAGS=flags)
        assert done.returncode == 0, done.stderr
        losses.append(np.array(done.stdout.split()[-2:], float))
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


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
