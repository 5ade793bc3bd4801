"""Maps from LiteRT and ONNX files: the run's, from a graph that borrows the file's weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from btkeras.inference.backends import load_backend

pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")

FILES = ("model.onnx", "model.tflite")


@pytest.mark.parametrize("name", FILES)
def test_a_file_alone_explains_as_its_run(
    exported_formats: Path, calibrated_run: Path, tmp_path: Path, name: str
) -> None:
    run, file = load_backend(calibrated_run), load_backend(shutil.copy(exported_formats / name, tmp_path / name))
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 1), np.uint8)
    assert run.explain and file.explain
    for indices in ([0, 1, 2], [3, 3, 0]):
        maps = file.explain(images, np.array(indices))
        assert maps.dtype == np.float32 and maps.max() == 1
        np.testing.assert_allclose(maps, run.explain(images, np.array(indices)), atol=1e-3)
    assert file.explain(images[:0], np.array([], int)).shape == (0, 32, 32)
