"""A training that starts from the weights of another run."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from btkeras.errors import ModelError
from btkeras.files import sha256
from btkeras.models import build_model
from btkeras.models.head import with_temperature
from btkeras.models.keras_file import save_network
from btkeras.models.reparameterize import reparameterize
from btkeras.models.weights import load_weights
from btkeras.provenance import steps_to
from tests.test_cli import btkeras, fails

NAME, SHAPE = "resnet34_se", (32, 32, 1)
IMAGES = np.random.default_rng(0).integers(0, 256, (4, *SHAPE)).astype("float32")


@pytest.fixture(scope="module")
def network() -> keras.Model:
    keras.utils.set_random_seed(1)
    model = build_model(NAME, input_shape=SHAPE, mean=100.0, variance=3600.0)
    for number, weight in enumerate(model.weights):
        weight.assign(weight + 0.01 * (number % 7))
    return with_temperature(model, 2.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, network: keras.Model) -> Path:
    file = tmp_path_factory.mktemp("weights") / "best.keras"
    save_network(network, file)
    return file


@pytest.mark.parametrize("trainable", [False, True])
def test_the_network_is_the_checkpoints_before_its_temperature(
    network: keras.Model, checkpoint: Path, trainable: bool
) -> None:
    model = build_model(NAME, input_shape=SHAPE, mean=100.0, variance=3600.0)
    if trainable:
        model = reparameterize(model, trainable=True)
    load_weights(model, checkpoint)
    expected = np.asarray(with_temperature(network, 1.0)(IMAGES))
    np.testing.assert_allclose(np.asarray(model(IMAGES)), expected, atol=1e-5)


def test_another_number_of_classes_gets_a_random_head(network: keras.Model, checkpoint: Path) -> None:
    model = build_model(NAME, input_shape=SHAPE, classes=2, weights=checkpoint)
    for given, wanted in zip(model.get_weights()[:-2], network.get_weights()[:-2], strict=True):
        np.testing.assert_array_equal(given, wanted)


@pytest.mark.parametrize(("name", "channels"), [("resnet34", 1), (NAME, 3)])
def test_another_networks_checkpoint_is_refused_and_changes_nothing(checkpoint: Path, name: str, channels: int) -> None:
    model = build_model(name, input_shape=(32, 32, channels))
    before = model.get_weights()
    with pytest.raises(ModelError, match=f"{NAME} for 1"):
        load_weights(model, checkpoint)
    assert all(map(np.array_equal, before, model.get_weights()))


def test_a_run_starts_where_another_ended(
    trained_run: Path, shared_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With a learning rate of next to nothing the first epoch ends where the other run ended.
    settings = ("--config", trained_run / "config.yaml", "--set", "train.epochs=1")
    settings = (*settings, "--set", "optimizer.learning_rate=1e-12")
    file = trained_run / "best.keras"
    # Where the command is given says nothing of how the weights were made.
    monkeypatch.chdir(trained_run)
    result = btkeras("train", "--data", shared_images, *settings, "--weights", file, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    started, ended = (keras.models.load_model(run / "best.keras") for run in (tmp_path / "run", trained_run))
    for one, other in zip(started.trainable_variables, ended.trainable_variables, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    # Its manifest says of each run before how that was made.
    first = json.loads((trained_run / "manifest.json").read_text())
    said = {"run": str(trained_run), "sha256": sha256(file)}
    said |= {key: first[key] for key in ("command", "git_revision")}
    assert json.loads((tmp_path / "run/manifest.json").read_text())["began_with"] == [said]
    assert first["began_with"] == [] and steps_to(tmp_path / "run/best.keras")[0] == said


def test_a_test_image_may_be_none_that_the_checkpoint_has_learnt(
    trained_run: Path, shared_images: Path, tmp_path: Path
) -> None:
    settings = ("--config", trained_run / "config.yaml", "--set", "train.epochs=1", "--set", "data.split_seed=7")
    file = trained_run / "best.keras"
    result = btkeras("train", "--data", shared_images, *settings, "--weights", file, "--out", tmp_path / "run")
    fails(result, "A test image must be none that", "Split as")
    assert not (tmp_path / "run").exists()


def test_a_missing_or_damaged_checkpoint_leaves_no_folder(shared_images: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "run", tmp_path / "other.keras"
    arguments = ("train", "--data", shared_images, "--set", "train.epochs=1", "--weights", file, "--out", out)
    fails(btkeras(*arguments), "which does not exist", "RUN/best.keras")
    file.write_bytes(b"no archive")
    fails(btkeras(*arguments), "must be a whole .keras file")
    assert not out.exists()
