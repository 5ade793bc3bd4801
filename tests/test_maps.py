"""Maps from LiteRT and ONNX files: the run's, from a graph that borrows the file's weights."""

from __future__ import annotations

import base64
import csv
import json
import shutil
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from numpy.typing import NDArray

from btkeras.cli import main
from btkeras.errors import ModelError
from btkeras.export.export import export
from btkeras.export.gradients import forward_gradients
from btkeras.inference.backends import load_backend
from btkeras.inference.backends.maps import explainer
from btkeras.inference.model_folder import MANIFEST, MAPS
from btkeras.runs import open_run
from tests.test_explain import boxed

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")

FILES = ("model.onnx", "model.tflite")
KERNEL = np.random.default_rng(1).normal(size=(3, 3, 3, 4)).astype(np.float32)


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


@pytest.mark.parametrize("name", FILES)
def test_weights_are_not_stored_again(exported_formats: Path, name: str) -> None:
    document = _document(exported_formats / name)
    kernels = 8 * 16 * 3 * 3 + 16 * 16 * 3 * 3
    # Going back takes the second once more.
    assert sum(int(np.prod(row["shape"])) for row in document["weights"]) >= kernels
    assert len(base64.b64decode(document["graph"])) < 4 * kernels + 40_000


def test_maps_need_no_room_for_temporary_files(
    exported_formats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backends = [load_backend(exported_formats / "model.tflite") for _ in range(2)]
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 1), np.uint8)
    usual, without = [], []
    for backend, maps in zip(backends, (usual, without), strict=True):
        assert backend.explain
        maps.append(backend.explain(images, np.array([0])))
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    np.testing.assert_array_equal(usual, without)


@pytest.mark.parametrize("name", FILES)
def test_a_quantized_files_maps_are_of_its_own_weights(
    quantized_formats: Path, calibrated_run: Path, name: str
) -> None:
    assert any("scales" in row for row in _document(quantized_formats / name)["weights"])
    images, indices = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 1), np.uint8), np.arange(4)
    backends = [load_backend(path) for path in (quantized_formats / name, calibrated_run)]
    own, runs = (backend.explain(images, indices) for backend in backends if backend.explain)
    assert 0 < np.abs(own - runs).mean() < 0.02


def test_maps_of_a_float16_file_are_its_runs(
    calibrated_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("btkeras.export.borrowed_weights._LEAST", 1024)
    version = export(open_run(calibrated_run), tmp_path / "half", formats=("litert",), quantize="float16")
    assert {row["dtype"] for row in _document(version / "model.tflite")["weights"]} == {"float16"}
    images, indices = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 1), np.uint8), np.arange(4)
    backends = [load_backend(path) for path in (version / "model.tflite", calibrated_run)]
    own, runs = (backend.explain(images, indices) for backend in backends if backend.explain)
    assert 0 < np.abs(own - runs).mean() < 0.001


def _document(file: Path) -> dict[str, Any]:
    if file.suffix == ".onnx":
        text = onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map[MAPS]
    else:
        with zipfile.ZipFile(file) as archive:
            text = archive.read(MAPS).decode()
    document: dict[str, Any] = json.loads(text)
    return document


