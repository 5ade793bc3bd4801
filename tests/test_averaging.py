"""Networks and views averaged into one network, against the mean that NumPy takes of their outputs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import keras
import numpy as np
import pytest
import tensorflow as tf

from btkeras.errors import ModelError
from btkeras.explain.cam import explain
from btkeras.explain.scores import reinitialized
from btkeras.export.network import ExportNetwork
from btkeras.export.single_file import write_onnx
from btkeras.models import build_model, count_macs
from btkeras.models.averaging import average, members
from btkeras.models.head import (
    features_network,
    logits_network,
    temperature_of,
    with_features,
    with_temperature,
)
from btkeras.models.keras_file import load_network, save_network
from btkeras.models.reparameterize import reparameterize

from .test_reparameterize import call, network, pixels

# Logarithm, temperature and softmax round in float32.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def two() -> list[keras.Model]:
    return [network("improved_resnet34", temperature=1.7), network("resnet34")]


def resized(images: np.ndarray, size: int) -> np.ndarray:
    """Square images by linear interpolation between pixels' centres."""
    side = images.shape[1]
    places = np.clip((np.arange(size) + 0.5) * side / size - 0.5, 0, side - 1)
    weights = np.maximum(1 - np.abs(places[:, None] - np.arange(side)), 0)
    return np.einsum("pr,nrcd,qc->npqd", weights, images, weights)


def corner(images: np.ndarray, top: int, left: int, margin: int) -> np.ndarray:
    """One corner, ``margin`` pixels smaller, enlarged again."""
    side = images.shape[1]
    return resized(images[:, top : top + side - margin, left : left + side - margin], side)


def smaller(images: np.ndarray, margin: int) -> np.ndarray:
    """Images with black margins, as large as before."""
    return resized(np.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0))), images.shape[1])


def views_of(images: np.ndarray, *names: str) -> list[np.ndarray]:
    """What ``averaging.VIEWS`` make of images, by NumPy."""
    seen = [images]
    if "flip" in names:
        seen = [view for one in seen for view in (one, one[:, :, ::-1])]
    if "crops" in names:
        corners = [(top, left) for top in (0, 4) for left in (0, 4)]
        seen = [view for one in seen for view in (one, *(corner(one, *place, 4) for place in corners))]
    if "scales" in names:
        seen = [view for one in seen for view in (one, smaller(one, 2), smaller(one, 3))]
    return seen


def test_probabilities_are_the_mean_of_the_networks() -> None:
    networks, images = two(), pixels()
    expected = np.mean([call(one, images) for one in networks], axis=0)
    np.testing.assert_allclose(call(average(networks), images), expected, **CLOSE)


@pytest.mark.parametrize("names", [("flip",), ("crops",), ("scales",), ("flip", "crops")])
def test_probabilities_are_the_mean_over_views(names: tuple[str, ...]) -> None:
    one, images = network("resnet34_se"), pixels()
    found = call(average([one], names), images)
    seen = views_of(images, *names)
    assert len(seen) == {"flip": 2, "crops": 5, "scales": 3, "flip crops": 10}[" ".join(names)]
    np.testing.assert_allclose(found, np.mean([call(one, view) for view in seen], axis=0), rtol=1e-4, atol=1e-5)
    assert np.abs(found - call(one, images)).max() > 1e-4, "views that change nothing test nothing"


def test_features_are_side_by_side_and_each_the_mean_over_views() -> None:
    networks, images = two(), pixels()
    found = call(features_network(average(networks, ["flip"])), images)
    each = [
        np.mean([call(features_network(one), view) for view in views_of(images, "flip")], axis=0) for one in networks
    ]
    np.testing.assert_allclose(found, np.concatenate(each, axis=1), rtol=1e-4, atol=1e-4)
    both = call(with_features(average(networks, ["flip"])), images)
    assert both.shape == (3, 4 + 1024)


