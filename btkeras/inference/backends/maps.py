"""Maps of a LiteRT or ONNX file: a graph beside its metadata, which is given the weights of the file's network.

``export.borrowed_weights`` writes it. It is made ready when the first map is asked for: predictions neither wait for it
nor hold its memory.
"""

from __future__ import annotations

import base64
import functools
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.inference.backends import Explain
from btkeras.inference.model_folder import MAP, invalid_model, require_engine
from btkeras.machine import threads

_Floats = NDArray[np.float32]
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
    litert = require_engine("ai_edge_litert.interpreter", "litert")
    try:
        graph, rows = _parsed(text)
        content = _joined(graph, rows, _weights(file, rows))
        interpreter = litert.Interpreter(model_content=content, num_threads=threads())
        interpreter.allocate_tensors()
        places = {each["dtype"]: each["index"] for each in interpreter.get_input_details()}
        image, index, (output,) = places[np.uint8], places[np.int32], interpreter.get_output_details()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
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


def _joined(graph: bytes, rows: Sequence[Mapping[str, Any]], weights: Iterator[_Floats]) -> bytes:
    """A LiteRT model, and the buffers that are outside of it, each where the model says."""
    content = bytearray(graph)
    for row, values in zip(rows, weights, strict=True):
        content += bytes(row["at"] - len(content))
        content += values.data.cast("B")
    return bytes(content)
