"""ONNX Runtime, OpenVINO and LiteRT: engines of one file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from btkeras.machine import threads

Call = Callable[[np.ndarray], np.ndarray]


def onnxruntime(folder: str, form: str) -> tuple[Call, dict[str, Any]]:
    """As it comes: all optimisations of graphs are on by default."""
    import onnxruntime as engine

    options = engine.SessionOptions()
    options.intra_op_num_threads = threads()
    options.log_severity_level = 3
    session = engine.InferenceSession(f"{folder}/{form}.onnx", options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["probabilities"], {"images": images})[0], {}


def openvino(folder: str, form: str, precision: str) -> tuple[Call, dict[str, Any]]:
    """Compiled for each number of images, which is its fastest."""
    import openvino as engine

    core = engine.Core()
    model = core.read_model(f"{folder}/{form}.onnx")
    hints = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    requests: dict[tuple[int, ...], Any] = {}

    def call(images: np.ndarray) -> np.ndarray:
        if images.shape not in requests:
            sized = model.clone()
            sized.reshape(list(images.shape))
            requests[images.shape] = core.compile_model(sized, "CPU", hints).create_infer_request()
        return np.array(requests[images.shape].infer([images])[0])

    return call, {}


def litert(folder: str, form: str) -> tuple[Call, dict[str, Any]]:
    """With XNNPACK, its default."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(f"{folder}/{form}.tflite", num_threads=threads()).get_signature_runner("predict")
    return lambda images: runner(images=images)["probabilities"], {}
