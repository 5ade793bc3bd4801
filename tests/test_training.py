"""Training through its public functions, on a tiny network."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from btkeras.checksums import record_files
from btkeras.config import ExperimentConfig, ScheduleConfig
from btkeras.config_io import load_config
from btkeras.datasets import load_dataset
from btkeras.errors import DataError, ModelError, RunError
from btkeras.evaluation.evaluate import evaluate_split, load_best
from btkeras.logging import duration
from btkeras.models import build_model
from btkeras.runs import Run, open_run
from btkeras.training import device, trainer
from btkeras.training.device import dtype_policy, measure_bfloat16_speedup, resolve_precision
from btkeras.training.optimizers import make_optimizer
from btkeras.training.run_callbacks import is_better
from btkeras.training.schedules import Schedule
from tests.conftest import TINY

Config = Callable[..., ExperimentConfig]


def history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def weights(run: Path) -> list[np.ndarray]:
    return load_best(open_run(run)).get_weights()


def test_a_run_folder_explains_itself(trained_run: Path) -> None:
    names = {path.name for path in trained_run.iterdir()}
    assert names == {
        *("config.yaml", "splits.json", "manifest.json", "history.csv", "metrics.json", "predictions.csv"),
        *("best.keras", "last", "tensorboard", "decisions.csv", "near_duplicates.csv", ".lock", "images.csv"),
    }
    manifest = json.loads((trained_run / "manifest.json").read_text())
    assert manifest["classes"] == ["glioma", "meningioma", "no_tumor", "pituitary"]
    assert manifest["versions"]["keras"] == keras.__version__
    assert {"device", "precision", "seeds", "git_revision", "training_seconds", "dataset"} <= set(manifest)


def test_the_tiny_network_learns_what_is_there_to_learn(trained_run: Path) -> None:
    assert json.loads((trained_run / "metrics.json").read_text())["accuracy"] > 0.8


def test_the_best_checkpoint_is_the_best_epoch_of_the_history(trained_run: Path) -> None:
    rows = history(trained_run)
    best = max(rows, key=lambda row: (float(row["val_accuracy"]), -float(row["val_loss"])))
    assert json.loads((trained_run / "manifest.json").read_text())["best_epoch"] == int(best["epoch"])


def test_the_best_checkpoint_gives_the_validation_accuracy_of_its_epoch(trained_run: Path) -> None:
    best = json.loads((trained_run / "manifest.json").read_text())["best_epoch"]
    metrics = evaluate_split(open_run(trained_run), "validation")
    assert metrics["accuracy"] == pytest.approx(float(history(trained_run)[best - 1]["val_accuracy"]))


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory: pytest.TempPathFactory, shared_images: Path) -> Path:
    """A run of one epoch; read only."""
    out = tmp_path_factory.mktemp("one_epoch") / "run"
    return trainer.train(load_config(None, (*TINY, "train.epochs=1")), load_dataset(shared_images), out).path


@pytest.fixture
def own_run(tmp_path: Path, one_epoch: Path) -> Run:
    """A copy of that run for a test that changes it."""
    return Run(Path(shutil.copytree(one_epoch, tmp_path / "run")))


def test_the_same_seed_gives_the_same_run_whether_precision_was_measured_or_not(
    tmp_path: Path, one_epoch: Path, shared_images: Path, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured() -> float:
        keras.layers.Dense(3).build((None, 3))
        return 1.0

    monkeypatch.setattr(device, "gpu_capability", lambda: None)
    monkeypatch.setattr(device, "has_instructions", lambda name: True)
    monkeypatch.setattr(device, "measure_bfloat16_speedup", measured)
    config = tiny_config("train.precision=auto", "train.epochs=1")
    trainer.train(config, load_dataset(shared_images), tmp_path / "auto")
    assert history(tmp_path / "auto") == history(one_epoch)
    assert all(np.array_equal(x, y) for x, y in zip(weights(tmp_path / "auto"), weights(one_epoch), strict=True))


def test_another_seed_gives_another_run(
    tmp_path: Path, one_epoch: Path, shared_images: Path, tiny_config: Config
) -> None:
    trainer.train(tiny_config("train.epochs=1", "train.seed=1"), load_dataset(shared_images), tmp_path / "run")
    assert history(tmp_path / "run") != history(one_epoch)


def test_an_interrupted_and_resumed_run_equals_the_uninterrupted_one(
    tmp_path: Path, shared_images: Path, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load_dataset(shared_images)
    config = tiny_config("optimizer.name=sgd", "optimizer.ema=0.9", "train.label_smoothing=0.1")
    trainer.train(config, dataset, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(trainer.ProgressLine, "on_train_batch_end", _interrupt_in_second_epoch)
        with pytest.raises(trainer.Interrupted, match=r"1 of 3 epochs.*--resume --out"):
            trainer.train(config, dataset, tmp_path / "cut")
    trainer.resume(tmp_path / "cut", config)
    assert (tmp_path / "cut/history.csv").read_bytes() == (tmp_path / "whole/history.csv").read_bytes()
    pairs = zip(weights(tmp_path / "cut"), weights(tmp_path / "whole"), strict=True)
    assert all(np.array_equal(x, y) for x, y in pairs)


def _interrupt_in_second_epoch(self: keras.callbacks.Callback, batch: int, logs: object = None) -> None:
    if int(self.model.optimizer.iterations.numpy()) == 6:
        raise KeyboardInterrupt


def test_an_epoch_in_one_call_gives_the_run_of_single_steps(
    tmp_path: Path, one_epoch: Path, shared_images: Path, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, which the processor stands in for."""
    monkeypatch.setattr(device, "accelerators", lambda: tf.config.list_logical_devices("CPU"))
    assert [device.steps_per_call(steps) for steps in (45, 400, 211)] == [45, 200, 1]
    run = trainer.train(tiny_config("train.epochs=1"), load_dataset(shared_images), tmp_path / "run")
    assert history(run.path) == history(one_epoch)
    assert all(np.array_equal(a, b) for a, b in zip(weights(run.path), weights(one_epoch), strict=True))