def test_an_average_has_a_temperature_of_its_own() -> None:
    whole, images = average(two()), pixels()
    assert temperature_of(whole) == 1
    warmer = with_temperature(with_temperature(whole, 3.0), 2.0)
    assert temperature_of(warmer) == pytest.approx(2)
    probabilities = call(whole, images)
    expected = np.sqrt(probabilities)
    np.testing.assert_allclose(call(warmer, images), expected / expected.sum(axis=1, keepdims=True), **CLOSE)
    np.testing.assert_allclose(call(logits_network(whole), images), np.log(probabilities), rtol=1e-4, atol=1e-4)


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    whole, images = with_temperature(average(two(), ["flip", "crops"], name="both"), 1.3), pixels()
    save_network(whole, tmp_path / "whole.keras")
    loaded = load_network(tmp_path / "whole.keras")
    np.testing.assert_array_equal(call(loaded, images), call(whole, images))
    assert (loaded.name, temperature_of(loaded), len(members(loaded))) == ("both", pytest.approx(1.3), 2)


def test_it_is_reparameterized_network_by_network() -> None:
    whole, images = with_temperature(average(two(), ["flip"]), 1.3), pixels()
    cheaper = reparameterize(whole)
    np.testing.assert_allclose(call(cheaper, images), call(whole, images), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(
        call(features_network(cheaper), images), call(features_network(whole), images), rtol=1e-3, atol=1e-3
    )
    kinds = [type(layer).__name__ for member in members(cheaper) for layer in member.layers]
    assert "BatchNormalization" not in kinds and "Conv2D" in kinds


def test_multiply_accumulates_count_each_network_for_each_view() -> None:
    networks = two()
    single = sum(count_macs(one) for one in networks)
    assert [count_macs(average(networks, views)) for views in ((), ("flip",), ("flip", "crops"))] == [
        single,
        2 * single,
        10 * single,
    ]


def test_maps_are_the_mean_of_the_networks_maps() -> None:
    networks, images, classes = two(), pixels(), np.array([0, 1, 2])
    mean = np.mean([explain(one, images, classes) for one in networks], axis=0)
    expected = mean / mean.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(explain(average(networks, ["flip"]), images, classes), expected, atol=1e-4)


def test_random_weights_are_drawn_in_each_network() -> None:
    whole, images = average(two()), pixels()
    other, again = reinitialized(whole), reinitialized(whole)
    np.testing.assert_array_equal(call(other, images), call(again, images))
    assert np.abs(call(other, images) - call(whole, images)).max() > 1e-3


def test_what_cannot_be_averaged_is_an_error() -> None:
    one, other = network("resnet34"), build_model("resnet34", input_shape=(32, 32, 1), classes=2)
    for networks, views, message in (
        ([one], (), "two networks, or views of one"),
        ([one], ("zoom",), "A view must be one of flip, crops, scales"),
        ([one], ("flip", "flip"), "must differ"),
        ([one, other], (), "as many classes"),
        ([one, average([one], ["flip"])], (), "single networks"),
    ):
        with pytest.raises(ModelError, match=message):
            average(networks, views)


@pytest.mark.parametrize("size", [33, 49, 115])
@pytest.mark.parametrize("view", ["crops", "scales"])
def test_views_of_any_size_become_onnx(view: str, size: int, tmp_path: Path) -> None:
    """tf2onnx writes how many times larger an image gets, which ONNX Runtime takes for a pixel less at these sizes."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    tiny = build_model("tiny", input_shape=(size, size, 1), classes=3)
    whole = reparameterize(average([tiny], [view]))
    spec = tf.TensorSpec([None, size, size, 1], tf.uint8, name="images")
    function = tf.function(lambda images: {"probabilities": whole(tf.cast(images, tf.float32))}, input_signature=[spec])
    write_onnx(
        cast(ExportNetwork, SimpleNamespace(function=lambda: function, spec=spec)), tmp_path / "m.onnx", None, None
    )
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 1), np.uint8)
    (found,) = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {"images": images})
    np.testing.assert_allclose(found, call(whole, images.astype(np.float32)), atol=1e-5)
