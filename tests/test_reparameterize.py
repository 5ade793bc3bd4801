"""Networks re-parameterised for deployment: the same predictions from fewer layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from btkeras.decisions.ood import CalibrationScores, Gaussian, OODDetector
from btkeras.errors import ModelError
from btkeras.explain.cam import explain, stages
from btkeras.models import build_model, count_macs
from btkeras.models.head import with_features, with_temperature
from btkeras.models.reparameterize import reparameterize

OTHERS = (
    *("resnet34", "resnet34_inception", "resnet34_multiscale", "resnet34_se"),
    *("googlenet", "vgg16", "resnet50", "efficientnetv2", "densenet", "resnext101"),
)
# Batch normalisations that stand behind a concatenation of what others use too.
LEFT = {"densenet": 62}


def slow(*names: str) -> list[object]:
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


def randomised(model: keras.Model, seed: int = 0) -> keras.Model:
    """Gives normalisations statistics as a training would leave them, and biases values."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            drawn = {"gamma": (0.3, 0.9), "beta": (-0.4, 0.4), "moving_mean": (-0.4, 0.4), "moving_variance": (0.5, 2)}
            for name, (low, high) in drawn.items():
                if (variable := getattr(layer, name)) is not None:
                    variable.assign(rng.uniform(low, high, variable.shape))
        elif getattr(layer, "bias", None) is not None:
            layer.bias.assign(rng.uniform(-0.2, 0.2, layer.bias.shape))
    return model


def network(name: str, channels: int = 1, temperature: float | None = None) -> keras.Model:
    model = randomised(build_model(name, input_shape=(32, 32, channels), mean=100.0, variance=3600.0))
    return model if temperature is None else with_temperature(model, temperature)


def pixels(channels: int = 1, count: int = 3) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (count, 32, 32, channels)).astype(np.float32)


