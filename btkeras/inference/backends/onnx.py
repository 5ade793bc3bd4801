"""An exported ONNX file as a backend, run by ONNX Runtime or, where ``$BTKERAS_ENGINE`` says so, by OpenVINO.

On x86 OpenVINO is the faster of the two, most of all in int8 (docs/performance.md).
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from btkeras.errors import ConfigError
from btkeras.inference.backends import InferenceBackend, ModelOutputs, Predict, exported_backend
from btkeras.inference.model_folder import (
    METADATA_FILES,
    OOD_SCORE,
    PROBABILITIES,
    ModelMetadata,
    invalid_model,
    parse_metadata,
    require_engine,
)
from btkeras.machine import threads

ENGINE = "BTKERAS_ENGINE"
_ONNX_RUNTIME = "onnxruntime"
# Inference precision of OpenVINO, by the variable's value.
OPENVINO: Mapping[str, str] = MappingProxyType({"openvino": "f32", "openvino-bfloat16": "bf16"})
# ONNX Runtime's level for errors; its warnings are about how well a graph could be optimised.
_ERRORS_ONLY = 3
# OpenVINO's graphs have fixed numbers of images: with a dynamic batch, int8 takes 1.5 times as long.
_BLOCK = 8
# From this many images on, a padded block is faster than single images.
_LEAST_OF_BLOCK = 4
_Outputs = dict[str, NDArray[np.float32]]


def load(file: Path) -> InferenceBackend:
    """Loads a file.

    Raises:
        ConfigError: If the variable names no engine.
        ModelError: If the engine is missing, or the file is damaged or not made by ``btkeras export``.
    """
    name = os.environ.get(ENGINE) or _ONNX_RUNTIME
    if name != _ONNX_RUNTIME and name not in OPENVINO:
        raise ConfigError(f"{ENGINE} must be one of {', '.join((_ONNX_RUNTIME, *OPENVINO))}", received=name)
    open_file = _onnx_runtime if name == _ONNX_RUNTIME else functools.partial(_openvino, precision=OPENVINO[name])
    metadata, names, run = open_file(file)
    if PROBABILITIES not in names:
        raise invalid_model(file, f"without the output {PROBABILITIES}")
    return exported_backend(file, metadata, run)


def _outputs(found: Mapping[str, NDArray[np.float32]]) -> ModelOutputs:
    return ModelOutputs(found[PROBABILITIES], found.get(OOD_SCORE))


def _onnx_runtime(file: Path) -> tuple[ModelMetadata, list[str], Predict]:
    onnxruntime = require_engine("onnxruntime", "onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.log_severity_level = _ERRORS_ONLY
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no other common class.
        raise invalid_model(file, " ".join(str(error).split())[:200]) from error
    names = [output.name for output in session.get_outputs()]
    metadata = parse_metadata(session.get_modelmeta().custom_metadata_map, file)
    return (
        metadata,
        names,
        lambda images: _outputs(dict(zip(names, session.run(names, {"images": images}), strict=True))),
    )


def _openvino(file: Path, precision: str) -> tuple[ModelMetadata, list[str], Predict]:
    # OpenVINO's converters, which are not used here, report their use to its makers; without this package they cannot.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    core = require_engine("openvino", "openvino").Core()
    try:
        model = core.read_model(str(file))
        # OpenVINO keeps a file's `metadata_props` under this key.
        keys = {name: ["framework", name] for name in METADATA_FILES}
        embedded = {name: model.get_rt_info(key).astype(str) for name, key in keys.items() if model.has_rt_info(key)}
        metadata = parse_metadata(embedded, file)
    except RuntimeError as error:
        raise invalid_model(file, " ".join(str(error).split())[:200]) from error
    names = [output.get_any_name() for output in model.outputs]
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }

    def compiled(count: int) -> Callable[[NDArray[np.uint8]], _Outputs]:
        sized = model.clone()
        sized.reshape([count, metadata.size, metadata.size, metadata.channels])
        request = core.compile_model(sized, "CPU", settings).create_infer_request()
        # Copied, since the next call overwrites the request's memory.
        return lambda images: dict(zip(names, map(np.array, request.infer([images]).values()), strict=True))

    return metadata, names, _in_blocks(compiled)


def _in_blocks(compiled: Callable[[int], Callable[[NDArray[np.uint8]], _Outputs]]) -> Predict:
    lock = threading.Lock()
    graph = functools.cache(compiled)

    def predict(images: NDArray[np.uint8]) -> ModelOutputs:
        count = _BLOCK if len(images) >= _LEAST_OF_BLOCK else 1
        padded = np.concatenate([images, np.zeros((-len(images) % count, *images.shape[1:]), np.uint8)])
        with lock:
            blocks = [graph(count)(padded[start : start + count]) for start in range(0, len(padded), count)]
        return _outputs({name: np.concatenate([block[name] for block in blocks])[: len(images)] for name in blocks[0]})

    return predict
