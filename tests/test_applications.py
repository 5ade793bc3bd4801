"""The networks as functions of ``keras.applications``' arguments, and the pretrained weights."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from btkeras import models
from btkeras.errors import ModelError
from btkeras.inference.backends import load_backend
from btkeras.models import pretrained
from tests.test_models import pixels

MODEL = pretrained.FILES[1].parent
needs_weights = pytest.mark.skipif(not pretrained.FILES[1].is_file(), reason="this tree has no pretrained weights")


@pytest.fixture(scope="module")
def trained() -> keras.Model:
    """The pretrained network; read only."""
    return models.ImprovedResNet34(weights="pretrained")


def test_without_top_it_ends_in_the_feature_map_of_any_size() -> None:
    base = models.ResNet34SE(include_top=False)
    assert (base.input_shape, base.output_shape) == ((None, None, None, 3), (None, None, None, 512))


def test_pooled_it_ends_in_the_mean_or_the_maximum_of_the_feature_map() -> None:
    for pooling, pool in (("avg", np.mean), ("max", np.max)):
        pooled = models.ResNet34(include_top=False, pooling=pooling, input_shape=(40, 70, 1))
        both = keras.Model(pooled.input, [pooled.layers[-1].input, pooled.output])
        features, vector = map(np.asarray, both(pixels(1, 40, 70, 1)))
        assert features.shape == (1, 2, 3, 512)
        np.testing.assert_allclose(vector, pool(features, axis=(1, 2)), rtol=1e-4, atol=1e-5)


def test_it_continues_a_tensor_and_gives_logits() -> None:
    images = keras.Input((64, 64, 1))
    scaled = keras.layers.Rescaling(1 / 255)(images)
    model = models.ResNet34(input_tensor=scaled, classes=3, classifier_activation=None, name="mine")
    assert (model.name, model.output_shape) == ("mine", (None, 3))
    assert model.layers[1].name.startswith("rescaling")
    assert model.layers[-1].activation is keras.activations.linear


def test_weights_of_a_file_are_loaded(tmp_path: Path) -> None:
    first = models.ResNet34(input_shape=(32, 32, 1))
    first.save_weights(tmp_path / "own.weights.h5")
    second = models.ResNet34(input_shape=(32, 32, 1), weights=tmp_path / "own.weights.h5")
    images = pixels(2, 32, 32, 1)
    np.testing.assert_array_equal(first(images), second(images))
    with pytest.raises(ModelError, match="must be of the same network, input channels and classes"):
        models.ResNet34SE(input_shape=(32, 32, 1), weights=tmp_path / "own.weights.h5")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": "imagenet"}, r"must be None, 'pretrained' or a file \*.weights.h5. Received: 'imagenet'"),
        ({"weights": "absent.weights.h5"}, "must be None, 'pretrained' or a file"),
        ({"input_shape": (31, 64, 1)}, "at least 32 x 32 pixels"),
        ({"input_shape": 64}, r"input_shape must be height, width .* and channels. Received: 64"),
        ({"input_shape": (32, 32)}, "input_shape must be height, width"),
        ({"input_shape": (32, 32, 1), "classes": 0}, "classes must be a whole number, at least 1. Received: 0"),
        ({"include_top": False, "pooling": "mean"}, "pooling must be None or one of avg, max. Received: 'mean'"),
    ],
)
def test_what_cannot_be_built_is_said(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        models.ImprovedResNet34(**settings)


@needs_weights
def test_pretrained_weights_are_of_one_network_only() -> None:
    with pytest.raises(ModelError, match="weights are of improved_resnet34"):
        models.ResNet34SE(weights="pretrained")
    with pytest.raises(ModelError, match=r"for 1 or 3 channels\. Received: 5"):
        models.ImprovedResNet34(weights="pretrained", input_shape=(64, 64, 5))


def test_an_installation_without_them_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pretrained, "FILES", (tmp_path / "absent.h5",))
    with pytest.raises(ModelError, match="must be installed with btkeras"):
        models.ImprovedResNet34(weights="pretrained")


@needs_weights
def test_a_damaged_file_is_one_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cut = tmp_path / "cut.h5"
    cut.write_bytes(pretrained.FILES[1].read_bytes()[:1_000_000])
    monkeypatch.setattr(pretrained, "FILES", (cut,))
    with pytest.raises(ModelError, match=r"must be whole. Received: .*cut.h5"):
        models.ImprovedResNet34(weights="pretrained")


@needs_weights
def test_pretrained_it_predicts_as_the_exported_model(trained: keras.Model) -> None:
    """Within what 9 bits a weight cost: 0.012 at most on the 1,001 test slices of its run."""
    exported = load_backend(MODEL)
    assert pretrained.pretrained_weights().classes == exported.classes
    shape = (exported.size, exported.size, exported.channels)
    images = np.random.default_rng(3).integers(0, 256, (4, *shape)).astype(np.uint8)
    smooth = np.stack([np.indices(shape[:2]).sum(axis=0) % 97 for _ in range(4)])[..., None].astype(np.uint8)
    assert trained.input_shape == (None, *shape)
    for batch in (images, smooth):
        expected = exported.predict(batch).probabilities
        np.testing.assert_allclose(trained(batch.astype(np.float32)), expected, atol=0.02)


@needs_weights
def test_with_other_classes_the_head_alone_is_random(trained: keras.Model) -> None:
    two = models.ImprovedResNet34(weights="pretrained", input_shape=(64, 64, 1), classes=2)
    assert two.output_shape == (None, 2) and two.trainable and all(layer.trainable for layer in two.layers)
    for ours, theirs in zip(two.get_weights()[:-2], trained.get_weights()[:-2], strict=True):
        np.testing.assert_array_equal(ours, theirs)


@needs_weights
def test_three_equal_channels_give_the_features_of_one(trained: keras.Model) -> None:
    grey = pixels(1, *trained.input_shape[1:])
    base = models.ImprovedResNet34(False, "pretrained", input_shape=(*grey.shape[1:3], 3), pooling="avg")
    features = keras.Model(trained.input, trained.get_layer("features").output)
    np.testing.assert_allclose(base(grey.repeat(3, axis=-1)), features(grey), rtol=1e-3, atol=1e-3)
