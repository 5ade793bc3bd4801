"""LiteRT's interpreters, without the memory of the file that they were made from.

XNNPACK packs weights into memory of its own when tensors are allocated. The pages of the file are not needed after
that.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from btkeras.inference.model_folder import require_engine
from btkeras.machine import release_pages, threads


def open_file(file: Path, images: int | None = None) -> Any:
    """An interpreter of a LiteRT file, with its tensors allocated, for up to so many images if that is said.

    Raises:
        ValueError, RuntimeError, OSError: If it cannot be one.
    """
    interpreter = _allocated(images, model_path=str(file))
    release_pages(file)
    return interpreter


def open_written(write: Callable[[BinaryIO], object], images: int | None = None) -> Any:
    """As ``open_file``, of a model that is written by calling ``write``, into a temporary file while there is room."""
    try:
        with tempfile.TemporaryDirectory(prefix="btkeras-") as folder:
            file = Path(folder, "model.tflite")
            with file.open("wb") as out:
                write(out)
            return open_file(file, images)
    except OSError:
        # A container may have no such folder, or a small one. The model is the same, and keeps its bytes in memory.
        content = io.BytesIO()
        write(content)
        return _allocated(images, model_content=content.getvalue())


def _allocated(images: int | None, **source: Any) -> Any:
    litert = require_engine("ai_edge_litert.interpreter", "litert")
    interpreter = litert.Interpreter(**source, num_threads=threads())
    if images is not None:
        # LiteRT 2.3 unpacks float16 weights when it is first prepared, and again, keeping both copies, for more images
        # than then: 70 MB of the pretrained network (findings/litert_resized_input.sh).
        (tensor,) = interpreter.get_input_details()
        interpreter.resize_tensor_input(tensor["index"], [images, *tensor["shape"][1:]])
    # Now and not with the first image: what it prepares and prints belongs to loading.
    interpreter.allocate_tensors()
    return interpreter
