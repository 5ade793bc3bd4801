"""One network, written in every form and format that an engine of the comparison reads."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.inference.constants import IMAGES, MEAN, VARIANCE
from btkeras.inference.backends.int8 import with_rows_as_channels
from btkeras.models import build_model, count_macs
from btkeras.models.reparameterize import reparameterize

_OPSET = 18


def prepare(network: str, size: int, folder: str) -> tuple[None, dict[str, Any]]:
    """Writes, for each of the forms trained, fused and grey, ``FORM.keras``, ``.onnx``, ``.tflite`` and a SavedModel.

    Besides ``FORM_int8.onnx`` and ``.tflite`` of the re-parameterised forms, ``weights.npz`` of the trained one by
    their paths, ``images.npy``, uint8 ``[n, size, size, 1]``, and ``probabilities.npy``, the trained one's.

    Returns:
        No call, and each form's multiply-accumulates: an entry as ``benchmarks.worker`` takes it.
    """
    out = Path(folder)
    forms = networks(network, size)
    np.savez(out / "weights.npz", **{variable.path: np.asarray(variable) for variable in forms["trained"].variables})
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, size, size, 1), np.uint8)
    probabilities = np.asarray(forms["trained"](np.repeat(images, 3, axis=-1).astype(np.float32), training=False))
    assert 0.01 < probabilities.max() < 0.99, "of such probabilities, equal ones mean nothing"
    np.save(out / "images.npy", images)
    np.save(out / "probabilities.npy", probabilities)
    for name, form in forms.items():
        form.save(out / f"{name}.keras")
        _write(form, out, name, images)
    return None, {name: count_macs(form) for name, form in forms.items()}


def networks(name: str, size: int) -> Mapping[str, keras.Model]:
    """A network of random weights, with three channels, and its deploy forms.

    Its normalisations know the statistics of some noise, as after a training: without, a softmax says 0 or 1, and forms
    that compute something else would agree.
    """
    keras.utils.set_random_seed(0)
    model = build_model(name, input_shape=(size, size, 3), mean=MEAN, variance=VARIANCE)
    normalizations = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in normalizations]
    for layer in normalizations:
        layer.momentum = 0.0
    model(np.random.default_rng(1).integers(0, 256, (8, size, size, 3)).astype(np.float32), training=True)
    for layer, momentum in zip(normalizations, momenta, strict=True):
        layer.momentum = momentum
    return {"trained": model, "fused": reparameterize(model), "grey": reparameterize(model, grey=True)}


def _write(form: keras.Model, out: Path, name: str, samples: np.ndarray) -> None:
    spec = tf.TensorSpec([None, *form.input_shape[1:]], tf.uint8, name="images")
    function = tf.function(
        lambda images: {"probabilities": form(tf.cast(images, tf.float32), training=False)}, input_signature=[spec]
    )
    module = tf.Module()
    module.weights, module.predict = [variable.value for variable in form.variables], function
    saved = str(out / f"{name}_saved_model")
    tf.saved_model.save(module, saved, signatures={"predict": function})
    whole = {"": [], "_int8": [tf.lite.Optimize.DEFAULT]} if name != "trained" else {"": []}
    for ending, optimisations in whole.items():
        converter = tf.lite.TFLiteConverter.from_saved_model(saved)
        converter.optimizations = optimisations
        content = converter.convert()
        # As `btkeras export` does it.
        (out / f"{name}{ending}.tflite").write_bytes(with_rows_as_channels(content) if ending else content)
    _write_onnx(function, spec, out / f"{name}.onnx")
    if name != "trained":
        _write_int8(out / f"{name}.onnx", out / f"{name}_int8.onnx", np.repeat(samples, spec.shape[-1], axis=-1))


def _write_onnx(function: Any, spec: tf.TensorSpec, file: Path) -> None:
    import onnx
    import tf2onnx

    proto, _ = tf2onnx.convert.from_function(function, input_signature=[spec], opset=_OPSET)
    # Keras' standardisation holds its statistics as plain tensors, which tf2onnx takes for inputs.
    captured = function.get_concrete_function().graph.captures
    constants = {inner.name: outer for outer, inner in captured if outer.dtype != tf.resource}
    for needed in [value for value in proto.graph.input if value.name in constants]:
        proto.graph.input.remove(needed)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(constants[needed.name].numpy(), needed.name))
    onnx.save(proto, str(file))


def _write_int8(exact: Path, file: Path, images: np.ndarray) -> None:
    """As ``btkeras export --quantize int8`` does it."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._parts = iter(np.split(images[:16], 4))

        def get_next(self) -> dict[str, np.ndarray] | None:
            part = next(self._parts, None)
            return None if part is None else {"images": part}

    with tempfile.TemporaryDirectory() as folder:
        ready = str(Path(folder, "ready.onnx"))
        quant_pre_process(str(exact), ready, skip_symbolic_shape=True)
        quantization.quantize_static(
            ready,
            str(file),
            Reader(),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=["Conv", "Gemm", "MatMul", "Add"],
        )