def test_the_schedule_reaches_the_optimizer(trained_run: Path) -> None:
    rates = [float(row["learning_rate"]) for row in history(trained_run)]
    assert rates[0] == pytest.approx(0.01) and rates == sorted(rates, reverse=True) and rates[-1] < 1e-4


def test_averaged_weights_differ_from_the_raw_ones(
    tmp_path: Path, one_epoch: Path, shared_images: Path, tiny_config: Config
) -> None:
    averaged = tmp_path / "averaged"
    trainer.train(tiny_config("optimizer.ema=0.9", "train.epochs=1"), load_dataset(shared_images), averaged)
    assert not all(np.array_equal(x, y) for x, y in zip(weights(one_epoch), weights(averaged), strict=True))
    # The training itself is the same: only the validated and saved weights differ.
    assert history(averaged)[0]["loss"] == history(one_epoch)[0]["loss"]


def test_batch_statistics_are_averaged_as_long_as_the_weights(
    tmp_path: Path, shared_images: Path, tiny_config: Config
) -> None:
    config = tiny_config("optimizer.ema=0.99", "train.epochs=1")
    run = trainer.train(config, load_dataset(shared_images), tmp_path / "run")
    moving = [v for v in load_best(run).variables if v.name == "moving_variance"]
    # They begin at 1; a step leaves 0.99 of that, or 0.9 without averaging.
    assert moving and all(v.numpy().min() > 0.9 for v in moving)


def test_early_stopping_ends_the_run_and_resuming_it_changes_nothing(
    tmp_path: Path, shared_images: Path, tiny_config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "btkeras")
    config = tiny_config("train.early_stopping=1", "train.epochs=9", "optimizer.learning_rate=1e-12")
    out = tmp_path / "run"
    trainer.train(config, load_dataset(shared_images), out)
    rows = history(out)
    assert len(rows) < 9
    trainer.resume(out)
    assert history(out) == rows and "finished already" in caplog.text


def test_weight_decay_spares_biases_and_normalization(shared_images: Path, tiny_config: Config) -> None:
    config, model = tiny_config(), build_model("tiny", input_shape=(32, 32, 1))
    optimizer = make_optimizer(config.optimizer, Schedule(config.optimizer.learning_rate, config.schedule, 1, 1), model)
    optimizer.build(model.trainable_variables)
    decayed = {v.path for v in model.trainable_variables if optimizer._use_weight_decay(v)}
    assert decayed == {v.path for v in model.trainable_variables if v.path.endswith("kernel")}


@pytest.mark.parametrize("policy", ["mixed_float16", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)])
def test_mixed_precision_trains_and_keeps_a_float32_model(
    tmp_path: Path, shared_images: Path, tiny_config: Config, policy: str
) -> None:
    run = trainer.train(
        tiny_config(f"train.precision={policy}", "train.epochs=1"), load_dataset(shared_images), tmp_path / "run"
    )
    model = load_best(run)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert all(variable.dtype == "float32" for variable in model.variables)
    assert run.manifest()["precision"] == policy


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_every_optimizer_does_without_weight_decay(name: str, tiny_config: Config) -> None:
    config = tiny_config(f"optimizer.name={name}", "optimizer.weight_decay=0").optimizer
    model = build_model("tiny", input_shape=(32, 32, 1))
    assert not make_optimizer(config, Schedule(1e-3, ScheduleConfig(), epochs=1, steps=1), model).weight_decay


