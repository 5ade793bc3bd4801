"""An exported ONNX file as a ``Network``, run by OpenVINO: on x86 faster than ONNX Runtime, most of all in int8."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.inference.backends.base import InferenceBackend, ModelOutputs, exported_backend
from btkeras.inference.model_folder import PROBABILITIES, SCORE, TEXTS, engine, metadata_of, not_whole
from btkeras.machine import threads

# Graphs are compiled for these numbers of images: for any number, int8 takes 1.5 times as long.
_BLOCK = 8
# Where OpenVINO keeps a file's ``metadata_props``.
_KEPT = "framework"
# Of a block, so many are worth computing all of it.
_WORTH = 4

_Rows = dict[str, NDArray[np.float32]]


def load(file: Path, precision: str = "f32") -> InferenceBackend:
    """Loads a file, which may lie anywhere.

    Args:
        file: The ONNX file.
        precision: OpenVINO's inference precision: ``f32``, in which answers are ONNX Runtime's up to rounding, or
            ``bf16``, faster on processors with such instructions.

    Raises:
        ModelError: If OpenVINO is missing, or the file is damaged or not made by ``btkeras export``.
    """
    # Its converters report their use to its makers; without this package they, which are not used here, cannot.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    openvino = engine("openvino", "openvino")
    core = openvino.Core()
    try:
        model = core.read_model(str(file))
        facts = metadata_of(_texts(model), file)
    except RuntimeError as error:
        raise not_whole(file, " ".join(str(error).split())[:200]) from error
    names = [output.get_any_name() for output in model.outputs]
    if PROBABILITIES not in names:
        raise not_whole(file, f"without the output {PROBABILITIES}")
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    shape = (facts.size, facts.size, facts.channels)

    def compiled(count: int) -> Callable[[NDArray[np.uint8]], _Rows]:
        sized = model.clone()
        sized.reshape([count, *shape])
        request = core.compile_model(sized, "CPU", settings).create_infer_request()
        # Answers lie in the request's own memory, which the next one overwrites.
        return lambda images: dict(zip(names, map(np.array, request.infer([images]).values()), strict=True))

    return exported_backend(file, facts, _observe(compiled))


def _observe(compiled: Callable[[int], Callable[[NDArray[np.uint8]], _Rows]]) -> Callable[..., ModelOutputs]:
    lock = threading.Lock()
    ready: dict[int, Callable[[NDArray[np.uint8]], _Rows]] = {}

    def some(images: NDArray[np.uint8], count: int) -> _Rows:
        if count not in ready:
            ready[count] = compiled(count)
        short = count - len(images)
        whole = np.concatenate([images, np.zeros((short, *images.shape[1:]), np.uint8)]) if short else images
        return {name: rows[: len(images)] for name, rows in ready[count](np.ascontiguousarray(whole)).items()}

    def observe(images: NDArray[np.uint8]) -> ModelOutputs:
        with lock:
            parts = [some(images[start : start + count], count) for start, count in _blocks(len(images))]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return joined[PROBABILITIES], joined.get(SCORE)

    return observe


def _blocks(total: int) -> list[tuple[int, int]]:
    """Where each part begins, and for how many images its graph is."""
    whole = [(start, _BLOCK) for start in range(0, total - total % _BLOCK, _BLOCK)]
    start = len(whole) * _BLOCK
    if total - start >= _WORTH:
        return [*whole, (start, _BLOCK)]
    return [*whole, *((place, 1) for place in range(start, total))]


def _texts(model: Any) -> Mapping[str, str]:
    """The file's ``metadata_props``."""
    return {name: model.get_rt_info([_KEPT, name]).astype(str) for name in TEXTS if model.has_rt_info([_KEPT, name])}
