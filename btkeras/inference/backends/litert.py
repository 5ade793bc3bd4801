"""An exported LiteRT (TensorFlow Lite) file as a backend, run by LiteRT."""

from __future__ import annotations

import threading
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from btkeras.inference.backends import InferenceBackend, ModelOutputs, exported_backend
from btkeras.inference.model_folder import (
    METADATA_FILES,
    OOD_SCORE,
    PREPARED,
    PROBABILITIES,
    invalid_model,
    parse_metadata,
    require_engine,
)
from btkeras.machine import threads


def load(file: Path) -> InferenceBackend:
    """Loads a file; ModelError if LiteRT is missing, or the file is damaged or not made by ``btkeras export``."""
    litert = require_engine("ai_edge_litert.interpreter", "litert")
    metadata = parse_metadata(_embedded_files(file), file)
    try:
        interpreter = litert.Interpreter(model_path=str(file), num_threads=threads())
        # Now and not with the first image: what it prepares and prints belongs to loading.
        interpreter.allocate_tensors()
        run = interpreter.get_signature_runner(PREPARED)
    except (ValueError, RuntimeError) as error:
        raise invalid_model(file, " ".join(str(error).split())[:200]) from error
    # An interpreter has one set of buffers.
    lock = threading.Lock()

    def predict(images: NDArray[np.uint8]) -> ModelOutputs:
        with lock:
            outputs = run(images=np.ascontiguousarray(images))
        return ModelOutputs(outputs[PROBABILITIES], outputs.get(OOD_SCORE))

    return exported_backend(file, metadata, predict)


def _embedded_files(file: Path) -> dict[str, str]:
    """The zip archive behind the model, where TensorFlow Lite's metadata keep associated files."""
    try:
        with zipfile.ZipFile(file) as archive:
            return {name: archive.read(name).decode() for name in METADATA_FILES if name in archive.namelist()}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise invalid_model(file, error) from error