def call(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return np.asarray(model(images, training=False))


def observed(model: keras.Model, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and features."""
    probabilities, features = np.split(call(with_features(model), images), [model.output_shape[-1]], axis=1)
    return probabilities, features


def agree(model: keras.Model, fused: keras.Model, images: np.ndarray, given: np.ndarray | None = None) -> None:
    """The re-parameterised network predicts as the other; its input may be another."""
    (probabilities, features), (p, f) = observed(model, images), observed(fused, images if given is None else given)
    assert features.std() > 0.05
    np.testing.assert_allclose(p, probabilities, rtol=0, atol=1e-5)
    np.testing.assert_allclose(f, features, rtol=0, atol=1e-5 * np.abs(features).max())


def normalizations(model: keras.Model) -> int:
    return sum(isinstance(layer, layers.BatchNormalization) for layer in model.layers)


# --- The registered networks ---


@pytest.mark.parametrize("name", ["improved_resnet34", *slow(*OTHERS)])
def test_a_network_predicts_as_before_from_fewer_layers(name: str) -> None:
    model = network(name)
    before = model.get_weights()

    fused = reparameterize(model)

    agree(model, fused, pixels())
    pairs = 4 if "fine_conv5x5" in " ".join(layer.name for layer in model.layers) else 0
    left = LEFT.get(name, 0)
    assert normalizations(fused) == left
    assert len(fused.layers) == len(model.layers) - (normalizations(model) - left) - pairs
    assert {layer.name for layer in fused.layers} < {layer.name for layer in model.layers} or name.startswith("vgg")
    assert (fused.name, fused.input_shape, fused.output_shape) == (model.name, model.input_shape, model.output_shape)
    assert all(type(layer).__module__.startswith("keras.") for layer in fused.layers)
    # The network itself is what it was.
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_stem_s_pairs_become_their_larger_convolutions() -> None:
    model = network("resnet34_multiscale")
    fused = reparameterize(model)

    kernels = [fused.get_layer(f"stem_{pair}").kernel.shape for pair in ("fine_conv5x5", "coarse_conv11x11")]

    assert kernels == [(5, 5, 1, 32), (11, 11, 1, 32)]
    assert count_macs(model) - count_macs(fused) == (3 * 3 + 7 * 7) * 32 * 32 * 32


@pytest.fixture(scope="module")
def calibrated() -> keras.Model:
    """A network with all that the paper's has, and a temperature; read only."""
    return network("improved_resnet34", temperature=0.6)


@pytest.fixture(scope="module")
def deployed(calibrated: keras.Model) -> keras.Model:
    return reparameterize(calibrated)


def test_squeeze_and_excitation_convolves(calibrated: keras.Model, deployed: keras.Model) -> None:
    assert not [layer for layer in deployed.layers if type(layer) is keras.layers.Dense and layer.input.ndim == 4]
    name = "stage1_block1_se_expand"
    kernel, bias = deployed.get_layer(name).get_weights()
    np.testing.assert_array_equal(kernel[0, 0], calibrated.get_layer(name).get_weights()[0])
    np.testing.assert_array_equal(bias, calibrated.get_layer(name).get_weights()[1])


def test_the_temperature_goes_into_the_head(calibrated: keras.Model, deployed: keras.Model) -> None:
    agree(calibrated, deployed, pixels())
    assert [layer.name for layer in deployed.layers[-2:]] == ["features", "probabilities"]
    assert isinstance(deployed.layers[-1], layers.Dense) and deployed.layers[-1].compute_dtype == "float32"


@pytest.mark.parametrize("name", ["tiny", *slow("improved_resnet34")])
def test_maps_and_ood_scores_are_the_network_s(name: str) -> None:
    calibrated = network(name, temperature=0.6)
    deployed = reparameterize(calibrated)
    images, classes = pixels(count=4), np.arange(4)
    for old, new in zip(stages(calibrated), stages(deployed), strict=True):
        assert (old.axes, old.tensor.shape) == (new.axes, new.tensor.shape)
    maps = explain(calibrated, images, classes)
    assert maps.std() > 0.01
    np.testing.assert_allclose(explain(deployed, images, classes), maps, rtol=0, atol=1e-3)
    train = observed(calibrated, np.random.default_rng(1).integers(0, 256, (40, 32, 32, 1)).astype(np.float32))[1]
    ood = OODDetector(Gaussian.fit(train), CalibrationScores(np.empty(0)))
    scores = [ood.score(observed(model, images)[1]) for model in (calibrated, deployed)]
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-3)


def test_it_is_saved_and_loaded_without_knowing_of_it(deployed: keras.Model, tmp_path: Path) -> None:
    deployed.save(tmp_path / "deployed.keras")
    loaded = keras.models.load_model(tmp_path / "deployed.keras", compile=False)
    np.testing.assert_array_equal(call(loaded, pixels()), call(deployed, pixels()))


def test_fusing_again_changes_nothing(deployed: keras.Model) -> None:
    again = reparameterize(deployed)
    assert [layer.name for layer in again.layers] == [layer.name for layer in deployed.layers]
    np.testing.assert_array_equal(call(again, pixels()), call(deployed, pixels()))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
def test_a_network_keeps_the_precision_that_it_computes_in(policy: str) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = network("tiny", temperature=0.6)
    finally:
        keras.config.set_dtype_policy(before)

    fused = reparameterize(model)

    assert normalizations(model) > normalizations(fused) == 0
    for layer in fused.layers[1:]:
        old = model.get_layer(layer.name)
        assert (layer.compute_dtype, layer.variable_dtype) == (old.compute_dtype, old.variable_dtype)
    np.testing.assert_allclose(call(fused, pixels()), call(model, pixels()), rtol=0, atol=0.05)


# --- Grey ---


@pytest.mark.parametrize("name", ["tiny", *slow("improved_resnet34", "densenet")])
def test_grey_takes_the_place_of_three_equal_channels(name: str) -> None:
    model, grey = network(name, channels=3), pixels(1)

    fused = reparameterize(model, grey=True)

    assert fused.input_shape == (None, 32, 32, 1)
    agree(model, fused, np.repeat(grey, 3, axis=-1), grey)


def test_grey_of_a_grey_network_changes_nothing_more(calibrated: keras.Model, deployed: keras.Model) -> None:
    np.testing.assert_array_equal(call(reparameterize(calibrated, grey=True), pixels()), call(deployed, pixels()))


def test_statistics_that_keras_measured_stay(tmp_path: Path) -> None:
    inputs = keras.Input((32, 32, 3))
    measured = layers.Normalization()
    measured.adapt(np.repeat(pixels(1, count=8), 3, axis=-1))
    outputs = layers.Conv2D(2, 3)(measured(inputs))
    model, grey = keras.Model(inputs, outputs), pixels(1)
    for fused, images in (
        (reparameterize(model), np.repeat(grey, 3, axis=-1)),
        (reparameterize(model, grey=True), grey),
    ):
        expected = call(model, np.repeat(grey, 3, axis=-1))
        np.testing.assert_allclose(call(fused, images), expected, rtol=0, atol=1e-5)


def test_channels_that_are_standardized_apart_cannot_be_grey() -> None:
    model = build_model("tiny", input_shape=(32, 32, 3), mean=[1.0, 2.0, 1.0], variance=[1.0, 1.0, 1.0])
    with pytest.raises(ModelError, match=r"alike.*\n?.*1\.0, 2\.0"):
        reparameterize(model, grey=True)


def test_a_network_that_begins_otherwise_cannot_be_grey() -> None:
    inputs = keras.Input((8, 8, 3))
    with pytest.raises(ModelError, match="begin with convolutions"):
        reparameterize(keras.Model(inputs, layers.Flatten()(inputs)), grey=True)


# --- The rules, one by one ---


def bn(x: keras.KerasTensor, **options: object) -> keras.KerasTensor:
    return layers.BatchNormalization(**options)(x)


def shared_convolution(x: keras.KerasTensor) -> keras.KerasTensor:
    shared = layers.Conv2D(4, 3, padding="same")
    return layers.Add()([bn(shared(x)), bn(shared(layers.ReLU()(x)))])


def shared_normalization(x: keras.KerasTensor) -> keras.KerasTensor:
    shared = layers.BatchNormalization()
    return layers.Add()([shared(layers.Conv2D(4, 1)(x)), shared(layers.Conv2D(4, 1)(x))])


def used_twice(x: keras.KerasTensor) -> keras.KerasTensor:
    y = layers.Conv2D(4, 3)(x)
    return layers.Add()([bn(y), y])


def two_consumers(x: keras.KerasTensor) -> keras.KerasTensor:
    y = bn(layers.Conv2D(4, 3)(x))
    return layers.Add()([y, layers.ReLU()(y)])


def in_parts(x: keras.KerasTensor) -> keras.KerasTensor:
    parts = keras.ops.split(x, 2, axis=-1)
    return bn(layers.Concatenate()([layers.Conv2D(3 + i, 3)(part) for i, part in enumerate(parts)]))


def beside(x: keras.KerasTensor) -> keras.KerasTensor:
    return bn(layers.Concatenate()([layers.Conv2D(3, 1)(x), layers.ReLU()(x)]))


def along_rows(x: keras.KerasTensor) -> keras.KerasTensor:
    return bn(layers.Concatenate(axis=1)([layers.Conv2D(3, 1)(x), layers.Conv2D(3, 1)(x)]))


def added(*sizes: int, **options: object) -> Callable[[keras.KerasTensor], keras.KerasTensor]:
    def build(x: keras.KerasTensor) -> keras.KerasTensor:
        return bn(layers.Add()([layers.Conv2D(4, size, padding="same", **options)(x) for size in sizes]))

    return build


def nested(x: keras.KerasTensor) -> keras.KerasTensor:
    inside = keras.Input((8, 8, 4))
    return bn(layers.Conv2D(4, 3)(keras.Model(inside, bn(layers.Conv2D(4, 1)(inside)))(x)))


# What is built -> normalisations and additions that are left.
RULES: dict[str, tuple[Callable[[keras.KerasTensor], keras.KerasTensor], int, int]] = {
    "convolution with bias": (lambda x: bn(layers.Conv2D(4, 3)(x)), 0, 0),
    "strides": (lambda x: bn(layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False)(x)), 0, 0),
    "dilation": (lambda x: bn(layers.Conv2D(4, 3, dilation_rate=2)(x)), 0, 0),
    "groups": (lambda x: bn(layers.Conv2D(6, 3, groups=2)(x)), 0, 0),
    "depthwise": (lambda x: bn(layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)(x)), 0, 0),
    "separable": (lambda x: bn(layers.SeparableConv2D(5, 3)(x)), 0, 0),
    "transposed": (lambda x: bn(layers.Conv2DTranspose(5, 3, strides=2)(x)), 0, 0),
    "one dimension": (lambda x: bn(layers.Conv1D(5, 3)(layers.Reshape((64, 4))(x))), 0, 0),
    "dense": (lambda x: bn(layers.Dense(5)(layers.Flatten()(x))), 0, 0),
    "dense of maps": (lambda x: bn(layers.Dense(5, use_bias=False)(x), axis=3), 0, 0),
    "no gamma": (lambda x: bn(layers.Conv2D(4, 3)(x), scale=False), 0, 0),
    "no beta": (lambda x: bn(layers.Conv2D(4, 3)(x), center=False), 0, 0),
    "twice": (lambda x: bn(bn(layers.Conv2D(4, 3)(x))), 0, 0),
    "two consumers": (two_consumers, 0, 1),
    "in parts": (in_parts, 0, 0),
    "inside of a layer": (nested, 0, 0),
    "pair": (added(3, 5), 0, 0),
    "pair without bias": (added(5, 1, use_bias=False), 0, 0),
    "pair with dilation": (added(3, 5, dilation_rate=2), 0, 0),
    "three, oblong": (added((3, 1), (1, 5), 3), 0, 0),  # type: ignore[arg-type]
    "even and odd": (added(3, 4), 1, 1),
    "strided pair": (added(3, 5, strides=2), 1, 1),
    "pair with activation": (added(3, 5, activation="relu"), 1, 1),
    "same input twice": (lambda x: layers.Add()([x, x]), 0, 1),
    "activation between": (lambda x: bn(layers.Conv2D(4, 3, activation="relu")(x)), 1, 0),
    "another axis": (lambda x: bn(layers.Conv2D(4, 3)(x), axis=1), 1, 0),
    "of the input": (lambda x: bn(x), 1, 0),
    "in training": (lambda x: layers.BatchNormalization()(layers.Conv2D(4, 3)(x), training=True), 1, 0),
    "features": (lambda x: bn(layers.Conv2D(4, 3, name="features")(x)), 1, 0),
    "used twice": (used_twice, 1, 1),
    "shared convolution": (shared_convolution, 2, 1),
    "shared normalisation": (shared_normalization, 1, 1),
    "beside another": (beside, 1, 0),
    "along rows": (along_rows, 1, 0),
}


