"""An exported LiteRT (TensorFlow Lite) file as a ``Network``, run by LiteRT."""

from __future__ import annotations

import threading
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from btkeras.inference.backends.base import InferenceBackend, ModelOutputs, exported_backend
from btkeras.inference.model_folder import PREPARED, PROBABILITIES, SCORE, TEXTS, engine, metadata_of, not_whole
from btkeras.machine import threads


def load(file: Path) -> InferenceBackend:
    """Loads a file, which may lie anywhere.

    Raises:
        ModelError: If LiteRT is missing, or the file is damaged or not made by ``btkeras export``.
    """
    litert = engine("ai_edge_litert.interpreter", "litert")
    facts = metadata_of(_texts(file), file)
    try:
        interpreter = litert.Interpreter(model_path=str(file), num_threads=threads())
        # Now and not with the first image: what it prepares and prints belongs to loading.
        interpreter.allocate_tensors()
        run = interpreter.get_signature_runner(PREPARED)
    except (ValueError, RuntimeError) as error:
        raise not_whole(file, " ".join(str(error).split())[:200]) from error
    # An interpreter has one set of buffers.
    lock = threading.Lock()

    def observe(images: NDArray[np.uint8]) -> ModelOutputs:
        with lock:
            answer = run(images=np.ascontiguousarray(images))
        return answer[PROBABILITIES], answer.get(SCORE)

    return exported_backend(file, facts, observe)


def _texts(file: Path) -> dict[str, str]:
    """The files of a zip archive behind the model, where TensorFlow Lite's metadata keep associated files."""
    try:
        with zipfile.ZipFile(file) as archive:
            return {name: archive.read(name).decode() for name in TEXTS if name in archive.namelist()}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise not_whole(file, error) from error
