"""The saved state of networks that draw random numbers: resumed equals uninterrupted for them too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType

import keras
import numpy as np
import pytest

from btkeras.config import ExperimentConfig
from btkeras.datasets import load_dataset
from btkeras.evaluation.evaluate import load_best
from btkeras.models import blocks, build, build_model
from btkeras.runs import open_run
from btkeras.training import trainer
from btkeras.training.checkpoint import Progress, restore_state, save_state, state_of


def dropping_network(x: keras.KerasTensor) -> keras.KerasTensor:
    """Both kinds of randomness in the comparison networks: whole images (stochastic depth) and single values."""
    x = blocks.conv_bn(x, 8, 3, stride=4, name="stem_conv")
    x = keras.layers.Dropout(0.3, noise_shape=(None, 1, 1, 1), name="stem_drop")(x)
    return blocks.pooled_dropout(x, 0.5)


@pytest.fixture(autouse=True)
def _dropping() -> Iterator[None]:
    before = build.MODELS
    build.MODELS = MappingProxyType({**before, "dropping": dropping_network})
    yield
    build.MODELS = before


def compiled() -> keras.Model:
    model = build_model("dropping", input_shape=(32, 32, 1), mean=127.0, variance=5400.0)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)
    return model


def step(model: keras.Model) -> float:
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 1)).astype(np.float32)
    return float(model.train_on_batch(images, np.arange(8) % 4))


def test_a_restored_network_draws_the_numbers_that_the_saved_one_would_have(tmp_path: Path) -> None:
    first = compiled()
    step(first)
    save_state(tmp_path / "state.npz", state_of(first), Progress())
    # Counts Keras' names up, as an earlier fold in the process or a later version of the code would.
    other = [keras.layers.Dropout(0.1) for _ in range(3)]
    second = compiled()
    restore_state(tmp_path / "state.npz", second)
    assert other[0].seed_generator.state.path not in {variable.path for variable in first.variables}
    for mine, its in zip(first.variables, second.variables, strict=True):
        np.testing.assert_array_equal(mine, its)
    assert [step(first) for _ in range(3)] == [step(second) for _ in range(3)]


def test_the_state_holds_every_variable_under_a_name_that_lasts(tmp_path: Path) -> None:
    model = compiled()
    save_state(tmp_path / "state.npz", state_of(model), Progress())
    with np.load(tmp_path / "state.npz") as arrays:
        names = set(arrays.files)
    assert len(names) == len(model.variables) + len(model.optimizer.variables) + 1
    assert {"model/stem_drop/random_state_0", "model/features/random_state_0", "model/stem_conv/kernel"} <= names
    assert not any("seed_generator" in name for name in names)


def test_an_interrupted_and_resumed_run_with_dropout_equals_the_uninterrupted_one(
    tmp_path: Path,
    shared_images: Path,
    tiny_config: Callable[..., ExperimentConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset, config = load_dataset(shared_images), tiny_config("model.name=dropping")
    trainer.train(config, dataset, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(trainer.ProgressLine, "on_train_batch_end", _interrupt_in_second_epoch)
        with pytest.raises(trainer.Interrupted):
            trainer.train(config, dataset, tmp_path / "cut")
    trainer.resume(tmp_path / "cut", config)
    assert (tmp_path / "cut/history.csv").read_bytes() == (tmp_path / "whole/history.csv").read_bytes()
    whole, cut = (load_best(open_run(tmp_path / name)).get_weights() for name in ("whole", "cut"))
    assert all(np.array_equal(x, y) for x, y in zip(whole, cut, strict=True))


def _interrupt_in_second_epoch(self: keras.callbacks.Callback, batch: int, logs: object = None) -> None:
    if int(self.model.optimizer.iterations.numpy()) == 6:
        raise KeyboardInterrupt
