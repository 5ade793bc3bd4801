"""The SavedModel: its signatures, which need neither Keras nor btkeras to run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import keras
import tensorflow as tf

from btkeras.export.maps import Maps, graph_explainer
from btkeras.export.network import ExportNetwork
from btkeras.files import atomic_file
from btkeras.inference.model_folder import BYTES, EXPLAINED, PIXELS, PREPARED, PROBABILITIES
from btkeras.preprocessing.graph import preprocess, preprocess_pixels

WARMUP = "tf_serving_warmup_requests"
# Batch sizes of a batching server: each is optimised for on its first use.
BATCHES = (1, 2, 4, 8, 16, 32)
# Protocol Buffers' wire type of a length and as many bytes.
_LENGTH_DELIMITED = 2

Outputs = dict[str, tf.Tensor]


def write_warmup(target: Path, name: str, image: bytes) -> None:
    """Writes ``tf_serving_warmup_requests``: one to the model's ``serving_default`` for each batch size."""
    with atomic_file(target) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
        for batch in BATCHES:
            writer.write(prediction_log(name, [image] * batch))


def prediction_log(name: str, images: list[bytes]) -> bytes:
    """One ``PredictionLog``, of a request to ``serving_default`` of the model ``name``."""
    model_spec = _field(1, name.encode()) + _field(3, BYTES.encode())
    tensor = tf.make_tensor_proto(images, dtype=tf.string).SerializeToString()
    request = _field(1, model_spec) + _field(2, _field(1, b"image_bytes") + _field(2, tensor))
    return _field(6, _field(1, request))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the highest bit says that more follow."""
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def write(network: ExportNetwork, folder: Path) -> None:
    """Writes ``saved_model.pb`` and its variables.

    ``serving_default`` takes ``image_bytes`` (string ``[n]``, encoded PNG or JPEG), ``serving_pixels`` takes ``images``
    (uint8 ``[n, height, width, 1 or 3]``), ``serving_prepared`` takes preprocessed ``images`` (uint8
    ``[n, size, size, channels]``). These give ``probabilities``, ``label``, ``classes`` and, if the run has OOD scores,
    ``ood_score``. ``serving_explained`` takes preprocessed ``images`` and ``class_index`` (int32 ``[n]``, -1 for the
    most probable class) and gives ``map`` (float32 ``[n, size, size]`` in 0..1) and ``label``, the explained class.
    """
    archive = keras.export.ExportArchive()
    # Without `archive.track(model)`: it stores every weight a second time (keras-team/keras#23553).
    archive.add_endpoint(
        BYTES,
        _preprocessed(network, preprocess),
        input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")],
    )
    archive.add_endpoint(
        PIXELS,
        _preprocessed(network, preprocess_pixels),
        input_signature=[tf.TensorSpec([None, None, None, None], tf.uint8, name="images")],
    )
    archive.add_endpoint(PREPARED, lambda images: _outputs(network, images), input_signature=[network.spec])
    maps = graph_explainer(network.reparameterized)
    if maps:
        indices = tf.TensorSpec([None], tf.int32, name="class_index")
        archive.add_endpoint(EXPLAINED, _explained(network, maps), input_signature=[network.spec, indices])
    archive.write_out(str(folder), verbose=False)


def _preprocessed(network: ExportNetwork, preprocess_one: Callable[..., tf.Tensor]) -> Callable[..., Outputs]:
    size, _, channels = network.shape
    one = partial(preprocess_one, size=size, channels=channels, harmonized=network.checkpoint.harmonize)
    spec = tf.TensorSpec(network.shape, tf.uint8)
    return lambda batch: _outputs(network, tf.map_fn(one, batch, fn_output_signature=spec))


def _outputs(network: ExportNetwork, images: tf.Tensor) -> Outputs:
    """Every output has the batch first, so that TensorFlow Serving's row format can split it."""
    outputs = network.outputs(images)
    names, probabilities = tf.constant(network.checkpoint.classes), outputs[PROBABILITIES]
    return outputs | {
        "label": tf.gather(names, tf.argmax(probabilities, axis=-1)),
        "classes": tf.repeat(names[None], tf.shape(probabilities)[0], axis=0),
    }


def _explained(network: ExportNetwork, maps: Maps) -> Callable[[tf.Tensor, tf.Tensor], Outputs]:
    def explained(images: tf.Tensor, class_index: tf.Tensor) -> Outputs:
        drawn, classes = maps(images, class_index)
        return {"map": drawn, "label": tf.gather(tf.constant(network.checkpoint.classes), classes)}

    return explained