def test_a_network_whose_gradients_a_format_lacks_is_exported_without_maps(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(network: object) -> None:
        raise NotImplementedError("windows of another kind")

    monkeypatch.setattr("btkeras.export.single_file.map_function", fails)
    version = export(open_run(trained_run), tmp_path / "tiny", formats=("litert",))
    assert "litert: without maps" in caplog.text and "windows of another kind" in caplog.text
    assert json.loads((version / MANIFEST).read_text())["maps"] == []
    assert load_backend(version).explain is None


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_graph_is_an_error(exported_formats: Path, name: str) -> None:
    explain = explainer(exported_formats / name, '{"graph": "AAAA", "weights": []}')
    with pytest.raises(ModelError, match="must be whole"):
        explain(np.zeros((1, 32, 32, 1), np.uint8), np.zeros(1, int))


def test_an_exported_models_maps_are_scored_as_its_runs(
    exported_formats: Path, calibrated_run: Path, shared_images: Path, tmp_path: Path
) -> None:
    model = exported_formats / "model.tflite"
    # The test subset alone, as an exported model evaluates it.
    rows = csv.DictReader(Path(calibrated_run, "predictions.csv").read_text().splitlines())
    for path in (row["path"] for row in rows):
        (tmp_path / "tested" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(shared_images / path, tmp_path / "tested" / path)
    options = ("--data", str(boxed(tmp_path / "boxed", tmp_path / "tested")), "--explain", "--json")
    result = CliRunner().invoke(main, ["evaluate", str(model), *options, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    ours = json.loads(result.stdout)["explanations"]
    assert json.loads((tmp_path / "explanations.json").read_text()) == ours
    run = shutil.copytree(calibrated_run, tmp_path / "run")
    theirs = json.loads(CliRunner().invoke(main, ["evaluate", str(run), *options]).stdout)["explanations"]
    names = ("images", "tumors", "region")
    assert [ours[name] for name in names] == [theirs[name] for name in names]
    assert ours["images"] > 3
    found, expected = (
        {row["title"]: row for row in each["rows"] if row["network"] != "random weights"} for each in (ours, theirs)
    )
    for title, row in found.items():
        for score in ("pointing", "energy", "iou"):
            assert row[score] == pytest.approx(expected[title][score], abs=1e-3), (title, score)
    assert "LayerCAM of four stages" in found
    failed = CliRunner().invoke(main, ["evaluate", str(model), *options, "--method", "gradcam"])
    assert failed.exit_code == 1 and "needs the network of a run" in failed.stderr


# Operations of networks that the table of gradients knows, against TensorFlow's own gradients.
OPERATIONS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "relu": tf.nn.relu,
    "sigmoid": tf.nn.sigmoid,
    "convolution": lambda x: tf.nn.conv2d(x, KERNEL, 1, "SAME"),
    "strided convolution": lambda x: tf.nn.conv2d(x, KERNEL, 2, "VALID"),
    "dilated convolution": lambda x: tf.nn.conv2d(x, KERNEL, 1, "VALID", dilations=2),
    "depthwise": lambda x: tf.nn.depthwise_conv2d(x, KERNEL[..., :1], [1, 1, 1, 1], "SAME"),
    "strided depthwise": lambda x: tf.nn.depthwise_conv2d(x, KERNEL[..., :1], [1, 2, 2, 1], "SAME"),
    "largest of windows": lambda x: tf.nn.max_pool2d(x, 3, 2, "VALID"),
    "largest of overlapping windows": lambda x: tf.nn.max_pool2d(x, 3, 1, "SAME"),
    "largest of padded windows": lambda x: tf.nn.max_pool2d(x, 3, 2, "SAME"),
    "means": lambda x: tf.nn.avg_pool2d(x, 2, 2, "VALID"),
    "means of padded windows": lambda x: tf.nn.avg_pool2d(x, 3, 2, "SAME"),
}


@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_forward_gradient_equals_tensorflows(name: str, side: int) -> None:
    operation = OPERATIONS[name]
    # Halves, so that windows have several largest values.
    image = np.round(np.random.default_rng(0).normal(size=(2, side, side, 3)) * 2).astype(np.float32) / 2

    def gradient(context: Callable[[], AbstractContextManager[None]]) -> tuple[NDArray[np.float32], set[str]]:
        with tf.Graph().as_default() as graph:
            x = tf.compat.v1.placeholder(tf.float32, image.shape)
            with context():
                y = operation(x)
            (found,) = tf.gradients(tf.reduce_sum(y * tf.cumsum(tf.ones_like(y), axis=1)), x)
            with tf.compat.v1.Session(graph=graph) as session:
                return session.run(found, {x: image}), {each.type for each in graph.get_operations()}

    ours, kinds = gradient(forward_gradients)
    theirs, _ = gradient(nullcontext)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    trained = {kind for kind in kinds if kind.endswith(("Grad", "BackpropInput"))}
    assert trained <= {"Conv2DBackpropInput"}