def test_mixed_float16_scales_the_loss(tiny_config: Config) -> None:
    with dtype_policy("mixed_float16"):
        model = build_model("tiny", input_shape=(32, 32, 1))
        model.compile("adam", "categorical_crossentropy")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)


def test_the_dtype_policy_is_restored_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), dtype_policy("mixed_bfloat16"):
        raise ZeroDivisionError
    assert keras.config.dtype_policy().name == "float32"


def test_auto_precision_measures_only_where_the_processor_has_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "gpu_capability", lambda: None)
    monkeypatch.setattr(device, "has_instructions", lambda name: False)
    monkeypatch.setattr(device, "measure_bfloat16_speedup", lambda: pytest.fail("measured"))
    assert resolve_precision("auto")["precision"] == "float32"
    monkeypatch.setattr(device, "has_instructions", lambda name: True)
    for speedup, policy in ((1.05, "float32"), (1.5, "mixed_bfloat16")):
        monkeypatch.setattr(device, "measure_bfloat16_speedup", lambda speedup=speedup: speedup)
        assert resolve_precision("auto")["precision"] == policy


@pytest.mark.parametrize(
    ("capability", "policy"), [((9, 0), "mixed_bfloat16"), ((7, 5), "mixed_float16"), ((6, 1), "float32")]
)
def test_auto_precision_follows_the_gpus_capability(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], policy: str
) -> None:
    monkeypatch.setattr("btkeras.training.device.gpu_capability", lambda: capability)
    assert resolve_precision("auto")["precision"] == policy


def test_the_self_measurement_gives_a_ratio() -> None:
    assert 0.01 < measure_bfloat16_speedup(rounds=1) < 100


def test_a_run_that_exists_is_left_alone(trained_run: Path, shared_images: Path, tiny_config: Config) -> None:
    before = (trained_run / "config.yaml").read_bytes()
    with pytest.raises(RunError, match=r"exists.*--resume"):
        trainer.train(tiny_config(), load_dataset(shared_images), trained_run)
    assert (trained_run / "config.yaml").read_bytes() == before


