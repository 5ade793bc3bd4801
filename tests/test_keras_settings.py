"""Settings of Keras that break or change a run are refused before anything is loaded or written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from btkeras.keras_settings import require_usable_keras
from tests.test_cli import btkeras

UNUSABLE = [
    ({"image_data_format": "channels_first"}, 'image_data_format "channels_last"'),
    ({"image_data_format": "channels_middle"}, 'image_data_format "channels_last"'),
    ({"floatx": "float16"}, 'floatx "float32"'),
    ({"floatx": "float64"}, 'floatx "float32"'),
    ({"floatx": "bfloat16"}, 'floatx "float32"'),
    ({"epsilon": 0.1}, "epsilon 1e-07"),
    ({"epsilon": "small"}, "epsilon 1e-07"),
    ({"nnx_enabled": True}, "nnx_enabled false"),
    ({"backend": "torch"}, "backend must be tensorflow or jax"),
    ({"backend": "tensorflwo"}, "backend must be tensorflow or jax"),
    ({"backend": None}, "backend must be tensorflow or jax"),
    ([1], "must be a JSON object"),
    ("{not json", "must be a JSON object"),
    ("", "must be a JSON object"),
]


def keras_home(folder: Path, settings: object) -> Path:
    text = settings if isinstance(settings, str) else json.dumps(settings)
    folder.mkdir()
    (folder / "keras.json").write_text(text)
    return folder


@pytest.mark.parametrize(("settings", "message"), UNUSABLE)
def test_a_file_that_keras_cannot_start_with_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: object, message: str
) -> None:
    home = keras_home(tmp_path / "home", settings)
    monkeypatch.setenv("KERAS_HOME", str(home))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    result = btkeras("train", "--data", "phantom", "--out", tmp_path / "run")
    assert result.exit_code == 2 and message in result.stderr and str(home / "keras.json") in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("KERAS_BACKEND", value) for value in ("torch", "numpy", "openvino", "Tensorflow", "jacks")],
        *[("KERAS_MAX_EPOCHS", value) for value in ("3", "many", "")],
        ("KERAS_MAX_STEPS_PER_EPOCH", "1"),
        ("KERAS_NNX_ENABLED", "True"),
        ("TF_USE_LEGACY_KERAS", "1"),
    ],
)
def test_so_is_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    for command in (("train", "--data", "phantom"), ("cv", "--data", "phantom")):
        result = btkeras(*command, "--out", tmp_path / "run")
        assert result.exit_code == 2 and name in result.stderr and repr(value) in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_backend_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch, trained_run: Path) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for command in ("evaluate", "calibrate", "robustness"):
        result = btkeras(command, trained_run)
        assert result.exit_code == 2 and "backend must be installed. Received: 'jax' in KERAS_BACKEND" in result.stderr


def test_the_environment_overrides_the_file_and_defaults_are_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = {"floatx": "float32", "epsilon": 1e-07, "image_data_format": "channels_last", "other": 1}
    monkeypatch.setenv("KERAS_HOME", str(keras_home(tmp_path / "home", {**default, "backend": "torch"})))
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setenv("KERAS_NNX_ENABLED", "False")
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "0")
    require_usable_keras()


def test_a_process_of_its_own_ends_without_a_traceback(
    tmp_path: Path, shared_images: Path, exported_model: Path
) -> None:
    environment = {**os.environ, "KERAS_HOME": str(keras_home(tmp_path / "home", {"floatx": "wide"}))}

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "btkeras", *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    saved = run("predict", shared_images, "--model", exported_model)
    assert saved.returncode == 2 and saved.stderr.startswith("Error: Keras must be set to floatx"), saved.stderr
    assert run("--help").returncode == 0
