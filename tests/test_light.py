"""Predicting without TensorFlow: which file of a model answers, what that loads, and that the answers are the same."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from btkeras.cli import main
from btkeras.errors import ModelError
from btkeras.inference.backends import exported_backend, load_backend, locate, single_file
from btkeras.inference.backends import keras as keras_backend
from btkeras.inference.model_folder import MANIFEST, ModelMetadata
from tests.test_cli import fails

LIGHT = ("model.tflite", "model.onnx")
HEAVY = {"tensorflow", "keras", "sklearn", "matplotlib", "scipy"}
# Runs the command, then tells what it has loaded on the last line of standard error.
COMMAND = """
import sys
from btkeras.cli import main
try:
    main()
finally:
    print(*{module.split(".")[0] for module in sys.modules}, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def run(calibrated_run: Path) -> Path:
    return calibrated_run


@pytest.fixture(scope="module")
def version(exported_formats: Path) -> Path:
    return exported_formats


@pytest.fixture
def files(shared_images: Path, tmp_path: Path) -> list[str]:
    """Slices, an image that is no slice, and a file that is no image."""
    (tmp_path / "notes.txt").write_text("no image")
    return [*map(str, sorted(shared_images.glob("*/00[0-3].png"))), str(tmp_path / "notes.txt")]


def fresh(*arguments: object) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """The command in a new process, and the packages it has loaded."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", COMMAND, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    *said, loaded = result.stderr.splitlines()
    result.stderr = "\n".join(said)
    return result, set(loaded.split())


def btkeras(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("name", LIGHT)
def test_a_light_file_answers_in_a_process_without_tensorflow(version: Path, files: list[str], name: str) -> None:
    result, loaded = fresh("predict", *files, "--model", version / name, "--json")
    assert not HEAVY & loaded
    # Neither does its engine say anything.
    first, data, known, last = result.stderr.splitlines()
    assert (first, last) == (f"model: {version / name}", "Error: 1 of 17 images could not be read.")
    assert data.startswith("trained on: ")
    # Those that the model was trained and validated on.
    assert "of 17 slices are near-duplicates of training or validation slices" in known
    assert result.returncode == 1
    expected = json.loads(btkeras("predict", *files, "--model", version / "saved_model.pb", "--json").stdout)
    answers = json.loads(result.stdout)
    assert len({answer["decision"] for answer in answers if "decision" in answer}) > 1
    for ours, theirs in zip(answers, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            if key == "probabilities":
                assert ours[key] == pytest.approx(value, abs=1e-5)
            elif key == "ood_percentile":
                assert ours[key] == pytest.approx(value, abs=1e-9)
            else:
                assert ours[key] == value


def test_occlusion_needs_no_tensorflow_either(version: Path, files: list[str], tmp_path: Path) -> None:
    options = ("--explain", tmp_path / "why.png", "--method", "occlusion")
    result, loaded = fresh("predict", files[0], "--model", version, *options)
    assert (result.returncode, (tmp_path / "why.png").is_file()) == (0, True), result.stderr
    assert not (HEAVY - {"matplotlib"}) & loaded


def test_help_loads_no_engine() -> None:
    result, loaded = fresh("predict", "--help")
    assert result.returncode == 0
    assert not (HEAVY | {"numpy", "ai_edge_litert", "onnxruntime", "requests"}) & loaded


def test_of_several_formats_the_one_that_starts_soonest_answers(version: Path, files: list[str]) -> None:
    for given in (version.parent, version):
        assert locate(given).path == version / "model.tflite"
        assert not locate(given).needs_tensorflow
        assert f"model: {version / 'model.tflite'}\n" in btkeras("predict", files[0], "--model", given).stderr
    chosen = btkeras("predict", files[0], "--model", version / "model.onnx")
    assert f"model: {version / 'model.onnx'}\n" in chosen.stderr


def test_what_is_not_installed_is_passed_over(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    absent = {"ai_edge_litert"}

    def find_spec(name: str, package: str | None = None) -> importlib.machinery.ModuleSpec | None:
        return None if name in absent else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    assert locate(version).path == version / "model.onnx"
    absent.add("onnxruntime")
    assert locate(version).path == version / "saved_model.pb"
    absent.add("tensorflow")
    # What is missing, its loader says.
    assert locate(version).path == version / "model.tflite"


@pytest.mark.parametrize("name", LIGHT)
def test_a_light_file_explains_in_a_process_without_tensorflow(
    version: Path, files: list[str], tmp_path: Path, name: str
) -> None:
    result, loaded = fresh("predict", files[0], "--model", version / name, "--explain", tmp_path / "why.png")
    assert (result.returncode, (tmp_path / "why.png").is_file()) == (0, True), result.stderr
    assert not (HEAVY - {"matplotlib"}) & loaded
    assert "occlusion" not in result.stderr


def test_of_versions_without_maps_in_light_files_the_saved_model_explains(version: Path, tmp_path: Path) -> None:
    assert locate(version, explained=True).path == version / "model.tflite"
    old = shutil.copytree(version, tmp_path / "1")
    manifest = json.loads((old / MANIFEST).read_text())
    assert sorted(manifest.pop("maps")) == ["litert", "onnx", "savedmodel"]
    (old / MANIFEST).write_text(json.dumps(manifest))
    assert locate(old, explained=True).path == old / "saved_model.pb"
    assert locate(old).path == old / "model.tflite"


def test_a_file_without_maps_is_explained_by_occlusion_and_that_is_said(
    version: Path, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single_file, "MAPS", "no such text")
    light = ("predict", files[0], "--model", version / "model.tflite", "--explain", tmp_path / "light.png")
    fails(btkeras(*light, "--method", "layercam"), "take --method occlusion")
    assert "explained by occlusion" in btkeras(*light).stderr
    assert (tmp_path / "light.png").is_file()


def test_answers_that_are_no_numbers_are_an_error(version: Path) -> None:
    """As weights give that were damaged where a loader does not look."""
    file = version / "model.tflite"
    metadata = ModelMetadata(("a", "b", "c", "d"), 2, 1, harmonize=False, calibration=None, ood_calibration=None)
    nan = np.full((1, 4), np.nan, np.float32)
    damaged = exported_backend(file, metadata, lambda images: {"probabilities": nan})
    with pytest.raises(ModelError, match=f"finite numbers.*selftest --model {file}"):
        damaged.predict(np.zeros((1, 2, 2, 1), np.uint8))


def test_a_run_says_which_file_answers(run: Path, files: list[str]) -> None:
    assert locate(run).needs_tensorflow
    assert f"model: {run / 'best.keras'}\n" in btkeras("predict", files[0], "--model", run).stderr


def test_for_many_images_a_runs_network_is_reparameterized_and_predicts_the_same(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused = []
    original = keras_backend.reparameterize
    monkeypatch.setattr(keras_backend, "reparameterize", lambda model: (fused.append(model), original(model))[1])
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 1), np.uint8)
    (few, few_scores), (many, many_scores) = (load_backend(run, count).predict(images) for count in (99, 100))
    assert len(fused) == 1
    np.testing.assert_allclose(many, few, atol=1e-5)
    np.testing.assert_allclose(many_scores, few_scores, rtol=1e-3)


def test_the_command_line_says_how_many_images_there_are(
    run: Path, shared_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused = []
    original = keras_backend.reparameterize
    monkeypatch.setattr(keras_backend, "reparameterize", lambda model: (fused.append(model), original(model))[1])
    monkeypatch.setattr(keras_backend, "_REPARAMETERIZE_FROM", 3)
    image = shared_images / "glioma/000.png"
    assert btkeras("predict", *[image] * 2, "--model", run).exit_code == 0
    assert not fused
    assert btkeras("predict", *[image] * 3, "--model", run).exit_code == 0
    assert fused
