"""The Keras layer gives the pixels of ``Preprocessor``, whose own are checked elsewhere, wherever it stands."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from btkeras.errors import ModelError
from btkeras.models import pretrained
from btkeras.preprocessing import SlicePreprocessing
from btkeras.preprocessing.preprocessor import Preprocessor
from tests.images import head, scene

Pixels = NDArray[np.uint8]


def slices(channels: int) -> list[Pixels]:
    """Slices of two sizes, one of them with a head in black."""
    grey = [np.pad(head(1), ((9, 20), (4, 4)))[..., None], scene(60, 90, 2)[..., :1]]
    return grey if channels == 1 else [np.concatenate([image, image // 2, 255 - image], axis=-1) for image in grey]


@pytest.mark.parametrize(
    ("stored", "channels", "harmonize"), [(3, 1, False), (1, 3, False), (3, 3, False), (1, 1, True), (3, 3, True)]
)
def test_in_tf_data_and_in_a_model_it_gives_the_bytes_of_predict(stored: int, channels: int, harmonize: bool) -> None:
    layer, images = SlicePreprocessing(40, channels, harmonize), slices(stored)
    expected = [Preprocessor(40, channels, harmonize).array(image) for image in images]
    signature = tf.TensorSpec((None, None, stored), tf.uint8)
    mapped = tf.data.Dataset.from_generator(lambda: iter(images), output_signature=signature).map(layer)
    np.testing.assert_array_equal(next(iter(mapped.batch(2))), np.stack(expected))
    inputs = keras.Input((None, None, stored))
    model = keras.Model(inputs, layer(inputs))
    assert model.output_shape == (None, 40, 40, channels)
    batch = np.stack([images[0], 255 - images[0]])
    wanted = [Preprocessor(40, channels, harmonize).array(image) for image in batch]
    np.testing.assert_array_equal(model(batch.astype(np.float32)), np.stack(wanted))


def test_it_scales_and_stays_float32_under_another_policy() -> None:
    image = scene(30, 40, 0)[..., :1]
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        scaled = SlicePreprocessing(32, scale=1 / 255)(image.astype(np.float32) + 0.4)
    finally:
        keras.config.set_dtype_policy("float32")
    assert scaled.dtype == "float32"
    np.testing.assert_allclose(scaled, Preprocessor(32, 1).array(image) / 255, rtol=1e-6)


def test_its_config_makes_the_same_layer() -> None:
    layer = SlicePreprocessing(48, 3, harmonize=True, scale=0.5, name="mine")
    again = SlicePreprocessing.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert (again.image_size, again.channels, again.harmonize, again.scale, again.name) == (48, 3, True, 0.5, "mine")


@pytest.mark.skipif(not pretrained.FILES[1].is_file(), reason="this tree has no pretrained weights")
def test_the_preset_is_what_the_pretrained_weights_need() -> None:
    known = pretrained.pretrained_weights()
    layer = SlicePreprocessing.from_preset("pretrained", name="mine")
    assert (layer.image_size, layer.channels, layer.harmonize, layer.name) == (
        known.image_size,
        known.channels,
        known.harmonize,
        "mine",
    )


@pytest.mark.parametrize("settings", [{"image_size": 0}, {"image_size": "64"}, {"image_size": 64.5}, {"channels": 2}])
def test_what_it_cannot_make_is_an_error(settings: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="1 or 3 channels"):
        SlicePreprocessing(**settings)
    with pytest.raises(ModelError, match="A preset must be 'pretrained'"):
        SlicePreprocessing.from_preset("imagenet")


@pytest.mark.parametrize("dtype", ["uint16", "int32", "bool"])
def test_slices_of_another_dtype_are_refused_not_clipped(dtype: str) -> None:
    images = np.ones((2, 40, 40, 1), dtype)
    with pytest.raises(ModelError, match=f"needs slices of uint8, or of floating-point.*Received: {dtype}"):
        SlicePreprocessing(32)(images)
    with pytest.raises(ModelError, match="needs slices of uint8"):
        SlicePreprocessing(32)(keras.Input((None, None, 1), dtype=dtype))


def test_under_another_backend_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ModelError, match=r"needs Keras' TensorFlow backend. Received: jax. btkeras.datasets.load"):
        SlicePreprocessing(32)
