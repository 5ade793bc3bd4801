"""NaN and infinity, from a training that diverges to every command and engine that would make a diagnosis of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner, Result

from btkeras.cli import main
from btkeras.config import ExperimentConfig
from btkeras.datasets import load_dataset
from btkeras.decisions.finite import is_finite
from btkeras.errors import ModelError, RunError
from btkeras.evaluation.evaluate import load_best
from btkeras.export.network import export_network
from btkeras.inference.backends import ModelOutputs, load_backend
from btkeras.runs import Run, open_run
from btkeras.training import trainer
from btkeras.training.run_callbacks import is_better
from tests.serve_tools import PREDICT, b64, png, quarters_backend, quarters_outputs, running
from tests.test_cli import fails

Config = Callable[..., ExperimentConfig]
ENGINES = {"savedmodel": "saved_model.pb", "onnx": "model.onnx", "litert": "model.tflite"}


def btkeras(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def changed(run: Path, target: Path, change: Callable[[Any], Any]) -> Run:
    """A copy of a run whose checkpoint's weights are changed."""
    copy = open_run(shutil.copytree(run, target))
    model = load_best(copy)
    for weight in model.weights:
        weight.assign(change(np.array(weight)))
    model.save(copy.best_model)
    # As if it had been written so.
    manifest = copy.manifest()
    manifest.get("files", {}).pop("best.keras", None)
    copy.manifest_file.write_text(json.dumps(manifest))
    return copy


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        (("optimizer.learning_rate=1e9", "schedule.warmup_epochs=0"), "add schedule.warmup_epochs."),
        (("optimizer.learning_rate=1e30", "optimizer.name=sgd"), r"lower optimizer.learning_rate \(1e\+30\)."),
        (
            ("optimizer.learning_rate=1e30", "train.precision=mixed_bfloat16"),
            "use train.precision=float32 in place of mixed_bfloat16.",
        ),
        (("optimizer.learning_rate=1e20", "optimizer.ema=0.9"), r"lower optimizer.learning_rate \(1e\+20\)."),
    ],
)
def test_a_training_that_diverges_leaves_no_checkpoint_and_fitting_advice(
    tmp_path: Path, shared_images: Path, tiny_config: Config, settings: tuple[str, ...], advice: str
) -> None:
    with pytest.raises(RunError, match=rf"must stay finite\. .*in epoch [123].* {advice}$") as caught:
        trainer.train(tiny_config(*settings), load_dataset(shared_images), tmp_path / "run")
    run = Run(tmp_path / "run")
    if "no checkpoint" in str(caught.value):
        assert not run.best_model.exists()
    else:
        assert is_finite(load_best(run).variables)


