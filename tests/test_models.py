"""The networks: sizes, names, shapes, and what holds for each of them whatever its weights."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from btkeras import models
from btkeras.errors import ModelError
from btkeras.models import MODELS, build_model
from tests import twin_weights

# At 224 x 224 x 3 with 4 classes.
TRAINABLE = {
    "resnet34": 21_286_724,
    "resnet34_inception": 17_181_924,
    "resnet34_multiscale": 21_331_844,
    "resnet34_se": 21_447_920,
    "improved_resnet34": 17_344_280,
}
FUNCTIONS = {
    "resnet34": models.ResNet34,
    "resnet34_inception": models.ResNet34Inception,
    "resnet34_multiscale": models.ResNet34MultiScale,
    "resnet34_se": models.ResNet34SE,
    "improved_resnet34": models.ImprovedResNet34,
}
INCEPTION = {"resnet34_inception", "improved_resnet34"}
MULTI_SCALE = {"resnet34_multiscale", "improved_resnet34"}
ATTENTION = {"resnet34_se", "improved_resnet34"}
BLOCKS = {1: 3, 2: 4, 3: 6, 4: 3}


@pytest.fixture(scope="module", params=TRAINABLE)
def model(request: pytest.FixtureRequest) -> keras.Model:
    """Each network as the paper uses it; read only."""
    return build_model(request.param, input_shape=(224, 224, 3), classes=4)


@pytest.fixture(scope="module")
def small() -> keras.Model:
    """The full network on small grey images; read only."""
    return build_model("improved_resnet34", input_shape=(32, 32, 1), mean=[100.0], variance=[3600.0])


@pytest.fixture
def policy(request: pytest.FixtureRequest) -> Iterator[str]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


def pixels(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(7).integers(0, 256, shape).astype(np.float32)


def call(model: keras.Model, images: NDArray, training: bool = False) -> NDArray:
    return keras.ops.convert_to_numpy(model(images, training=training))


def until(model: keras.Model, layer: str) -> keras.Model:
    """The network up to a layer, by name."""
    return keras.Model(model.input, model.get_layer(layer).output)


# --- Size and shape ---


def test_trainable_parameters_are_exactly_those_of_the_paper_s_table(model: keras.Model) -> None:
    assert sum(math.prod(variable.shape) for variable in model.trainable_variables) == TRAINABLE[model.name]


def test_the_paper_s_variants_are_offered_by_name() -> None:
    assert set(TRAINABLE) <= set(MODELS)


def test_each_is_offered_as_keras_applications_are(model: keras.Model) -> None:
    network = FUNCTIONS[model.name]()
    assert network.name == model.name
    assert [layer.get_config() for layer in network.layers] == [layer.get_config() for layer in model.layers]


def stage_shapes(model: keras.Model) -> list[tuple[int, ...]]:
    return [model.get_layer(f"stage{stage}_block{count}_relu").output.shape[1:] for stage, count in BLOCKS.items()]


def test_the_stages_halve_the_image_and_double_the_channels(model: keras.Model) -> None:
    assert model.get_layer("stem_pool").output.shape == (None, 56, 56, 64)
    assert stage_shapes(model) == [(56, 56, 64), (28, 28, 128), (14, 14, 256), (7, 7, 512)]
    assert model.get_layer("features").output.shape == (None, 512)
    assert model.output_shape == (None, 4)


@pytest.mark.parametrize("name", ["improved_resnet34"])
def test_small_grey_images_go_through_the_same_stages(name: str) -> None:
    model = build_model(name, input_shape=(112, 112, 1), classes=2)

    assert stage_shapes(model) == [(28, 28, 64), (14, 14, 128), (7, 7, 256), (4, 4, 512)]
    assert model.input_shape == (None, 112, 112, 1)
    assert model.output_shape == (None, 2)


def test_odd_sizes_are_rounded_up_alike_in_every_branch() -> None:
    model = build_model("improved_resnet34", input_shape=(75, 45, 1))

    assert stage_shapes(model) == [(19, 12, 64), (10, 6, 128), (5, 3, 256), (3, 2, 512)]
    assert np.isfinite(call(model, pixels(1, 75, 45, 1))).all()


# --- Layer names are an API ---


def conv(name: str, *, strided: bool = False, relu: bool = True) -> list[str]:
    return [f"{name}_pad"] * strided + [name, f"{name}_bn"] + [f"{name}_relu"] * relu


def stem_names(multi_scale: bool) -> list[str]:
    pool = ["stem_pool_pad", "stem_pool"]
    if not multi_scale:
        return conv("stem_conv", strided=True) + pool
    fine = ["stem_fine_conv3x3", "stem_fine_conv5x5", "stem_fine_add", "stem_fine_bn", "stem_fine_relu"]
    coarse = ["stem_coarse_conv7x7", "stem_coarse_conv11x11", "stem_coarse_add", "stem_coarse_bn", "stem_coarse_relu"]
    down = conv("stem_fine_down", strided=True) + conv("stem_coarse_down", strided=True)
    return fine + coarse + down + ["stem_concat"] + pool


def residual_names(block: str, strided: bool, attention: bool) -> list[str]:
    shortcut = conv(f"{block}_shortcut", relu=False) if strided else []
    main = conv(f"{block}_conv1", strided=strided) + conv(f"{block}_conv2", relu=False)
    gate = [f"{block}_se{part}" for part in ("_squeeze", "_reduce", "_expand", "")] if attention else []
    return shortcut + main + gate + [f"{block}_add", f"{block}_relu"]


def inception_names(block: str) -> list[str]:
    return [
        *conv(f"{block}_single", strided=True),
        *conv(f"{block}_double1"),
        *conv(f"{block}_double2", strided=True),
        *conv(f"{block}_triple1"),
        *conv(f"{block}_triple2"),
        *conv(f"{block}_triple3", strided=True),
        f"{block}_pool_pad",
        f"{block}_pool",
        *conv(f"{block}_pooled"),
        f"{block}_concat",
    ]


def layer_names(name: str) -> list[str]:
    names = ["images", "standardize", *stem_names(name in MULTI_SCALE)]
    for stage, count in BLOCKS.items():
        for number in range(1, count + 1):
            block, halves = f"stage{stage}_block{number}", stage > 1 and number == 1
            if halves and name in INCEPTION:
                names += inception_names(block)
            else:
                names += residual_names(block, halves, name in ATTENTION)
    return [*names, "features", "probabilities"]


def test_layer_names_are_unique_and_stay_what_they_were(model: keras.Model) -> None:
    assert sorted(layer.name for layer in model.layers) == sorted(layer_names(model.name))


def test_weights_are_found_under_their_layer_s_name(model: keras.Model) -> None:
    paths = [variable.path for variable in model.variables]

    assert len(set(paths)) == len(paths)
    assert {path.split("/")[0] for path in paths} <= set(layer_names(model.name))
    assert model.get_layer("stage1_block1_conv1").kernel.path == "stage1_block1_conv1/kernel"


# --- What each network is made of ---


def test_every_layer_is_one_of_keras_own(model: keras.Model) -> None:
    assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)


def test_a_network_is_rebuilt_from_json_without_custom_objects(small: keras.Model) -> None:
    again = keras.models.model_from_json(small.to_json())
    again.set_weights(small.get_weights())
    images = pixels(2, 32, 32, 1)

    assert [layer.name for layer in again.layers] == [layer.name for layer in small.layers]
    np.testing.assert_array_equal(call(again, images), call(small, images))


LOAD_AND_PREDICT = """
import sys
sys.modules["btkeras"] = None  # Importing it is an error from here on.
import keras, numpy as np
folder = sys.argv[1]
model = keras.models.load_model(f"{folder}/model.keras")
np.save(f"{folder}/probabilities.npy", model(np.load(f"{folder}/images.npy"), training=False))
"""


@pytest.mark.slow
def test_a_saved_network_is_loaded_by_a_process_without_btkeras(small: keras.Model, tmp_path: Path) -> None:
    images = pixels(2, 32, 32, 1)
    np.save(tmp_path / "images.npy", images)
    small.save(tmp_path / "model.keras")

    subprocess.run([sys.executable, "-c", LOAD_AND_PREDICT, str(tmp_path)], check=True, cwd=tmp_path)

    np.testing.assert_allclose(np.load(tmp_path / "probabilities.npy"), call(small, images), rtol=0, atol=1e-6)


def test_batch_normalization_is_pytorch_s(model: keras.Model) -> None:
    normalizations = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]

    assert {(layer.momentum, layer.epsilon) for layer in normalizations} == {(0.9, 1e-5)}


def test_convolutions_are_he_normal(small: keras.Model) -> None:
    kernel = keras.ops.convert_to_numpy(small.get_layer("stage4_block2_conv1").kernel)

    assert kernel.std() == pytest.approx(np.sqrt(2 / (3 * 3 * 512)), rel=0.01)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"], indirect=True)
def test_probabilities_are_float32_and_sum_to_one_under_every_policy(policy: str) -> None:
    model = build_model("tiny", input_shape=(32, 32, 1), mean=100.0, variance=3600.0)

    probabilities = call(model, pixels(3, 32, 32, 1))

    assert model.get_layer("stage1_block1_conv2").compute_dtype == policy.removeprefix("mixed_")
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=0, atol=1e-6)


def test_a_gradient_reaches_every_trainable_variable() -> None:
    keras.utils.set_random_seed(1)
    model = build_model("improved_resnet34", input_shape=(32, 32, 1), mean=100.0, variance=3600.0)
    before = [keras.ops.convert_to_numpy(variable) for variable in model.trainable_variables]
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)

    loss = model.train_on_batch(pixels(4, 32, 32, 1), np.arange(4))

    assert np.isfinite(loss)
    after = [keras.ops.convert_to_numpy(variable) for variable in model.trainable_variables]
    paths = [variable.path for variable in model.trainable_variables]
    assert [path for path, old, new in zip(paths, before, after, strict=True) if np.array_equal(old, new)] == []
    assert all(np.isfinite(new).all() for new in after)


# --- The multi-scale stem ---


@pytest.fixture(scope="module")
def stem() -> keras.Model:
    """The multi-scale stem with seeded weights and statistics."""
    model = until(
        build_model("resnet34_multiscale", input_shape=(32, 32, 3), mean=127.5, variance=5400.0), "stem_concat"
    )
    for variable in model.variables:
        variable.assign(twin_weights.seeded(variable.path, variable.shape))
    return model


def merge(stem: keras.Model, small: str, large: str) -> None:
    """Adds the small kernel to the middle of the large one, and leaves nothing in the small one."""
    little, big = (stem.get_layer(layer).get_weights()[0] for layer in (small, large))
    border = (big.shape[0] - little.shape[0]) // 2
    padded = np.pad(little, ((border, border), (border, border), (0, 0), (0, 0)))
    stem.get_layer(large).set_weights([big + padded])
    stem.get_layer(small).set_weights([np.zeros_like(little)])


@pytest.mark.parametrize("training", [False, True])
def test_each_kernel_pair_of_the_stem_is_one_convolution(stem: keras.Model, training: bool) -> None:
    weights, images = stem.get_weights(), pixels(2, 32, 32, 3)
    in_pairs = call(stem, images, training)
    stem.set_weights(weights)
    merge(stem, "stem_fine_conv3x3", "stem_fine_conv5x5")
    merge(stem, "stem_coarse_conv7x7", "stem_coarse_conv11x11")

    merged = call(stem, images, training)
    stem.set_weights(weights)

    assert in_pairs.std() > 0.3
    np.testing.assert_allclose(merged, in_pairs, rtol=0, atol=2e-5)


# --- Standardisation is the first layer ---


@pytest.mark.parametrize(
    ("channels", "mean", "variance"),
    [
        (1, 120.0, 3600.0),
        (3, 120.0, 3600.0),
        (3, 120, 3600),
        (3, (120.0, 60.0, 90.0), (3600.0, 400.0, 900.0)),
        (3, [120.0, 60.0, 90.0], [3600.0, 400.0, 900.0]),
        (1, [120.0], [3600.0]),
        (3, [120.0], [3600.0]),
    ],
)
def test_mean_and_variance_standardize_inside_the_network(channels: int, mean: object, variance: object) -> None:
    raw, images = build_model("tiny", input_shape=(32, 32, channels)), pixels(2, 32, 32, channels)
    standardizing = build_model("tiny", input_shape=(32, 32, channels), mean=mean, variance=variance)
    standardizing.set_weights(raw.get_weights())

    outside = (images - np.asarray(mean, np.float32)) / np.sqrt(np.asarray(variance, np.float32))

    np.testing.assert_allclose(call(standardizing, images), call(raw, outside), rtol=0, atol=1e-5)


# --- What is refused ---


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ModelError, match="Did you mean 'improved_resnet34'"):
        build_model("improved_resnet43")


def test_a_name_like_no_other_lists_the_networks() -> None:
    with pytest.raises(ModelError) as raised:
        build_model("qqq")

    assert "'qqq'" in str(raised.value)
    assert all(name in str(raised.value) for name in TRAINABLE)
    assert "Did you mean" not in str(raised.value)


@pytest.mark.parametrize("shape", [(31, 224, 3), (224, 31, 1)])
def test_a_image_smaller_than_the_network_halves_it_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ModelError, match="at least 32 x 32"):
        build_model("resnet34", input_shape=shape)


def test_the_smallest_allowed_image_leaves_one_pixel(small: keras.Model) -> None:
    assert small.get_layer("stage4_block3_relu").output.shape == (None, 1, 1, 512)
