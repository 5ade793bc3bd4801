"""Multiply-accumulates, by hand and against torchvision's figure. The other networks': ``test_comparison.py``."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from btkeras.errors import ModelError
from btkeras.models import build_model, count_macs


def test_each_kind_of_layer_is_counted_as_by_hand() -> None:
    images = keras.Input((20, 30, 8))
    x = layers.Normalization(mean=0.0, variance=1.0)(images)
    x = layers.Conv2D(16, (3, 5), strides=2, padding="same")(x)
    x = layers.Conv2D(16, 3, groups=4, padding="valid")(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same")(layers.ReLU()(x))
    model = keras.Model(images, layers.Dense(7)(layers.Flatten()(x)))
    plain = 10 * 15 * (3 * 5 * 8 * 16)
    grouped = 8 * 13 * (3 * 3 * 4 * 16)
    depthwise = 8 * 13 * (3 * 3 * 16 * 2)
    assert count_macs(model) == plain + grouped + depthwise + 8 * 13 * 32 * 7


def test_resnet34_has_those_of_torchvision() -> None:
    model = build_model("resnet34", input_shape=(224, 224, 3), classes=1000)
    # "GFLOPS 3.66" in torchvision's documentation.
    assert count_macs(model) / 1e9 == pytest.approx(3.66, abs=0.005)


def test_the_size_of_the_batch_and_of_the_classes_barely_count() -> None:
    few, many = (count_macs(build_model("tiny", input_shape=(32, 32, 1), classes=n)) for n in (4, 9))
    assert many - few == 16 * 5


def test_a_layer_of_unknown_cost_is_refused() -> None:
    images = keras.Input((8, 8, 2))
    model = keras.Model(images, layers.SeparableConv2D(4, 3, name="separable")(images))
    with pytest.raises(ModelError, match="separable, a SeparableConv2D"):
        count_macs(model)
