"""The ONNX file, for ONNX Runtime and whatever else reads the format."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from btkeras.errors import ModelError
from btkeras.export.network import ExportNetwork
from btkeras.inference.model_folder import OOD_SCORE, PROBABILITIES, require_engine

# Has LayerNormalization and everything else that the networks need; ONNX Runtime reads it since 1.14 (2023).
_OPSET = 18
# Images at a time while ranges of activations are collected.
_BATCH = 8
# ONNX Runtime's, whose default is the second.
_ERROR, _WARNING = 3, 2
_QUANTIZED = ("Conv", "Gemm", "MatMul", "Add")


def write(deployed: ExportNetwork, file: Path, quantize: str | None, slices: NDArray[np.uint8] | None) -> None:
    """Writes a graph from prepared images ``images``, uint8 ``[n, size, size, channels]``, to the answer.

    Args:
        deployed: What to write.
        file: The target.
        quantize: ``int8`` for 8-bit weights and activations (QDQ, weights with a scale per channel), or None.
        slices: Prepared training images, from which the activations' ranges come; for ``int8`` only.

    Raises:
        ModelError: If a package is missing, or the quantisation is another.
    """
    onnx = require_engine("onnx", "onnx")
    proto = _convert(deployed)
    if quantize is None:
        onnx.save(proto, str(file))
        return
    if quantize != "int8" or slices is None:
        raise ModelError("ONNX files are quantised to int8", received=quantize, remedy="Take the format litert")
    with _quiet():
        _write_int8(proto, file, slices)


def embed_metadata(file: Path, texts: Mapping[str, str]) -> None:
    """Puts texts by their names into a model's ``metadata_props``.

    Args:
        file: As ``write`` left it.
        texts: By name.
    """
    onnx = require_engine("onnx", "onnx")
    proto = onnx.load(str(file))
    for name, text in texts.items():
        proto.metadata_props.add(key=name, value=text)
    onnx.save(proto, str(file))


def _convert(deployed: ExportNetwork) -> Any:
    tf2onnx, onnx = require_engine("tf2onnx", "onnx"), require_engine("onnx", "onnx")
    function: Any = deployed.function()
    with _quiet():
        proto, _ = tf2onnx.convert.from_function(function, input_signature=[deployed.spec], opset=_OPSET)
    # Keras' standardisation holds its statistics as plain tensors, which tf2onnx takes for inputs.
    captured = function.get_concrete_function(deployed.spec).graph.captures
    constants = {inner.name: outer for outer, inner in captured if outer.dtype != tf.resource}
    for needed in [value for value in proto.graph.input if value.name in constants]:
        proto.graph.input.remove(needed)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(constants[needed.name].numpy(), needed.name))
    _name_batch(proto)
    return proto


def _name_batch(proto: Any) -> None:
    """Calls the first dimension of inputs and outputs ``n``, where tf2onnx numbers what it does not know."""
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"


def _write_int8(proto: Any, file: Path, slices: NDArray[np.uint8]) -> None:
    quantization, onnx = require_engine("onnxruntime.quantization", "onnx"), require_engine("onnx", "onnx")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            self._batches = iter([slices[start : start + _BATCH] for start in range(0, len(slices), _BATCH)])

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"images": batch}

    with tempfile.TemporaryDirectory() as folder:
        whole, ready = Path(folder, "whole.onnx"), Path(folder, "ready.onnx")
        onnx.save(proto, str(whole))
        # Joins batch normalisation into convolutions, which names nodes anew.
        require_engine("onnxruntime.quantization.shape_inference", "onnx").quant_pre_process(
            str(whole), str(ready), skip_symbolic_shape=True
        )
        quantization.quantize_static(
            str(ready),
            str(file),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=list(_QUANTIZED),
            nodes_to_exclude=_score_nodes(onnx.load(str(ready))),
        )


def _score_nodes(proto: Any) -> list[str]:
    """The nodes that only the outlier score needs, to its end: a distance of eight bits would be none.

    Eight bits end at the largest distance among the slices that the ranges are calibrated on, so that nothing would be
    further away than these, and nothing an outlier.
    """
    return sorted(_needed(proto, OOD_SCORE) - _needed(proto, PROBABILITIES))


def _needed(proto: Any, output: str) -> set[str]:
    """Names of the nodes that an output is computed by; none if there is no such output."""
    makers = {name: node for node in proto.graph.node for name in node.output}
    found: set[str] = set()
    waiting = [output]
    while waiting:
        node = makers.get(waiting.pop())
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
