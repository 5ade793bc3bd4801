"""The networks compute what a second implementation, written in PyTorch from the paper's description, computes.

``scripts/make_twin_reference.py`` is that implementation and wrote ``data/twin.npz``; PyTorch is not needed here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from btkeras.models import build_model
from tests import twin_weights

REFERENCE = Path(__file__).with_name("data") / "twin.npz"
CASES = {case.name: case for case in twin_weights.CASES}

# Activations are of order one. The differences measured were below 5e-6.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def reference() -> dict[str, NDArray]:
    with np.load(REFERENCE) as file:
        return dict(file)


@pytest.fixture(scope="module", autouse=True)
def on_the_cpu() -> Iterator[None]:
    """A GPU may round convolutions to TensorFloat-32, three digits, whatever the network."""
    with keras.device("cpu:0"):
        yield


def seeded_model(name: str, case: twin_weights.Case) -> keras.Model:
    """The Keras network with the seeded weights; its outputs are features and probabilities."""
    model = build_model(
        name, input_shape=case.shape, classes=twin_weights.CLASSES, mean=case.mean, variance=case.variance
    )
    for variable in model.variables:
        variable.assign(twin_weights.seeded(variable.path, variable.shape))
    return keras.Model(model.input, [model.get_layer("features").output, model.output])


def outputs(model: keras.Model, case: twin_weights.Case) -> list[NDArray]:
    return [keras.ops.convert_to_numpy(output) for output in model(case.images, training=False)]


def centerd(logits: NDArray) -> NDArray:
    """Logits up to the constant that softmax forgets."""
    return logits - logits.mean(axis=-1, keepdims=True)


def test_numpy_still_draws_the_weights_and_images_of_the_reference(reference: dict[str, NDArray]) -> None:
    assert reference["seed"] == twin_weights.SEED
    np.testing.assert_array_equal(twin_weights.fingerprint(), reference["fingerprint"])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", twin_weights.NETWORKS)
def test_a_network_computes_what_its_pytorch_twin_computes(name: str, case: str, reference: dict[str, NDArray]) -> None:
    expected = {key: reference[f"{name}/{case}/{key}"] for key in ("features", "logits", "probabilities", "trainable")}
    model = seeded_model(name, CASES[case])

    features, probabilities = outputs(model, CASES[case])

    assert sum(math.prod(variable.shape) for variable in model.trainable_variables) == expected["trainable"]
    np.testing.assert_allclose(features, expected["features"], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(centerd(np.log(probabilities)), centerd(expected["logits"]), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(probabilities, expected["probabilities"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", twin_weights.NETWORKS)
def test_the_reference_would_show_a_difference(name: str, reference: dict[str, NDArray]) -> None:
    """Features and probabilities are neither dead nor alike, so that agreement means something."""
    for case in CASES:
        first, second = reference[f"{name}/{case}/features"]
        assert first.std() > 0.3
        assert np.mean(first > 0.01) > 0.9
        assert np.abs(first - second).max() > 0.1
        assert reference[f"{name}/{case}/probabilities"].max() < 0.99


def test_two_swapped_kernels_are_noticed(reference: dict[str, NDArray]) -> None:
    model = seeded_model("resnet34", CASES["grey"])
    one, other = (model.get_layer(f"stage4_block{block}_conv1") for block in (2, 3))
    kernels = one.get_weights(), other.get_weights()
    other.set_weights(kernels[0])
    one.set_weights(kernels[1])

    features, _ = outputs(model, CASES["grey"])

    assert np.abs(features - reference["resnet34/grey/features"]).max() > 1000 * TOLERANCE