def test_broken_images_stop_the_run_before_its_folder_appears(
    tmp_path: Path, image_folder: Path, tiny_config: Config
) -> None:
    (image_folder / "glioma/003.png").write_bytes(b"")
    (image_folder / "no_tumor/001.png").write_text("not an image")
    with pytest.raises(DataError, match=r"2 broken(.|\n)*003.png(.|\n)*001.png(.|\n)*--skip-broken"):
        trainer.train(tiny_config(), load_dataset(image_folder), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_skipped_images_are_recorded_and_stay_out(tmp_path: Path, image_folder: Path, tiny_config: Config) -> None:
    for path in sorted((image_folder / "glioma").iterdir())[:4]:
        path.write_bytes(path.read_bytes()[:60])
    run = trainer.train(tiny_config("train.epochs=1"), load_dataset(image_folder), tmp_path / "run", skip_broken=True)
    recorded = {item["path"] for item in run.manifest()["broken"]}
    assert recorded == {f"glioma/{i:03d}.png" for i in range(4)}
    split = run.split(load_dataset(image_folder))
    assert not recorded & {record.path for subset in ("train", "validation", "test") for record in split.subset(subset)}


def test_a_resumed_run_keeps_its_configuration(trained_run: Path, tiny_config: Config) -> None:
    with pytest.raises(RunError, match=r"optimizer\.learning_rate"):
        trainer.resume(trained_run, tiny_config("train.epochs=10", "optimizer.learning_rate=0.5"))


def test_a_changed_dataset_cannot_be_resumed(own_run: Run, image_folder: Path) -> None:
    own_run.use_dataset(load_dataset(image_folder))
    (image_folder / "glioma/000.png").rename(image_folder / "glioma/new.png")
    with pytest.raises(DataError, match=r"glioma/000\.png is missing"):
        trainer.resume(own_run.path)


def test_a_finished_run_of_an_older_revision_is_known_as_such(tmp_path: Path, trained_run: Path) -> None:
    shutil.copytree(trained_run, tmp_path / "run")
    run = open_run(tmp_path / "run")
    manifest = {key: value for key, value in run.manifest().items() if key != "images_per_epoch"}
    run.manifest_file.write_text(json.dumps(manifest))
    trainer.resume(run.path)
    assert run.manifest()["training_images_per_second"] is None


def test_a_dataset_that_has_moved_is_found_again(
    tmp_path: Path, trained_run: Path, shared_images: Path, image_folder: Path
) -> None:
    shutil.copytree(trained_run, tmp_path / "run")
    shutil.copytree(shared_images, tmp_path / "moved")
    run = open_run(tmp_path / "run")
    run.use_dataset(load_dataset(tmp_path / "moved"))
    assert run.dataset().root == (tmp_path / "moved").resolve()
    (image_folder / "glioma/000.png").rename(image_folder / "glioma/new.png")
    with pytest.raises(DataError, match=r"glioma/000\.png is missing"):
        run.use_dataset(load_dataset(image_folder))


def test_the_state_of_another_network_is_refused(own_run: Run) -> None:
    config = own_run.path / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 1\n", "epochs: 2\n").replace("name: adamw", "name: sgd"))
    state = own_run.state_file
    with np.load(state) as arrays:
        progress = str(arrays["progress"]).replace('"finished": true', '"finished": false')
        np.savez(state, **{**arrays, "progress": np.array(progress)})
    record_files(own_run.path, [config, state])
    with pytest.raises(RunError, match="must belong to this network and optimizer"):
        trainer.resume(own_run.path)


def test_a_damaged_state_is_one_message(own_run: Run) -> None:
    own_run.state_file.write_bytes(b"PK\x03\x04 but no more")
    with pytest.raises(RunError, match=r"state\.npz must be as it was written"):
        trainer.resume(own_run.path)


def test_a_diverging_training_says_so(tmp_path: Path, shared_images: Path, tiny_config: Config) -> None:
    config = tiny_config("optimizer.name=sgd", "optimizer.learning_rate=1e30", "schedule.warmup_epochs=0")
    with pytest.raises(RunError, match=r"loss must stay finite.*learning_rate"):
        trainer.train(config, load_dataset(shared_images), tmp_path / "run")


def test_the_checkpoint_of_another_network_is_refused(own_run: Run) -> None:
    build_model("tiny", input_shape=(40, 40, 3)).save(own_run.best_model)
    record_files(own_run.path, [own_run.best_model])
    with pytest.raises(ModelError, match=r"must be the network of its run"):
        load_best(own_run)
    own_run.best_model.write_bytes(b"no checkpoint")
    record_files(own_run.path, [own_run.best_model])
    with pytest.raises(ModelError, match="must be a whole"):
        load_best(own_run)


def test_the_validation_figure_decides_and_the_other_breaks_ties() -> None:
    old = {"accuracy": 0.9, "loss": 0.3}
    assert is_better({"accuracy": 0.9, "loss": 0.2}, old, "val_accuracy")
    assert not is_better({"accuracy": 0.8, "loss": 0.1}, old, "val_accuracy")
    assert is_better({"accuracy": 0.8, "loss": 0.1}, old, "val_loss")
    assert not is_better(dict(old), old, "val_loss")
    rare = {"accuracy": 0.9, "macro_recall": 0.6, "loss": 0.2}
    assert is_better({"accuracy": 0.8, "macro_recall": 0.7, "loss": 0.3}, rare, "val_macro_recall")
    assert not is_better({"accuracy": 0.95, "macro_recall": 0.5, "loss": 0.1}, rare, "val_macro_recall")
    assert is_better({"accuracy": 0.8, "macro_recall": 0.6, "loss": 0.1}, rare, "val_macro_recall")


def test_durations_are_told_as_people_do() -> None:
    assert [duration(s) for s in (4.4, 100, 5340, 11_100)] == ["4 s", "2 min", "89 min", "3 h 05 min"]


def test_tensorboard_gets_scalars_images_and_hyper_parameters(trained_run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tags: dict[str, set[str]] = {}
    for subset in ("train", "validation"):
        events = EventAccumulator(str(trained_run / "tensorboard" / subset), {"tensors": 0})
        events.Reload()
        tags[subset] = set(events.Tags()["tensors"])
        if subset == "validation":
            first = events.Tensors("confusion_matrix")[0].tensor_proto
            pixels = tf.io.decode_png(tf.make_ndarray(first)[2]).numpy()
    assert {"loss", "accuracy", "learning_rate", "images_per_second", "augmented_inputs"} <= tags["train"]
    assert {"loss", "accuracy", "macro_recall", "confusion_matrix"} <= tags["validation"]
    assert pixels.ndim == 3 and pixels.std() > 10
