"""An exported ONNX file as a ``Network``, run by ONNX Runtime or, where ``$BTKERAS_ENGINE`` says so, by OpenVINO."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from btkeras.errors import ConfigError
from btkeras.inference.backends.base import InferenceBackend, ModelOutputs, exported_backend
from btkeras.inference.model_folder import PROBABILITIES, SCORE, engine, metadata_of, not_whole
from btkeras.machine import threads

ENGINE = "BTKERAS_ENGINE"
_ONNX_RUNTIME = "onnxruntime"
# By what the variable says, the precision that OpenVINO computes in.
OPENVINO: Mapping[str, str] = MappingProxyType({"openvino": "f32", "openvino-bfloat16": "bf16"})
# Only errors: warnings are about how well a graph could be optimised.
_QUIET = 3


def load(file: Path) -> InferenceBackend:
    """Loads a file, which may lie anywhere.

    Raises:
        ConfigError: If the variable names no engine.
        ModelError: If the engine is missing, or the file is damaged or not made by ``btkeras export``.
    """
    wanted = os.environ.get(ENGINE) or _ONNX_RUNTIME
    if wanted in OPENVINO:
        from btkeras.inference.backends import openvino

        return openvino.load(file, OPENVINO[wanted])
    if wanted != _ONNX_RUNTIME:
        raise ConfigError(f"{ENGINE} must be one of {', '.join((_ONNX_RUNTIME, *OPENVINO))}", received=wanted)
    onnxruntime = engine("onnxruntime", "onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.log_severity_level = _QUIET
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # Its errors have no common class but this.
        raise not_whole(file, " ".join(str(error).split())[:200]) from error
    facts = metadata_of(session.get_modelmeta().custom_metadata_map, file)
    outputs = [output.name for output in session.get_outputs()]
    if PROBABILITIES not in outputs:
        raise not_whole(file, f"without the output {PROBABILITIES}")

    def observe(images: NDArray[np.uint8]) -> ModelOutputs:
        answer = dict(zip(outputs, session.run(outputs, {"images": images}), strict=True))
        return answer[PROBABILITIES], answer.get(SCORE)

    return exported_backend(file, facts, observe)
