"""A temperature inside a network."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from scipy.special import softmax

from btkeras.errors import ModelError
from btkeras.models import backbone_layers, build_model, count_macs
from btkeras.models.head import logits_network, temperature_of, with_temperature
from tests.conftest import TINY_NETWORKS


@pytest.fixture(scope="module", params=["tiny", "googlenet", pytest.param("vgg16", marks=pytest.mark.slow)])
def network(request: pytest.FixtureRequest) -> keras.Model:
    """Networks with heads of different kinds."""
    return build_model(request.param, input_shape=(32, 32, 1), mean=100.0, variance=900.0)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 1)).astype(np.float32)


def call(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return np.asarray(model(images, training=False))


def test_probabilities_are_those_of_the_divided_logits(network: keras.Model, images: np.ndarray) -> None:
    logits = call(logits_network(network), images)
    np.testing.assert_allclose(softmax(logits, axis=1), call(network, images), atol=1e-6)
    for temperature in (0.2, 3.0):
        scaled = with_temperature(network, temperature)
        np.testing.assert_allclose(call(scaled, images), softmax(logits / temperature, axis=1), atol=1e-6)
        assert temperature_of(scaled) == pytest.approx(temperature)
    assert temperature_of(network) == 1


def test_it_stays_the_same_network(network: keras.Model, images: np.ndarray) -> None:
    before = call(network, images)
    scaled = with_temperature(network, 0.5)
    assert (scaled.name, scaled.input_shape, scaled.output_shape) == (
        network.name,
        network.input_shape,
        network.output_shape,
    )
    assert scaled.count_params() == network.count_params() and count_macs(scaled) == count_macs(network)
    assert [layer.name for layer in scaled.layers[:-3]] == [layer.name for layer in network.layers[:-1]]
    assert [layer.name for layer in backbone_layers(scaled)] == [layer.name for layer in backbone_layers(network)]
    np.testing.assert_array_equal(call(network, images), before)


def test_another_temperature_takes_the_place_of_the_first(network: keras.Model, images: np.ndarray) -> None:
    again = with_temperature(with_temperature(network, 5.0), 0.7)
    np.testing.assert_array_equal(call(again, images), call(with_temperature(network, 0.7), images))
    assert len(again.layers) == len(network.layers) + 2
    logits = call(logits_network(network), images)
    np.testing.assert_array_equal(call(logits_network(again), images), logits)


def test_it_is_loaded_without_knowing_of_it(network: keras.Model, images: np.ndarray, tmp_path: Path) -> None:
    scaled = with_temperature(network, 0.7)
    scaled.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(call(loaded, images), call(scaled, images))
    assert temperature_of(loaded) == temperature_of(scaled)


def test_it_computes_in_float32_whatever_the_policy(images: np.ndarray) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        scaled = with_temperature(build_model("tiny", input_shape=(32, 32, 1)), 0.5)
    finally:
        keras.config.set_dtype_policy(before)
    assert [layer.compute_dtype for layer in scaled.layers[-3:]] == ["float32"] * 3


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_no_number_above_0_is_refused(temperature: float) -> None:
    model = build_model("tiny", input_shape=(32, 32, 1))
    with pytest.raises(ModelError, match="number above 0"):
        with_temperature(model, temperature)


def test_another_head_is_refused() -> None:
    inputs = keras.Input((32, 32, 1))
    outputs = keras.layers.Dense(4)(keras.layers.Flatten()(TINY_NETWORKS["tiny"](inputs)))
    with pytest.raises(ModelError, match="dense layer with softmax"):
        with_temperature(keras.Model(inputs, outputs), 2.0)
