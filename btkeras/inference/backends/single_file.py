"""An exported LiteRT or ONNX file as a backend, run by an engine of its own.

ONNX files are run by ONNX Runtime or, where ``$BTKERAS_ENGINE`` says so, by OpenVINO, which is faster on x86, most of
all in int8 (docs/performance.md).
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from btkeras.errors import ConfigError
from btkeras.inference.backends import InferenceBackend, Signature, exported_backend
from btkeras.inference.model_folder import (
    METADATA_FILES,
    PREPARED,
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

_Loaded = tuple[ModelMetadata, Collection[str], Signature]


def load(file: Path) -> InferenceBackend:
    """Loads a file; ConfigError if the variable names no engine, ModelError if the engine or the file is no good."""
    metadata, names, signature = _litert(file) if file.suffix == ".tflite" else _onnx(file)
    if PROBABILITIES not in names:
        raise invalid_model(file, f"without the output {PROBABILITIES}")
    return exported_backend(file, metadata, signature)


def _litert(file: Path) -> _Loaded:
    litert = require_engine("ai_edge_litert.interpreter", "litert")
    try:
        # The archive behind the model, where TensorFlow Lite's metadata keep associated files.
        with zipfile.ZipFile(file) as archive:
            embedded = {name: archive.read(name).decode() for name in METADATA_FILES if name in archive.namelist()}
        metadata = parse_metadata(embedded, file)
        interpreter = litert.Interpreter(model_path=str(file), num_threads=threads())
        # Now and not with the first image: what it prepares and prints belongs to loading.
        interpreter.allocate_tensors()
        run = interpreter.get_signature_runner(PREPARED)
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise invalid_model(file, error) from error
    # An interpreter has one set of buffers.
    lock = threading.Lock()

    def signature(images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        with lock:
            return dict(run(images=np.ascontiguousarray(images)))

    return metadata, run.get_output_details(), signature


def _onnx(file: Path) -> _Loaded:
    name = os.environ.get(ENGINE) or _ONNX_RUNTIME
    if name in OPENVINO:
        return _openvino(file, OPENVINO[name])
    if name != _ONNX_RUNTIME:
        raise ConfigError(f"{ENGINE} must be one of {', '.join((_ONNX_RUNTIME, *OPENVINO))}", received=name)
    onnxruntime = require_engine("onnxruntime", "onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.log_severity_level = _ERRORS_ONLY
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no other common class.
        raise invalid_model(file, error) from error
    names = [output.name for output in session.get_outputs()]
    metadata = parse_metadata(session.get_modelmeta().custom_metadata_map, file)
    return metadata, names, lambda images: dict(zip(names, session.run(names, {"images": images}), strict=True))


def _openvino(file: Path, precision: str) -> _Loaded:
    # OpenVINO's converters, which are not used here, report their use to its makers; without this package they cannot.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    core = require_engine("openvino", "openvino").Core()
    try:
        model = core.read_model(str(file))
        # OpenVINO keeps a file's `metadata_props` under this key.
        keys = {name: ["framework", name] for name in METADATA_FILES}
        embedded = {name: model.get_rt_info(key).astype(str) for name, key in keys.items() if model.has_rt_info(key)}
    except RuntimeError as error:
        raise invalid_model(file, error) from error
    metadata, names = parse_metadata(embedded, file), [output.get_any_name() for output in model.outputs]
    config = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }

    def compiled(count: int) -> Signature:
        sized = model.clone()
        sized.reshape([count, metadata.size, metadata.size, metadata.channels])
        request = core.compile_model(sized, "CPU", config).create_infer_request()
        # Copied, since the next call overwrites the request's memory.
        return lambda images: dict(zip(names, map(np.array, request.infer([images]).values()), strict=True))

    return metadata, names, _in_blocks(compiled)


def _in_blocks(compiled: Callable[[int], Signature]) -> Signature:
    lock = threading.Lock()
    graph = functools.cache(compiled)

    def signature(images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        count = _BLOCK if len(images) >= _LEAST_OF_BLOCK else 1
        padded = np.concatenate([images, np.zeros((-len(images) % count, *images.shape[1:]), np.uint8)])
        with lock:
            blocks = [graph(count)(padded[start : start + count]) for start in range(0, len(padded), count)]
        return {name: np.concatenate([block[name] for block in blocks])[: len(images)] for name in blocks[0]}

    return signature
