"""The SavedModel: its signatures, which need neither Keras nor btkeras to run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from btkeras.data.preprocess import fit, preprocess
from btkeras.serving.export_deploy import Deployed
from btkeras.serving.export_explain import Maps, graph_explainer
from btkeras.serving.exported import BYTES, EXPLAINED, PIXELS, PREPARED, PROBABILITIES

Answer = dict[str, tf.Tensor]


def write(deployed: Deployed, folder: Path) -> None:
    """Writes ``saved_model.pb`` and its variables.

    ``serving_default`` takes ``image_bytes`` (string ``[n]``, encoded PNG or JPEG), ``serving_pixels`` takes ``images``
    (uint8 ``[n, height, width, 1 or 3]``), ``serving_prepared`` takes ``images`` (uint8 ``[n, size, size, channels]``
    that went through the preprocessing). These give ``probabilities``, ``label``, ``classes`` and, if the run has what
    it is computed from, ``outlier_score``. ``serving_explained`` takes prepared ``images`` and ``class_index`` (int32
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
        _behind(deployed, lambda data: preprocess(data, size, channels, deployed.harmonise)),
        input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")],
    )
    archive.add_endpoint(
        PIXELS,
        _behind(deployed, lambda image: fit(image, size, channels, deployed.harmonise)),
        input_signature=[tf.TensorSpec([None, None, None, None], tf.uint8, name="images")],
    )
    archive.add_endpoint(PREPARED, lambda images: _answer(deployed, images), input_signature=[deployed.spec])
    maps = graph_explainer(deployed.fused)
    if maps:
        indices = tf.TensorSpec([None], tf.int32, name="class_index")
        archive.add_endpoint(EXPLAINED, _explained(deployed, maps), input_signature=[deployed.spec, indices])
    archive.write_out(str(folder), verbose=False)


def _behind(deployed: Deployed, prepare: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor], Answer]:
    """The network behind what prepares one picture."""
    picture = tf.TensorSpec(deployed.shape, tf.uint8)
    return lambda batch: _answer(deployed, tf.map_fn(prepare, batch, fn_output_signature=picture))


def _answer(deployed: Deployed, images: tf.Tensor) -> Answer:
    """Every output has the batch first, so that TensorFlow Serving's row format can split it."""
    answer = deployed.answer(images)
    names, probabilities = tf.constant(deployed.classes), answer[PROBABILITIES]
    return answer | {
        "label": tf.gather(names, tf.argmax(probabilities, axis=-1)),
        "classes": tf.repeat(names[None], tf.shape(probabilities)[0], axis=0),
    }


def _explained(deployed: Deployed, maps: Maps) -> Callable[[tf.Tensor, tf.Tensor], Answer]:
    def explained(images: tf.Tensor, class_index: tf.Tensor) -> Answer:
        drawn, classes = maps(images, class_index)
        return {"map": drawn, "label": tf.gather(tf.constant(deployed.classes), classes)}

    return explained
