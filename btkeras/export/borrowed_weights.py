"""The graph of a LiteRT or ONNX file's maps, which borrows the weights of the file's network.

Going back through the network takes its kernels again, with the axes of their channels exchanged: a graph with weights
of its own would be twice the network. As a further signature of a LiteRT file it would also be loaded, and its weights
unpacked, by whoever only predicts. So it is kept beside the metadata, without those weights that the network has, and
says where in the file they are.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.inference.model_folder import require_engine

Floats = NDArray[np.float32]

# Smaller constants stay in the graph, in float32: those of the first layers, rounded to float16, alone move a pixel of
# the pretrained model's maps by 0.04, all larger ones by 0.015 (100 slices).
_LEAST = 4096
# Of weights that begin alike all are compared.
_BEGINNING = 16
_ALIGNMENT = 64
# Orders in which a weight's axes are taken, and those that are turned around: as it is; with the channels exchanged, in
# LiteRT's order of axes and in ONNX's, and also turned, for a convolution back; a matrix transposed.
_VIEWS: dict[int, tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]] = {
    4: (
        ((0, 1, 2, 3), ()),
        ((3, 1, 2, 0), ()),
        ((3, 1, 2, 0), (1, 2)),
        ((1, 0, 2, 3), (2, 3)),
    ),
    2: (((0, 1), ()), ((1, 0), ())),
}


@dataclass(frozen=True)
class _Weight:
    """A weight in a file: its values, how far these may be from those that it was rounded from, and where it is."""

    values: Floats
    error: Floats  # of the same number of axes
    source: dict[str, Any]  # as a reader needs it: offset, dtype, shape, and scales along an axis

    @classmethod
    def of(cls, stored: NDArray[Any], offset: int, scales: Floats | None = None, axis: int = 0) -> _Weight:
        source = {"offset": offset, "dtype": stored.dtype.name, "shape": list(stored.shape)}
        values = stored.astype(np.float32)
        if stored.dtype == np.float16:
            return cls(values, np.asarray(np.abs(values) * 2.0**-11 + 2.0**-25, np.float32), source)
        if scales is None:
            return cls(values, np.zeros([1] * values.ndim, np.float32), source)
        along = scales.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
        # A little more than half a step, for rounding.
        return cls(values * along, along * 0.501, source | {"scales": scales.tolist(), "axis": axis})


def _borrowed(wanted: Floats, weights: Iterable[_Weight]) -> dict[str, Any] | None:
    """Which weight, its axes in which order and turned, is this one; None if none is."""
    for weight in weights:
        for order, turned in _VIEWS.get(wanted.ndim, ()) if weight.values.ndim == wanted.ndim else ():
            values, error = np.flip(weight.values.transpose(order), turned), weight.error.transpose(order)
            if values.shape != wanted.shape:
                continue
            error = np.broadcast_to(np.flip(error, turned), values.shape)
            beginning = np.abs(values.flat[:_BEGINNING] - wanted.flat[:_BEGINNING]) <= error.flat[:_BEGINNING]
            if beginning.all() and (np.abs(values - wanted) <= error).all():
                return weight.source | {"order": order, "turned": turned}
    return None


def _document(graph: bytes, rows: Sequence[dict[str, Any]]) -> str:
    return json.dumps({"graph": base64.b64encode(graph).decode(), "weights": rows})


def litert_maps(maps: bytes, file: Path) -> str:
    """The maps' graph, a LiteRT model of float32, as the text of ``MAPS`` for a file that ``write_litert`` wrote.

    Its buffers are outside of it, as those of models above 2 GB are: each row says ``at`` which byte behind its first.
    """
    tools = require_engine("ai_edge_litert.tools.flatbuffer_utils", "litert")
    weights = list(_litert_weights(file.read_bytes()))
    model = tools.read_model_from_bytearray(bytearray(maps))
    found = []
    for tensor in model.subgraphs[0].tensors:
        buffer = model.buffers[tensor.buffer]
        if _dtype(tensor.type) == "FLOAT32" and buffer.data is not None and len(buffer.data) >= 4 * _LEAST:
            values = np.frombuffer(bytes(buffer.data), np.float32).reshape(tensor.shape)
            if row := _borrowed(values, weights):
                # Numbers above 1, for the model's size.
                buffer.data, buffer.offset, buffer.size = None, 2, values.nbytes
                found.append((buffer, row))
    end = len(tools.convert_object_to_bytearray(model))
    for buffer, row in found:
        buffer.offset = row["at"] = -(-end // _ALIGNMENT) * _ALIGNMENT
        end = buffer.offset + buffer.size
    return _document(bytes(tools.convert_object_to_bytearray(model)), [row for _, row in found])


def _dtype(number: int) -> str:
    kinds = require_engine("ai_edge_litert.schema_py_generated", "litert").TensorType
    return next(name for name, value in vars(kinds).items() if value == number)


def _litert_weights(content: bytes) -> Iterator[_Weight]:
    model = require_engine("ai_edge_litert.schema_py_generated", "litert").Model.GetRootAs(content)
    first = np.frombuffer(content, np.uint8).ctypes.data
    graph = model.Subgraphs(0)
    for tensor in (graph.Tensors(i) for i in range(graph.TensorsLength())):
        dtype, buffer = _dtype(tensor.Type()).lower(), model.Buffers(tensor.Buffer())
        if dtype not in ("float32", "float16", "int8") or buffer.DataLength() < _LEAST:
            continue
        data, quantization = buffer.DataAsNumpy(), tensor.Quantization()
        stored = data.view(dtype).reshape(tensor.ShapeAsNumpy())
        scales = quantization.ScaleAsNumpy() if dtype == "int8" else None
        axis = quantization.QuantizedDimension() if dtype == "int8" else 0
        yield _Weight.of(stored, data.ctypes.data - first, scales, axis)


def onnx_maps(maps: Any, file: Path) -> str:
    """The maps' graph, an ONNX model, as the text of ``MAPS`` for a file that ``write_onnx`` wrote.

    Each row has the ``name`` of one of its initializers, whose values it does not have.
    """
    onnx = require_engine("onnx", "onnx")
    weights, rows = list(_onnx_weights(file)), []
    for tensor in maps.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= _LEAST and (row := _borrowed(values, weights)):
            rows.append(row | {"name": tensor.name})
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=file.name)
    return _document(maps.SerializeToString(), rows)


def _onnx_weights(file: Path) -> Iterator[_Weight]:
    onnx = require_engine("onnx", "onnx")
    content, graph = file.read_bytes(), onnx.load(str(file)).graph
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    steps = {node.input[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    for tensor in graph.initializer:
        stored = arrays[tensor.name]
        if stored.size < _LEAST or stored.dtype not in (np.float32, np.int8):
            continue
        node = steps.get(tensor.name)
        scales = None if node is None else np.atleast_1d(arrays[node.input[1]])
        axis = 0 if node is None else next((each.i for each in node.attribute if each.name == "axis"), 1)
        if (offset := content.find(stored.tobytes())) >= 0:
            yield _Weight.of(stored, offset, scales, axis)
