"""An exported LiteRT or ONNX file as a backend.

Each format has an engine of its own, which starts fast. From ``MANY`` images on a faster one takes over, if there is
one (docs/performance.md): LiteRT with kernels of 8 bits, where the processor has instructions for these and none for
tiles of bfloat16; else OpenVINO, where it is installed. ``$BTKERAS_ENGINE`` names an engine.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import threading
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.errors import ConfigError
from btkeras.files import read_json
from btkeras.inference.backends import BATCH, InferenceBackend, Signature, exported_backend
from btkeras.inference.backends.int8 import with_int8_kernels
from btkeras.inference.backends.litert import open_file, open_written
from btkeras.inference.backends.maps import explainer
from btkeras.inference.model_folder import (
    MANIFEST,
    MAPS,
    METADATA_FILES,
    OOD_SCORE,
    PREPARED,
    PROBABILITIES,
    invalid_model,
    parse_metadata,
    require_engine,
)
from btkeras.machine import has_instructions, threads

ENGINE = "BTKERAS_ENGINE"
# A format's own engine.
OWN_ENGINES = MappingProxyType({".tflite": "litert", ".onnx": "onnxruntime"})
# A faster engine's start, up to a second longer, is made up for by then.
MANY = 200
_MIXED, _LITERT_MIXED = "openvino-mixed", "litert-mixed"
# OpenVINO's precisions, by the variable's value: of `InferenceBackend.predict`, and of its `fast`.
OPENVINO: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"openvino": ("f32",), "openvino-bfloat16": ("bf16",), _MIXED: ("f32", "bf16")}
)
ENGINES = (*OWN_ENGINES.values(), _LITERT_MIXED, *OPENVINO)
_SAID = MappingProxyType(
    {
        "openvino": "OpenVINO, float32",
        "openvino-bfloat16": "OpenVINO, bfloat16",
        _MIXED: "OpenVINO, float32, and bfloat16 where no decision is close",
        _LITERT_MIXED: "LiteRT, float32, and int8 where no decision is close",
    }
)
# ONNX Runtime's level for errors; its warnings are about how well a graph could be optimised.
_ERRORS_ONLY = 3
# Images at a time, whose maps fit into a core's cache: LiteRT takes as long for 4 as for 32 at once, and 190 MB less.
# OpenVINO's graphs have fixed numbers of images: with a dynamic batch, int8 takes 1.5 times as long.
_BLOCK = 4
# From this many images on, a padded block is faster than single images.
_LEAST_OF_BLOCK = 2

# Embedded texts, names of the outputs, and the outputs, in one precision or in two.
_Loaded = tuple[Mapping[str, str], Collection[str], Sequence[Signature]]
# Outputs of each block of images.
_Blocks = Callable[[Sequence[NDArray[np.uint8]]], list[list[NDArray[np.float32]]]]


def load(file: Path, images: int = BATCH) -> InferenceBackend:
    """Loads a file for about so many images; ConfigError if the variable names no engine, else ModelError."""
    name = engine(file, images)
    if name in OPENVINO:
        texts, names, signatures = _openvino(file, OPENVINO[name])
    else:
        loaded = _onnx(file) if file.suffix == ".onnx" else _litert(file, images, mixed=name == _LITERT_MIXED)
        texts, names, signatures = loaded
    if PROBABILITIES not in names:
        raise invalid_model(file, f"without the output {PROBABILITIES}")
    signature, *fast = signatures
    explain = explainer(file, texts[MAPS]) if MAPS in texts else None
    return exported_backend(
        file, parse_metadata(texts, file), signature, explain, next(iter(fast), None), _SAID.get(name, "")
    )


def engine(file: Path, images: int = 1) -> str:
    """The engine that a file is run by; ConfigError if the variable names none."""
    given = os.environ.get(ENGINE)
    if given is None:
        return _fastest(file) if images >= MANY and _is_float(file) else OWN_ENGINES[file.suffix]
    if given not in ENGINES:
        raise ConfigError(f"{ENGINE} must be one of {', '.join(ENGINES)}", received=given)
    runs_it = given in OPENVINO or (given == _LITERT_MIXED and file.suffix == ".tflite")
    return given if runs_it else OWN_ENGINES[file.suffix]


def _fastest(file: Path) -> str:
    """The engine for many images, which must be installed."""
    openvino = importlib.util.find_spec("openvino") is not None
    int8 = file.suffix == ".tflite" and has_instructions("int8")
    # Without tiles, int8 is as fast as bfloat16, in half the memory and without OpenVINO's start.
    if openvino and has_instructions("bfloat16 tiles" if int8 else "bfloat16"):
        return _MIXED
    if int8:
        return _LITERT_MIXED
    return "openvino" if openvino else OWN_ENGINES[file.suffix]


def _is_float(file: Path) -> bool:
    """Whether it is known to have no int8 weights, of which another engine gives other probabilities."""
    manifest = file.parent / MANIFEST
    rows = read_json(manifest).get("quantization", []) if manifest.is_file() else [{"quantization": "int8"}]
    return all(row["quantization"] != "int8" for row in rows)


def _litert(file: Path, images: int, *, mixed: bool) -> _Loaded:
    most = min(max(images, 1), _BLOCK)
    try:
        texts = _archived(file)
        # First what takes memory for a moment.
        fast = [_int8(file, most)] if mixed else []
        runners = [network.get_signature_runner(PREPARED) for network in (open_file(file, most), *fast)]
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise invalid_model(file, error) from error
    return texts, runners[0].get_output_details(), [_locked(run) for run in runners]


def _int8(file: Path, images: int) -> Any:
    content = with_int8_kernels(file.read_bytes())
    return open_written(lambda out: out.write(content), images)


def _locked(run: Any) -> Signature:
    # An interpreter has one set of buffers.
    lock = threading.Lock()

    def signature(images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        blocks = [np.ascontiguousarray(images[start : start + _BLOCK]) for start in range(0, len(images), _BLOCK)]
        with lock:
            parts = [run(images=block) for block in blocks]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return signature


def _archived(file: Path) -> dict[str, str]:
    """What the archive behind the model holds, where TensorFlow Lite's metadata keep associated files."""
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name).decode() for name in (*METADATA_FILES, MAPS) if name in archive.namelist()}


