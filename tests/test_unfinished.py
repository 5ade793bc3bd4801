"""Runs that were stopped: every command that uses one says how far its training is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import keras
import pytest
from click.testing import CliRunner, Result

from btkeras.checksums import recorded_file
from btkeras.cli import main
from btkeras.config_io import load_config
from btkeras.datasets import load_dataset
from btkeras.experiments.experiment import Experiment
from btkeras.files import write_json
from btkeras.inference.predictor import Predictor
from btkeras.runs import Run, open_run
from btkeras.training import trainer
from tests.conftest import TINY
from tests.fake_experiment import fake_experiment, fake_run
from tests.test_cli import fails

STATE = "epoch 1 of 3, unfinished"


def btkeras(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def done(result: Result) -> Result:
    assert result.exit_code == 0, result.stderr
    return result


def _interrupt(self: keras.callbacks.Callback, batch: int, logs: object = None) -> None:
    if int(self.model.optimizer.iterations.numpy()) == 6:
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory: pytest.TempPathFactory, shared_images: Path) -> Path:
    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.ProgressLine, "on_train_batch_end", _interrupt)
        with pytest.raises(trainer.Interrupted):
            trainer.train(load_config(None, TINY), load_dataset(shared_images), out)
    return out


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Path:
    """A run that was stopped in its second epoch."""
    return shutil.copytree(stopped_once, tmp_path / "stopped")


@pytest.mark.parametrize("command", ["evaluate", "calibrate", "robustness", "shortcuts", "report", "card"])
def test_what_must_wait_for_the_end_is_an_error(stopped: Path, shared_images: Path, command: str) -> None:
    arguments = (shared_images, "--model", stopped) if command == "shortcuts" else (stopped,)
    result = btkeras(command, *arguments)
    fails_with_state = (STATE, f"btkeras train --resume --out {stopped}")
    assert result.exit_code == 1 and result.stdout == ""
    assert all(words in result.stderr for words in fails_with_state), result.stderr
    assert not Run(stopped).metrics_file.exists()


def test_predict_and_export_go_on_and_say_it(
    stopped: Path, shared_images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image, model = next(shared_images.glob("*/*.png")), tmp_path / "model"
    assert f"{STATE}\n" in done(btkeras("predict", image, "--model", stopped)).stderr
    assert f"{STATE}\n" in done(btkeras("export", stopped, "--out", model)).stderr
    extra = model / "1/assets.extra"
    assert json.loads((extra / "manifest.json").read_text())["unfinished"] == STATE
    assert STATE in (extra / "model_card.md").read_text()
    result = done(btkeras("predict", image, "--model", model))
    assert result.stderr.count(STATE) == 1 and STATE not in result.stdout
    caplog.clear()
    Predictor(model).predict([image])
    assert STATE in caplog.text


def test_the_test_subset_is_looked_at_early_only_on_demand_and_then_marked_until_it_is_tested_again(
    stopped: Path, tmp_path: Path
) -> None:
    assert STATE in done(btkeras("evaluate", stopped, "--split", "validation")).stderr
    metrics = json.loads(done(btkeras("evaluate", stopped, "--unfinished", "--json")).stdout)
    assert metrics["unfinished"] == STATE
    report, card = tmp_path / "report.md", tmp_path / "card.md"
    done(btkeras("report", stopped, "--out", report))
    # In the summary's warning, and in the table of models.
    assert report.read_text().count(STATE) == 2
    done(btkeras("card", stopped, "--out", card))
    assert f"**Warning:** tiny: {STATE}" in card.read_text()
    # The training ends, and is killed before its test: the metrics are still the early ones.
    trainer.resume(stopped)
    assert not open_run(stopped).unfinished()
    done(btkeras("card", stopped, "--out", card))
    assert STATE in card.read_text()
    assert "unfinished" not in done(btkeras("evaluate", stopped)).stderr
    done(btkeras("card", stopped, "--out", card))
    assert "unfinished" not in card.read_text()


def test_finished_runs_say_nothing(trained_run: Path, shared_images: Path, tmp_path: Path) -> None:
    result = done(btkeras("predict", next(shared_images.glob("*/*.png")), "--model", trained_run))
    done(btkeras("card", trained_run, "--out", tmp_path / "card.md"))
    assert "unfinished" not in result.stderr + (tmp_path / "card.md").read_text()


def test_a_fold_that_was_tested_early_is_not_finished(tmp_path: Path, shared_images: Path) -> None:
    dataset = load_dataset(shared_images)
    experiment: Experiment = fake_experiment(
        tmp_path / "cv", dataset, "cv.models=[resnet34]", "cv.folds=2", "train.epochs=36"
    )
    job = experiment.jobs()[1]
    run = experiment.run(job)
    whole = run.manifest()
    begun = {key: value for key, value in whole.items() if key != "epochs"} | {"images_per_epoch": 24}
    run.manifest_file.write_text(json.dumps(begun))
    assert not experiment.is_finished(job)
    fails(
        btkeras("report", experiment.path),
        r"1 of 2 folds unfinished \(resnet34, seed 0, fold 1: epoch 6 of 36, unfinished\)",
        f"btkeras cv --resume --out {experiment.path}",
    )
    # Trained to its end since, and not tested again.
    run.manifest_file.write_text(json.dumps(whole))
    assert experiment.is_finished(job)
    write_json(run.metrics_file, run.metrics() | {"unfinished": "epoch 6 of 36, unfinished"}, recorded_file)
    assert not experiment.is_finished(job)
    fails(btkeras("report", experiment.path), r"fold 1: not tested yet")


def test_runs_of_before_and_classical_models_are_finished(tmp_path: Path, shared_images: Path) -> None:
    dataset = load_dataset(shared_images)
    assert fake_run(tmp_path / "network", dataset).unfinished() == ""
    assert fake_run(tmp_path / "lbp", dataset, "model.name=lbp_knn").unfinished() == ""
