"""Warm-up requests: what TensorFlow Serving asks a new version before it gets real requests.

The file is a TFRecord of at most 1,000 ``tensorflow.serving.PredictionLog`` messages
(https://www.tensorflow.org/tfx/serving/saved_model_warmup). The package that has their types, tensorflow-serving-api,
is large; of them only four fields are needed, which are encoded here by protocol buffers' wire format
(https://protobuf.dev/programming-guides/encoding)::

    PredictionLog   6 predict_log: PredictLog
    PredictLog      1 request: PredictRequest
    PredictRequest  1 model_spec: ModelSpec, 2 inputs: map of name (1) to TensorProto (2)
    ModelSpec       1 name: string, 3 signature_name: string
"""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from btkeras.files import atomic_file
from btkeras.serving.exported import BYTES

FILE = "tf_serving_warmup_requests"
# What a batching server sends: each size is optimised for on its first use.
BATCHES = (1, 2, 4, 8, 16, 32)
# Wire type 2, a length and as many bytes.
_LENGTH_DELIMITED = 2


def write_warmup(target: Path, name: str, picture: bytes) -> None:
    """Writes requests to ``serving_default``, one for each batch size.

    Args:
        target: ``assets.extra/tf_serving_warmup_requests``.
        name: Of the model.
        picture: An encoded picture.
    """
    with atomic_file(target) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
        for batch in BATCHES:
            writer.write(prediction_log(name, [picture] * batch))


def prediction_log(name: str, pictures: list[bytes]) -> bytes:
    """One ``PredictionLog``, of a request to ``serving_default`` of the model ``name``."""
    model_spec = _field(1, name.encode()) + _field(3, BYTES.encode())
    tensor = tf.make_tensor_proto(pictures, dtype=tf.string).SerializeToString()
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