def _onnx(file: Path) -> _Loaded:
    onnxruntime = require_engine("onnxruntime", "onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.log_severity_level = _ERRORS_ONLY
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no other common class.
        raise invalid_model(file, error) from error
    names = [output.name for output in session.get_outputs()]
    texts = session.get_modelmeta().custom_metadata_map
    return texts, names, [lambda images: dict(zip(names, session.run(names, {"images": images}), strict=True))]


def _openvino(file: Path, precisions: Sequence[str]) -> _Loaded:
    # OpenVINO's converters, which are not used here, report their use to its makers; without this package they cannot.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    core = require_engine("openvino", "openvino").Core()
    try:
        model = core.read_model(str(file))
        texts = _archived(file) if file.suffix == ".tflite" else _properties(model)
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:
        raise invalid_model(file, error) from error
    metadata = parse_metadata(texts, file)
    # LiteRT's names of outputs are not read.
    names = [PROBABILITIES if len(output.partial_shape) > 1 else OOD_SCORE for output in model.outputs]

    def compiled(precision: str, count: int) -> _Blocks:
        sized = model.clone()
        sized.reshape([count, metadata.size, metadata.size, metadata.channels])
        # A stream has its own part of the cores: one image alone gets all.
        streams = min(threads(), BATCH // _BLOCK) if count > 1 else 1
        settings = {"INFERENCE_PRECISION_HINT": precision, "NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": threads()}
        program = core.compile_model(sized, "CPU", settings)

        def run(blocks: Sequence[NDArray[np.uint8]]) -> list[list[NDArray[np.float32]]]:
            requests = [program.create_infer_request() for _ in blocks]
            for request, block in zip(requests, blocks, strict=True):
                request.start_async([block])
            for request in requests:
                request.wait()
            return [[np.array(output.data) for output in request.output_tensors] for request in requests]

        return run

    return texts, names, [_in_blocks(names, functools.partial(compiled, each)) for each in precisions]


def _properties(model: Any) -> dict[str, str]:
    """An ONNX file's `metadata_props`, which OpenVINO keeps under this key."""
    keys = {name: ["framework", name] for name in (*METADATA_FILES, MAPS)}
    return {name: model.get_rt_info(key).astype(str) for name, key in keys.items() if model.has_rt_info(key)}


def _in_blocks(names: Sequence[str], compiled: Callable[[int], _Blocks]) -> Signature:
    lock = threading.Lock()
    graph = functools.cache(compiled)

    def signature(images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        count = _BLOCK if len(images) >= _LEAST_OF_BLOCK else 1
        padded = np.concatenate([images, np.zeros((-len(images) % count, *images.shape[1:]), np.uint8)])
        with lock:
            outputs = graph(count)([padded[start : start + count] for start in range(0, len(padded), count)])
        return {
            name: np.concatenate(parts)[: len(images)]
            for name, parts in zip(names, zip(*outputs, strict=True), strict=True)
        }

    return signature