def test_a_training_that_diverges_late_keeps_its_good_checkpoint_and_state(
    tmp_path: Path, shared_images: Path, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poison(self: keras.callbacks.Callback, batch: int, logs: object = None) -> None:
        # The last batch of epoch 2: its loss was still a number.
        if int(self.model.optimizer.iterations.numpy()) == 8:
            weight = self.model.weights[0]
            weight.assign(np.full(weight.shape, np.inf))

    monkeypatch.setattr(trainer.ProgressLine, "on_train_batch_end", poison)
    with pytest.raises(RunError, match=r"finite.*epoch 2; .* keeps the checkpoint of epoch 1\."):
        trainer.train(tiny_config(), load_dataset(shared_images), tmp_path / "run")
    run = Run(tmp_path / "run")
    assert is_finite(load_best(run).variables)
    with np.load(run.state_file) as state:
        assert is_finite(state[name] for name in state.files if name != "progress")


def test_metrics_that_are_not_finite_are_never_the_best() -> None:
    good, bad = {"accuracy": 0.1, "loss": 9.0}, {"accuracy": 0.9, "loss": float("nan")}
    assert not is_better(bad, {}, "val_accuracy") and not is_better(bad, good, "val_accuracy")
    assert not is_better({"accuracy": 0.9, "loss": float("inf")}, {}, "val_loss")
    assert is_better(good, {}, "val_loss")


@pytest.fixture(scope="module")
def nan_run(calibrated_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of before this was checked."""
    return changed(calibrated_run, tmp_path_factory.mktemp("nan") / "run", lambda weight: weight * np.nan)


@pytest.mark.parametrize("command", ["predict", "evaluate", "calibrate", "export", "robustness", "shortcuts"])
def test_no_command_takes_weights_that_are_not_finite(
    nan_run: Run, shared_images: Path, tmp_path: Path, command: str
) -> None:
    image = next(shared_images.glob("*/*.png"))
    arguments = {
        "predict": (image, "--model", nan_run.path),
        "export": (nan_run.path, "--out", tmp_path / "model"),
        "shortcuts": (shared_images, "--model", nan_run.path),
    }.get(command, (nan_run.path,))
    result = btkeras(command, *arguments)
    fails(result, "A model's weights must be finite numbers", "best.keras")
    assert "nan" not in result.stdout and not (tmp_path / "model").exists()


def test_a_network_whose_outputs_overflow_is_refused(calibrated_run: Path, shared_images: Path, tmp_path: Path) -> None:
    run = changed(calibrated_run, tmp_path / "run", lambda weight: weight * np.float32(1e18))
    for command in ("evaluate", "calibrate"):
        fails(btkeras(command, run.path), "A model's outputs must be finite numbers", "best.keras")
    result = btkeras("predict", next(shared_images.glob("*/*.png")), "--model", run.path, "--csv")
    assert result.exit_code == 1 and "outputs must be finite" in result.stderr
    assert len(result.stdout.splitlines()) == 1, "a header, no row"
    with pytest.raises(ModelError, match="outputs must be finite"):
        export_network(run).checkpoint.predict(np.full((1, 32, 32, 1), 200, np.uint8))


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_refuses_outputs_that_are_not_finite(
    exported_formats: Path, calibrated_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """Of a network with a bad bias before the softmax; TensorFlow's ReLU makes 0 of NaN, which hides earlier ones."""
    version = shutil.copytree(exported_formats, tmp_path / "1")
    weights = map(np.asarray, export_network(open_run(calibrated_run)).reparameterized.weights)
    bias = next(weight for weight in weights if weight.shape == (4,))
    if engine == "savedmodel":
        load = tf.saved_model.load
        monkeypatch.setattr(tf.saved_model, "load", lambda path: _poisoned(load(path), bias))
    else:
        file, data = version / ENGINES[engine], (version / ENGINES[engine]).read_bytes()
        assert data.count(bias.tobytes()) >= 1
        file.write_bytes(data.replace(bias.tobytes(), np.full_like(bias, np.nan).tobytes()))
    backend = load_backend(version / ENGINES[engine])
    with pytest.raises(ModelError, match=rf"outputs must be finite numbers.*{ENGINES[engine]}"):
        backend.predict(np.zeros((1, 32, 32, 1), np.uint8))


def _poisoned(loaded: Any, bias: np.ndarray) -> Any:
    handles = [each for each in loaded.signatures["serving_prepared"].captured_inputs if each.dtype == tf.resource]
    same = [
        handle
        for handle in handles
        if np.array_equal(tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32), bias)
    ]
    for handle in same:
        tf.raw_ops.AssignVariableOp(resource=handle, value=np.full_like(bias, np.nan))
    assert same
    return loaded


def test_the_server_says_what_failed_and_sends_no_nan(caplog: pytest.LogCaptureFixture) -> None:
    def predict(pixels: np.ndarray) -> ModelOutputs:
        probabilities, scores = quarters_outputs(pixels)
        return ModelOutputs(np.where(pixels.max() > 250, np.nan, probabilities), scores)

    white = png(np.full((40, 40), 255, np.uint8))
    with running(quarters_backend(predict=predict)) as (client, _):
        response = client.post(PREDICT, json={"instances": [b64(white)]})
    assert response.status_code == 500
    assert response.json() == {"error": "A model's outputs must be finite numbers; the server's log says more"}
