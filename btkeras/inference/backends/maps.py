"""Maps of a LiteRT or ONNX file: a graph beside its metadata, which is given the weights of the file's network.

``export.borrowed_weights`` writes it. It is made ready when the first map is asked for: predictions neither wait for it
nor hold its memory.
"""

from __future__ import annotations

import base64
import functools
import json
import struct
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from btkeras.inference.backends import Explain
from btkeras.inference.backends.litert import open_written
from btkeras.inference.model_folder import MAP, invalid_model, require_engine
from btkeras.machine import threads

_Floats = NDArray[np.float32]
_ALIGNMENT = 64
# The first version of LiteRT's DEQUANTIZE that takes float16.
_CAST_VERSION = 3
# Of one image and a class.
_Graph = Callable[[NDArray[np.uint8], NDArray[np.int32]], _Floats]


def explainer(file: Path, text: str) -> Explain:
    """``InferenceBackend.explain`` by the graph that a file's text ``MAPS`` holds; ModelError when it is damaged."""
    graph = functools.cache(functools.partial(_GRAPHS[file.suffix], file, text))
    lock = threading.Lock()

    def explain(images: NDArray[np.uint8], indices: NDArray[np.integer]) -> _Floats:
        maps, classes = [np.zeros((0, *images.shape[1:3]), np.float32)], np.asarray(indices, np.int32)
        with lock:
            maps += [graph()(images[[i]], classes[[i]]) for i in range(len(images))]
        return np.concatenate(maps)

    return explain


def _litert(file: Path, text: str) -> _Graph:
    try:
        graph, rows = _with_float16(*_parsed(text))
        interpreter = open_written(lambda out: _write_joined(out, graph, rows, file))
        places = {each["dtype"]: each["index"] for each in interpreter.get_input_details()}
        image, index, (output,) = places[np.uint8], places[np.int32], interpreter.get_output_details()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, struct.error) as error:
        raise invalid_model(file, error) from error

    def run(images: NDArray[np.uint8], indices: NDArray[np.int32]) -> _Floats:
        interpreter.set_tensor(image, images)
        interpreter.set_tensor(index, indices)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(output["index"]))

    return run


def _onnx(file: Path, text: str) -> _Graph:
    onnxruntime = require_engine("onnxruntime", "onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads(), 3
    try:
        graph, rows = _parsed(text)
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(each) for each in _weights(file, rows)]
        options.add_external_initializers([row["name"] for row in rows], values)
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no other common class.
        raise invalid_model(file, error) from error
    return lambda images, indices: session.run([MAP], {"images": images, "class_index": indices})[0]


_GRAPHS: Mapping[str, Callable[[Path, str], _Graph]] = {".tflite": _litert, ".onnx": _onnx}


def _parsed(text: str) -> tuple[bytes, list[dict[str, Any]]]:
    document = json.loads(text)
    return base64.b64decode(document["graph"]), document["weights"]


def _weights(file: Path, rows: Sequence[Mapping[str, Any]]) -> Iterator[_Floats]:
    """The weights that the graph borrows, as it takes them."""
    content = np.memmap(file, np.uint8, "r")
    for row in rows:
        stored = np.frombuffer(content, row["dtype"], int(np.prod(row["shape"])), row["offset"])
        values = stored.reshape(row["shape"]).astype(np.float32)
        if "scales" in row:
            sides = [-1 if i == row["axis"] else 1 for i in range(values.ndim)]
            values *= np.reshape(np.asarray(row["scales"], np.float32), sides)
        yield np.ascontiguousarray(np.flip(values.transpose(row["order"]), row["turned"]))


def _with_float16(graph: bytes, rows: Sequence[dict[str, Any]]) -> tuple[bytes, list[dict[str, Any]]]:
    """A LiteRT model whose borrowed weights are float32, with those in float16 that are so in the file.

    It takes half the memory. Each is cast when the model is prepared. The rows say where each is now.
    """
    halved = {row["at"] for row in rows if _held(row) == np.float16}
    if not halved:
        return graph, list(rows)
    schema, flatbuffers = (
        require_engine(name, "litert") for name in ("ai_edge_litert.schema_py_generated", "flatbuffers")
    )
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(graph, 0))
    _cast(schema, model, halved)
    # Far enough behind the graph, which becomes a little larger.
    buffers, end, placed = {buffer.offset: buffer for buffer in model.buffers}, 2 * len(graph), []
    for row in rows:
        buffer, start = buffers[row["at"]], -(-end // _ALIGNMENT) * _ALIGNMENT
        size = int(np.prod(row["shape"])) * np.dtype(_held(row)).itemsize
        buffer.offset, buffer.size, end = start, size, start + size
        placed.append(row | {"at": start})
    builder = flatbuffers.Builder(2 * len(graph))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output()), placed


def _cast(schema: Any, model: Any, places: Collection[int]) -> None:
    """Makes the weights at these places float16, and lets the operations take them cast to float32."""
    (network,) = model.subgraphs
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = _CAST_VERSION
    casts, results = [], {}
    for number, tensor in enumerate(list(network.tensors)):
        if model.buffers[tensor.buffer].offset in places:
            result, cast = schema.TensorT(), schema.OperatorT()
            result.name, result.shape, result.type = tensor.name, tensor.shape, tensor.type
            tensor.type, results[number] = schema.TensorType.FLOAT16, len(network.tensors)
            cast.opcodeIndex, cast.inputs, cast.outputs = len(model.operatorCodes), [number], [results[number]]
            network.tensors.append(result)
            casts.append(cast)
    for operator in network.operators:
        operator.inputs = [results.get(int(each), int(each)) for each in operator.inputs]
    network.operators = casts + network.operators
    model.operatorCodes.append(code)


def _write_joined(out: BinaryIO, graph: bytes, rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Writes a LiteRT model, and the buffers that are outside of it, each where the model says."""
    out.write(graph)
    for row, values in zip(rows, _weights(file, rows), strict=True):
        out.seek(row["at"])
        out.write(values.astype(_held(row), copy=False).data.cast("B"))


def _held(row: Mapping[str, Any]) -> type[np.floating]:
    """The dtype that a LiteRT graph holds a weight in."""
    return np.float16 if row["dtype"] == "float16" else np.float32
