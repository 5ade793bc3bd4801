"""The SavedModel: its signatures, which need neither Keras nor btkeras to run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from btkeras.export.network import ExportNetwork, Maps, graph_explainer
from btkeras.files import atomic_file
from btkeras.inference.model_folder import BYTES, EXPLAINED, PIXELS, PREPARED, PROBABILITIES
from btkeras.preprocessing.graph import preprocess, preprocess_pixels

FILE = "tf_serving_warmup_requests"
# What a batching server sends: each size is optimised for on its first use.
BATCHES = (1, 2, 4, 8, 16, 32)
# Wire type 2, a length and as many bytes.
_LENGTH_DELIMITED = 2


def write_warmup(target: Path, name: str, image: bytes) -> None:
    """Writes requests to ``serving_default``, one for each batch size.

    Args:
        target: ``assets.extra/tf_serving_warmup_requests``.
        name: Of the model.
        image: An encoded image.
    """
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


Answer = dict[str, tf.Tensor]


def write(deployed: ExportNetwork, folder: Path) -> None:
    """Writes ``saved_model.pb`` and its variables.

    ``serving_default`` takes ``image_bytes`` (string ``[n]``, encoded PNG or JPEG), ``serving_pixels`` takes ``images``
    (uint8 ``[n, height, width, 1 or 3]``), ``serving_prepared`` takes ``images`` (uint8 ``[n, size, size, channels]``
    that went through the preprocessing). These give ``probabilities``, ``label``, ``classes`` and, if the run has what
    it is computed from, ``ood_score``. ``serving_explained`` takes prepared ``images`` and ``class_index`` (int32
    ``[n]``, -1 for the most probable class) and gives ``map`` (float32 ``[n, size, size]`` in 0..1) and ``label``, the
    class that it speaks for.

    Args:
        deployed: What to write.
        folder: Of the version.
    """
    size, _, channels = deployed.shape
    archive = keras.export.ExportArchive()
    # Without `archive.track(model)`: it stores every weight a second time (keras-team/keras#23553).
    archive.add_endpoint(
        BYTES,
        _behind(deployed, lambda data: preprocess(data, size, channels, deployed.harmonize)),
        input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")],
    )
    archive.add_endpoint(
        PIXELS,
        _behind(deployed, lambda image: preprocess_pixels(image, size, channels, deployed.harmonize)),
        input_signature=[tf.TensorSpec([None, None, None, None], tf.uint8, name="images")],
    )
    archive.add_endpoint(PREPARED, lambda images: _answer(deployed, images), input_signature=[deployed.spec])
    maps = graph_explainer(deployed.fused)
    if maps:
        indices = tf.TensorSpec([None], tf.int32, name="class_index")
        archive.add_endpoint(EXPLAINED, _explained(deployed, maps), input_signature=[deployed.spec, indices])
    archive.write_out(str(folder), verbose=False)


def _behind(deployed: ExportNetwork, prepare: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor], Answer]:
    """The network behind what prepares one image."""
    image = tf.TensorSpec(deployed.shape, tf.uint8)
    return lambda batch: _answer(deployed, tf.map_fn(prepare, batch, fn_output_signature=image))


def _answer(deployed: ExportNetwork, images: tf.Tensor) -> Answer:
    """Every output has the batch first, so that TensorFlow Serving's row format can split it."""
    answer = deployed.answer(images)
    names, probabilities = tf.constant(deployed.classes), answer[PROBABILITIES]
    return answer | {
        "label": tf.gather(names, tf.argmax(probabilities, axis=-1)),
        "classes": tf.repeat(names[None], tf.shape(probabilities)[0], axis=0),
    }


def _explained(deployed: ExportNetwork, maps: Maps) -> Callable[[tf.Tensor, tf.Tensor], Answer]:
    def explained(images: tf.Tensor, class_index: tf.Tensor) -> Answer:
        drawn, classes = maps(images, class_index)
        return {"map": drawn, "label": tf.gather(tf.constant(deployed.classes), classes)}

    return explained