@pytest.mark.parametrize("case", RULES)
def test_what_is_folded_and_what_is_left(case: str) -> None:
    build, expected_normalizations, expected_additions = RULES[case]
    inputs = keras.Input((8, 8, 4))
    model = randomised(keras.Model(inputs, build(inputs)))
    images = np.random.default_rng(2).normal(size=(2, 8, 8, 4)).astype(np.float32)

    fused = reparameterize(model)

    expected = call(model, images)
    assert expected.std() > 0.05
    np.testing.assert_allclose(call(fused, images), expected, rtol=0, atol=1e-5)
    assert normalizations(fused) == expected_normalizations
    assert sum(isinstance(layer, layers.Add) for layer in fused.layers) == expected_additions


def test_an_output_stays_what_it_is() -> None:
    inputs = keras.Input((8, 8, 4))
    convolved = layers.Conv2D(4, 3)(inputs)
    model = randomised(keras.Model(inputs, {"raw": convolved, "normal": bn(convolved)}))
    images = np.random.default_rng(2).normal(size=(2, 8, 8, 4)).astype(np.float32)
    fused = reparameterize(model)
    assert normalizations(fused) == 1
    for name, value in model(images).items():
        np.testing.assert_allclose(fused(images)[name], value, rtol=0, atol=1e-6)


