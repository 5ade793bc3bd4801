"""A run's best checkpoint as a SavedModel for TensorFlow Serving."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

import btkeras
from btkeras.data.decoder import Decoder
from btkeras.data.preprocess import fit, preprocess
from btkeras.errors import ModelError
from btkeras.evaluation.calibration import FILE as CALIBRATION
from btkeras.evaluation.calibration import load_calibration
from btkeras.evaluation.evaluate import load_best
from btkeras.evaluation.outliers import Outliers, load_outliers, squared_distance, with_features
from btkeras.files import atomic_folder, write_json
from btkeras.runs import Run
from btkeras.serving.exported import EXTRA, MANIFEST, OUTLIERS, latest_version

_TOLERANCE = 1e-5


def export(run: Run, out: Path, version: int | None = None) -> Path:
    """Writes ``out/VERSION/``, a SavedModel that needs neither Keras nor btkeras to run.

    Its signatures are ``serving_default`` (``image_bytes``, encoded PNG or JPEG) and ``serving_pixels``
    (``images``, uint8 ``[n, height, width, 1 or 3]``), and ``serving_prepared`` (``images``, uint8 ``[n, size, size,
    channels]`` that went through the preprocessing already); all give ``probabilities``, ``label`` and ``classes``,
    and ``outlier_score`` if the run has what it is computed from (``assets.extra/`` says what it means, and
    how the network is calibrated). Before the folder gets its name, the SavedModel is loaded and must agree with the
    checkpoint.

    Args:
        run: The run to export.
        out: The model's folder; its name is the model's name in TensorFlow Serving.
        version: A whole number above 0 that is not there yet; by default the next.

    Returns:
        The version's folder.

    Raises:
        ModelError: If the version exists, the Keras backend is not TensorFlow, or the two disagree.
    """
    if keras.backend.backend() != "tensorflow":
        raise ModelError(
            "Exporting a SavedModel needs Keras' TensorFlow backend",
            received=keras.backend.backend(),
            remedy="Run it again with KERAS_BACKEND=tensorflow; the checkpoint loads under any backend",
        )
    target = out / str(_free_version(out, version))
    model, classes, harmonise = load_best(run), run.classes(), run.config().data.harmonise
    calibration, outliers = load_calibration(run, model), load_outliers(run)
    with atomic_folder(target) as temporary:
        _write(_Served.of(model, classes, outliers), harmonise, temporary)
        write_json(temporary / MANIFEST, _manifest(run, model, classes))
        if calibration:
            write_json(temporary / EXTRA / CALIBRATION, calibration.to_json())
        if outliers:
            write_json(temporary / EXTRA / OUTLIERS, {"scores": outliers.reference.scores.tolist()})
        _check(model, harmonise, temporary)
    return target


def _free_version(out: Path, version: int | None) -> int:
    if version is None:
        latest = latest_version(out)
        return int(latest.name) + 1 if latest else 1
    if version < 1 or (out / str(version)).exists():
        raise ModelError(
            "A version must be a whole number above 0 that is not there yet",
            received=f"{version} in {out}",
            remedy="Leave --version away to get the next",
        )
    return version


class _Served(NamedTuple):
    """Attributes:
    network: Gives probabilities and features side by side.
    classes: Class names.
    outliers: Of ``Gaussian.parts``, as variables, which are stored once for all signatures; None without scores.
    """

    network: keras.Model
    classes: tuple[str, ...]
    outliers: dict[str, tf.Variable] | None

    @staticmethod
    def of(model: keras.Model, classes: tuple[str, ...], outliers: Outliers | None) -> _Served:
        parts = outliers.gaussian.parts() if outliers else {}
        variables = {name: tf.Variable(part, trainable=False) for name, part in parts.items()}
        return _Served(with_features(model), classes, variables or None)


def _write(served: _Served, harmonise: bool, folder: Path) -> None:
    size, channels = served.network.input_shape[1], served.network.input_shape[3]
    archive = keras.export.ExportArchive()
    # Without `archive.track(model)`: it stores every weight a second time (keras-team/keras#23553).
    archive.add_endpoint(
        "serving_default",
        _endpoint(served, lambda data: preprocess(data, size, channels, harmonise)),
        input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")],
    )
    archive.add_endpoint(
        "serving_pixels",
        _endpoint(served, lambda image: fit(image, size, channels, harmonise)),
        input_signature=[tf.TensorSpec([None, None, None, None], tf.uint8, name="images")],
    )
    archive.add_endpoint(
        "serving_prepared",
        lambda images: _answer(served, images),
        input_signature=[tf.TensorSpec([None, size, size, channels], tf.uint8, name="images")],
    )
    archive.write_out(str(folder), verbose=False)


def _endpoint(
    served: _Served, prepare: Callable[[tf.Tensor], tf.Tensor]
) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """The network behind what prepares one picture."""
    picture = tf.TensorSpec(served.network.input_shape[1:], tf.uint8)
    return lambda batch: _answer(served, tf.map_fn(prepare, batch, fn_output_signature=picture))


def _answer(served: _Served, images: tf.Tensor) -> dict[str, tf.Tensor]:
    """Every output has the batch first, so that TensorFlow Serving's row format can split it."""
    outputs = tf.cast(served.network(tf.cast(images, tf.float32), training=False), tf.float32)
    names = tf.constant(served.classes)
    probabilities, features = outputs[:, : len(served.classes)], outputs[:, len(served.classes) :]
    answer = {
        "probabilities": probabilities,
        "label": tf.gather(names, tf.argmax(probabilities, axis=-1)),
        "classes": tf.repeat(names[None], tf.shape(probabilities)[0], axis=0),
    }
    if served.outliers:
        answer["outlier_score"] = squared_distance(
            features, served.outliers, lambda values: tf.reduce_sum(tf.square(values), axis=-1)
        )
    return answer


def _manifest(run: Run, model: keras.Model, classes: tuple[str, ...]) -> dict[str, Any]:
    manifest = run.manifest()
    return {
        "model": model.name,
        "classes": list(classes),
        "image_size": model.input_shape[1],
        "channels": model.input_shape[3],
        "harmonise": run.config().data.harmonise,
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        "btkeras": btkeras.__version__,
        "run": str(run.path),
        "trained_with": manifest["versions"],
        "trained_on": manifest["images"],
    }


def _check(model: keras.Model, harmonise: bool, folder: Path) -> None:
    """Compares the written model with the checkpoint on noise, encoded as PNG, through each signature."""
    size, channels = model.input_shape[1], model.input_shape[3]
    noise = np.random.default_rng(0).integers(0, 256, (3, size, size, channels), np.uint8)
    decoder = Decoder(size, channels, harmonise)
    prepared = np.stack([decoder.array(image) for image in noise])
    expected = np.asarray(model(prepared.astype(np.float32), training=False))
    # Kept alive, since signatures hold their variables weakly.
    loaded = tf.saved_model.load(str(folder))
    answers = (
        loaded.signatures["serving_pixels"](images=tf.constant(noise)),
        loaded.signatures["serving_default"](image_bytes=tf.constant([_png(image) for image in noise])),
        loaded.signatures["serving_prepared"](images=tf.constant(prepared)),
    )
    for answer in answers:
        difference = float(np.abs(np.asarray(answer["probabilities"]) - expected).max())
        if not difference <= _TOLERANCE:
            raise ModelError(
                f"An exported model must agree with its checkpoint within {_TOLERANCE:g}",
                received=f"a difference of {difference:g}; nothing was published",
            )


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze()).save(buffer, "PNG")
    return buffer.getvalue()
