"""What maps of exported models cost and how far they are from their run's: ``python -m benchmarks.maps RUN MODEL...``.

Processor time, which other processes hardly change, of an answer and of a map for one image at a time, and differences
from the run's maps, of slices spread over the run's test subset. A JSON object a model.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.export.quantize import subset_slices
from btkeras.inference.backends import load_backend
from btkeras.runs import open_run


def measure(model: Path, images: NDArray[np.uint8], expected: NDArray[np.float32]) -> dict[str, Any]:
    """Milliseconds of one image, and differences of a pixel in 0..1; the class is the model's own."""
    backend = load_backend(model)
    if backend.explain is None:
        return {"model": str(model), "maps": None}
    explain, classes = backend.explain, backend.predict_all(images).probabilities.argmax(axis=1)
    answer = _milliseconds(lambda i: backend.predict(images[[i]]), len(images))
    maps = _milliseconds(lambda i: explain(images[[i]], classes[[i]]), len(images))
    differences = np.abs(explain(images, classes) - expected)
    return {
        "model": str(model),
        "images": len(images),
        "answer_ms": round(answer, 1),
        "map_ms": round(maps, 1),
        "ratio": round(maps / answer, 2),
        "largest_difference": float(differences.max()),
        "mean_difference": float(differences.mean()),
    }


def _milliseconds(function: Callable[[int], object], count: int) -> float:
    """The median over images, after a first call that prepares."""
    function(0)
    times = []
    for i in range(count):
        begin = time.process_time()
        function(i)
        times.append(time.process_time() - begin)
    return 1000 * float(np.median(times))


def main() -> None:
    """Prints what ``measure`` finds of each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--images", type=int, default=100)
    arguments = parser.parse_args()
    slices = subset_slices(open_run(arguments.run), "test").images
    images = slices[np.linspace(0, len(slices) - 1, min(arguments.images, len(slices))).astype(int)]
    run = load_backend(arguments.run)
    if run.explain is None:
        raise SystemExit("The run's maps need TensorFlow: set KERAS_BACKEND=tensorflow.")
    expected = run.explain(images, run.predict_all(images).probabilities.argmax(axis=1))
    for model in arguments.models:
        print(json.dumps(measure(model, images, expected)))


if __name__ == "__main__":
    main()