def test_a_network_that_is_not_functional_is_refused() -> None:
    with pytest.raises(ModelError, match="functional"):
        reparameterize(keras.Sequential([keras.Input((8,)), layers.Dense(2)]))


# --- Any network ---

STEPS: dict[str, Callable[[keras.KerasTensor], keras.KerasTensor]] = {
    "conv": lambda x: layers.Conv2D(4, 3, padding="same")(x),
    "no bias": lambda x: layers.Conv2D(6, 1, use_bias=False)(x),
    "strided": lambda x: layers.Conv2D(4, 3, strides=2, padding="same")(x),
    "dilated": lambda x: layers.Conv2D(4, 3, dilation_rate=2, padding="same")(x),
    "depthwise": lambda x: layers.DepthwiseConv2D(3, padding="same")(x),
    "dense": lambda x: layers.Dense(4)(x),
    "rescaled": lambda x: layers.Rescaling(0.5, 0.1)(x),
    "bn": bn,
    "bn again": bn,
    "relu": lambda x: layers.ReLU()(x),
    "pair": lambda x: layers.Add()([layers.Conv2D(4, k, padding="same")(x) for k in (3, 5)]),
    "residual": lambda x: layers.Add()([x, layers.Conv2D(x.shape[-1], 3, padding="same")(x)]),
    "branches": lambda x: layers.Concatenate()([layers.Conv2D(2, 1)(x), layers.Conv2D(3, 3, padding="same")(x)]),
    "branch of input": lambda x: layers.Concatenate()([layers.Conv2D(2, 1)(x), x]),
    "normal residual": lambda x: layers.Add()([x, bn(x)]),
}


@settings(max_examples=8, derandomize=True)
@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=3, max_size=8), st.integers(0, 99))
def test_any_network_predicts_as_before(steps: list[str], seed: int) -> None:
    inputs = x = keras.Input((8, 8, 2))
    for step in steps:
        x = STEPS[step](x)
    model = randomised(keras.Model(inputs, x), seed)
    images = np.random.default_rng(seed).normal(size=(2, 8, 8, 2)).astype(np.float32)

    fused = reparameterize(model)

    expected = call(model, images)
    np.testing.assert_allclose(call(fused, images), expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))
    assert len(fused.layers) <= len(model.layers)
