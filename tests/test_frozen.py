"""Fine-tuning: a first phase in which the head alone learns, cut and resumed in either phase."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from btkeras.config import ExperimentConfig
from btkeras.config_io import load_config
from btkeras.datasets import load_dataset
from btkeras.errors import ModelError
from btkeras.evaluation.evaluate import load_best
from btkeras.models import backbone_layers
from btkeras.runs import open_run
from btkeras.training import trainer
from tests.conftest import TINY

Config = Callable[..., ExperimentConfig]


def backbone(run: Path) -> list[np.ndarray]:
    return [value for layer in backbone_layers(load_best(open_run(run))) for value in layer.get_weights()]


def head(run: Path) -> list[np.ndarray]:
    return load_best(open_run(run)).get_layer("probabilities").get_weights()


def equal(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(one, other, strict=True))


def test_the_backbone_stays_and_the_head_learns(tmp_path: Path, shared_images: Path, tiny_config: Config) -> None:
    dataset = load_dataset(shared_images)
    # Two lengths, so that the second has seen more; a constant rate, so that the first epochs are the same.
    for name, epochs in (("short", 1), ("long", 2)):
        settings = (
            f"train.epochs={epochs}",
            f"model.frozen_epochs={epochs}",
            "schedule.name=constant",
            "train.monitor=val_loss",
        )
        trainer.train(tiny_config(*settings), dataset, tmp_path / name)
    assert open_run(tmp_path / "long").manifest()["best_epoch"] > 1
    assert equal(backbone(tmp_path / "short"), backbone(tmp_path / "long"))
    assert not equal(head(tmp_path / "short"), head(tmp_path / "long"))


TWO_PHASES = ("train.epochs=4", "model.frozen_epochs=2", "train.early_stopping=0")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, shared_images: Path) -> Path:
    """An uninterrupted run; read only."""
    out = tmp_path_factory.mktemp("frozen") / "whole"
    return trainer.train(load_config(None, (*TINY, *TWO_PHASES)), load_dataset(shared_images), out).path


@pytest.mark.parametrize("cut_in", [1, 3])
def test_cut_in_either_phase_and_resumed_it_equals_the_uninterrupted_run(
    tmp_path: Path, whole: Path, shared_images: Path, tiny_config: Config, monkeypatch: pytest.MonkeyPatch, cut_in: int
) -> None:
    config, dataset = tiny_config(*TWO_PHASES), load_dataset(shared_images)

    def interrupt(self: keras.callbacks.Callback, epoch: int, logs: object = None) -> None:
        if epoch == cut_in:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer.BestModel, "on_epoch_begin", interrupt)
        with pytest.raises(trainer.Interrupted, match=f"{cut_in} of 4 epochs"):
            trainer.train(config, dataset, tmp_path / "cut")
    trainer.resume(tmp_path / "cut", config)
    assert (tmp_path / "cut/history.csv").read_bytes() == (whole / "history.csv").read_bytes()
    with np.load(tmp_path / "cut/last/state.npz") as x, np.load(whole / "last/state.npz") as y:
        assert all(np.array_equal(x[name], y[name]) for name in set(x.files) - {"progress"})


@pytest.mark.slow
def test_a_file_of_weights_is_where_training_begins(tmp_path: Path, shared_images: Path, tiny_config: Config) -> None:
    application = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(32, 32, 3))
    application.save_weights(tmp_path / "resnet50.weights.h5")
    settings = ("model.name=resnet50", f"model.weights={tmp_path / 'resnet50.weights.h5'}", "train.epochs=1")
    trainer.train(tiny_config(*settings, "model.frozen_epochs=1"), load_dataset(shared_images), tmp_path / "run")
    kernels = load_best(open_run(tmp_path / "run")).get_layer("conv2_block1_1_conv").get_weights()
    assert equal(kernels, application.get_layer("conv2_block1_1_conv").get_weights())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (("model.name=resnet50", "model.weights=missing.h5"), r"missing\.h5, which does not exist"),
        (("model.name=tiny", "model.weights=imagenet"), "can be loaded into vgg16"),
    ],
)
def test_weights_that_cannot_be_had_leave_no_folder(
    tmp_path: Path, shared_images: Path, tiny_config: Config, setting: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        trainer.train(tiny_config(*setting), load_dataset(shared_images), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_file_that_does_not_fit_leaves_no_folder(tmp_path: Path, shared_images: Path, tiny_config: Config) -> None:
    (tmp_path / "empty.h5").write_bytes(b"")
    config = tiny_config("model.name=vgg16", f"model.weights={tmp_path / 'empty.h5'}")
    with pytest.raises(ModelError, match=r"must hold the weights of .* vgg16"):
        trainer.train(config, load_dataset(shared_images), tmp_path / "run")
    assert not (tmp_path / "run").exists()
