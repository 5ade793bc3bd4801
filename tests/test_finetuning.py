"""Freezing a network's backbone."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from btkeras.models import backbone_layers, build_model, set_backbone_trainable


@pytest.fixture
def tiny() -> keras.Model:
    keras.utils.set_random_seed(2)
    return build_model("tiny", input_shape=(32, 32, 1), mean=127.0, variance=5400.0)


def changed_by_a_step(model: keras.Model) -> set[str]:
    model.compile("adam", "sparse_categorical_crossentropy")
    before = {variable.path: np.array(variable) for variable in model.variables}
    images = np.random.default_rng(1).integers(0, 256, (8, 32, 32, 1)).astype(np.float32)
    model.train_on_batch(images, np.arange(8) % 4)
    return {variable.path for variable in model.variables if not np.array_equal(variable, before[variable.path])}


def test_the_backbone_is_all_up_to_the_last_feature_map(tiny: keras.Model) -> None:
    names = [layer.name for layer in backbone_layers(tiny)]
    assert names[0] == "images" and names[-1] == "stage1_block1_relu"
    assert [layer.name for layer in tiny.layers[len(names) :]] == ["features", "probabilities"]


def test_only_the_head_of_a_frozen_network_learns(tiny: keras.Model) -> None:
    set_backbone_trainable(tiny, False)
    assert changed_by_a_step(tiny) == {"probabilities/kernel", "probabilities/bias"}


def test_a_freed_network_learns_everywhere_again(tiny: keras.Model) -> None:
    set_backbone_trainable(tiny, False)
    set_backbone_trainable(tiny, True)
    assert changed_by_a_step(tiny) == {variable.path for variable in tiny.variables}
