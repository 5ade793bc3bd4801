"""The formats of one file, ONNX and LiteRT (TensorFlow Lite): written, quantized, and with metadata embedded.

Both hold the SavedModel's signature ``serving_prepared``, without class names: from preprocessed images, uint8
``[n, size, size, channels]``, to ``probabilities`` and ``ood_score``.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from btkeras.export.borrowed_weights import litert_maps, onnx_maps
from btkeras.export.maps import map_function
from btkeras.export.network import ExportNetwork
from btkeras.inference.backends.int8 import with_rows_as_channels
from btkeras.inference.model_folder import OOD_SCORE, PREPARED, PROBABILITIES, require_engine

# Int8 weights, whose activations are quantized as they come (dynamic range). On 729 real slices and the improved
# network at 112 pixels: probabilities 0.0003 from float32 on average, where integers throughout are 0.002 from it; both
# a quarter of the size and twice as fast, and only this needs no images to calibrate on.
_LITERT: Mapping[str | None, Mapping[str, Any]] = {
    None: {},
    "int8": {"optimizations": [tf.lite.Optimize.DEFAULT]},
    "float16": {
        "optimizations": [tf.lite.Optimize.DEFAULT],
        "target_spec": tf.lite.TargetSpec(supported_types=[tf.float16]),
    },
}
# Has LayerNormalization and everything else that the networks need; ONNX Runtime reads it since 1.14 (2023).
_OPSET = 18
# Images at a time while ranges of activations are collected.
_BATCH = 8
# ONNX Runtime's log levels, whose default is the second.
_ERROR, _WARNING = 3, 2
_QUANTIZED = ("Conv", "Gemm", "MatMul", "Add")


def write_litert(network: ExportNetwork, file: Path, quantize: str | None, slices: NDArray[np.uint8] | None) -> None:
    """Writes a LiteRT file, with weights in ``int8`` or ``float16`` if wanted; needs no slices."""
    module = tf.Module()
    module.network_variables = [variable.value for variable in network.network.variables]
    module.ood_variables = network.ood_variables
    module.outputs = network.function()
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={PREPARED: module.outputs})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[PREPARED])
        for name, value in _LITERT[quantize].items():
            setattr(converter, name, value)
        content = converter.convert()
        file.write_bytes(with_rows_as_channels(content) if quantize == "int8" else content)


def maps_for_litert(network: ExportNetwork, file: Path) -> str | None:
    """The text of ``MAPS`` for a file that ``write_litert`` wrote; None if the network cannot be explained.

    Raises:
        NotImplementedError, LookupError, ConverterError: If the gradients cannot be written in this format.
    """
    function: Any = map_function(network)
    if function is None:
        return None
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    return litert_maps(converter.convert(), file)


def embed_in_litert(file: Path, texts: Mapping[str, str]) -> None:
    """Appends texts by their names to a file that ``write_litert`` wrote, once.

    They are a zip archive, as TensorFlow Lite's metadata keep associated files
    (https://ai.google.dev/edge/litert/conversion/tensorflow/metadata), so that any unzip shows them.
    """
    with zipfile.ZipFile(file, "a") as archive:
        for name, text in texts.items():
            archive.writestr(name, text)


def write_onnx(network: ExportNetwork, file: Path, quantize: str | None, slices: NDArray[np.uint8] | None) -> None:
    """Writes an ONNX file with the input ``images``.

    If it is quantized, weights and activations have 8 bits (QDQ, weights with a scale per channel), and the
    activations' ranges come from ``slices``, preprocessed training images.
    """
    proto = _to_onnx(network.function(), [network.spec])
    # tf2onnx numbers the dimensions that it does not know.
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    if quantize is None or slices is None:
        require_engine("onnx", "onnx").save(proto, str(file))
        return
    with _quiet():
        _write_int8(proto, file, slices)


def maps_for_onnx(network: ExportNetwork, file: Path) -> str | None:
    """As ``maps_for_litert``, for a file that ``write_onnx`` wrote."""
    function: Any = map_function(network)
    if function is None:
        return None
    proto, known = _to_onnx(function, function.input_signature), require_engine("onnx.defs", "onnx").has
    # tf2onnx passes on what it does not know.
    if unknown := sorted({node.op_type for node in proto.graph.node if not known(node.op_type, node.domain)}):
        raise NotImplementedError(f"operations {', '.join(unknown)}")
    return onnx_maps(proto, file)


def embed_in_onnx(file: Path, texts: Mapping[str, str]) -> None:
    """Adds texts by their names to an ONNX file's ``metadata_props``."""
    proto = require_engine("onnx", "onnx").ModelProto()
    for name, text in texts.items():
        proto.metadata_props.add(key=name, value=text)
    # Messages one behind the other are one message; what `MAPS` says of places in the file stays true.
    with file.open("ab") as out:
        out.write(proto.SerializeToString())


def _to_onnx(function: Any, signature: Sequence[tf.TensorSpec]) -> Any:
    tf2onnx, onnx = require_engine("tf2onnx", "onnx"), require_engine("onnx", "onnx")
    with _quiet():
        proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=_OPSET)
    # Keras' standardisation holds its statistics as plain tensors, which tf2onnx takes for inputs.
    captured = function.get_concrete_function(*signature).graph.captures
    constants = {inner.name: outer for outer, inner in captured if outer.dtype != tf.resource}
    for constant in [value for value in proto.graph.input if value.name in constants]:
        proto.graph.input.remove(constant)
        values = constants[constant.name].numpy()
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, constant.name))
    _round_scales_up(proto, onnx)
    return proto


def _round_scales_up(proto: Any, onnx: Any) -> None:
    """Sizes that images are resized to come out as they were meant.

    tf2onnx 1.17 writes them as scales in float32, of which ONNX takes the whole pixels: of 43 pixels that become 49 it
    would make 48, and of one in ten other sizes a pixel less.
    """
    scales = {node.input[2] for node in proto.graph.node if node.op_type == "Resize" and len(node.input) > 2}
    for constant in proto.graph.initializer:
        if constant.name in scales:
            values = onnx.numpy_helper.to_array(constant)
            larger = np.where(values == 1, values, np.nextafter(values, np.float32(np.inf)))
            constant.CopyFrom(onnx.numpy_helper.from_array(larger, constant.name))


def _write_int8(proto: Any, file: Path, slices: NDArray[np.uint8]) -> None:
    quantization, onnx = require_engine("onnxruntime.quantization", "onnx"), require_engine("onnx", "onnx")
    batches = iter([slices[start : start + _BATCH] for start in range(0, len(slices), _BATCH)])

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc,name-defined]
        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            batch = next(batches, None)
            return None if batch is None else {"images": batch}

    with tempfile.TemporaryDirectory() as folder:
        exact, ready = Path(folder, "exact.onnx"), Path(folder, "ready.onnx")
        onnx.save(proto, str(exact))
        # Folds batch normalisation into convolutions, which renames nodes.
        require_engine("onnxruntime.quantization.shape_inference", "onnx").quant_pre_process(
            str(exact), str(ready), skip_symbolic_shape=True
        )
        graph = onnx.load(str(ready))
        quantization.quantize_static(
            str(ready),
            str(file),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=list(_QUANTIZED),
            # The nodes of the OOD score alone: eight bits end at the largest distance among the slices that the ranges
            # are calibrated on, so that nothing would be further away than these.
            nodes_to_exclude=sorted(_ancestors(graph, OOD_SCORE) - _ancestors(graph, PROBABILITIES)),
        )


def _ancestors(proto: Any, output: str) -> set[str]:
    """Names of the nodes that an output is computed by; none if there is no such output."""
    producers = {name: node for node in proto.graph.node for name in node.output}
    found: set[str] = set()
    waiting = [output]
    while waiting:
        node = producers.get(waiting.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            waiting += node.input
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the converters' warnings, which are about themselves."""
    onnxruntime = require_engine("onnxruntime", "onnx")
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(_ERROR)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNING)
        logging.disable(before)
