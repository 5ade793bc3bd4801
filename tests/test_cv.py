"""Cross-validation: its folder, its jobs, what is left after a kill, and its summary."""

from __future__ import annotations

import csv
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest
from sklearn.metrics import accuracy_score

from btkeras.config_io import load_config
from btkeras.datasets import load_dataset
from btkeras.errors import ConfigError, ModelError, RunError
from btkeras.experiments import executors
from btkeras.experiments.experiment import (
    Experiment,
    Job,
    create_experiment,
    cross_validate,
    open_experiment,
    unfinished,
    write_summary,
)
from btkeras.experiments.single_run import check_models, run_job
from btkeras.experiments.summary_text import summary_table
from btkeras.training import trainer
from tests.cli_with_tiny import COMMAND
from tests.conftest import CLASSES, TINY
from tests.fake_experiment import fake_experiment
from tests.test_cli import btkeras, fails

ROOT = Path(__file__).parents[1]
CV = (*TINY, "train.epochs=2", "cv.models=[tiny, tiny_plain]", "cv.folds=2")


def in_this_process(experiment: Experiment, jobs: Sequence[Job]) -> None:
    for job in jobs:
        run_job(experiment, job.index)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, shared_images: Path) -> Experiment:
    """Two networks, two folds; read only."""
    folder = tmp_path_factory.mktemp("cv") / "experiment"
    experiment = create_experiment(folder, load_config(None, CV), load_dataset(shared_images))
    cross_validate(experiment, in_this_process)
    return experiment


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def settings(*overrides: str) -> list[str]:
    return [word for setting in overrides for word in ("--set", setting)]


def test_every_image_is_tested_once_by_each_network(finished: Experiment, shared_images: Path) -> None:
    everything = [record.path for record in load_dataset(shared_images).records]
    for model in ("tiny", "tiny_plain"):
        files = sorted(finished.path.glob(f"{model}/fold_*/predictions.csv"))
        assert len(files) == 2
        tested = Counter(row["path"] for file in files for row in rows(file))
        assert tested == Counter(everything)


def test_the_summary_is_what_scikit_learn_says_of_the_predictions(finished: Experiment) -> None:
    summary = json.loads(finished.summary_file.read_text())
    assert summary["protocol"] == {
        "group_by": "image",
        "test": "rotating",
        "folds": 2,
        "seeds": [0],
        "split_seed": 0,
        "models": ["tiny", "tiny_plain"],
    }
    for model, entry in summary["models"].items():
        folds = [rows(finished.path / model / f"fold_{fold}" / "predictions.csv") for fold in (0, 1)]
        each = [accuracy_score([r["label"] for r in fold], [r["prediction"] for r in fold]) for fold in folds]
        assert entry["mean"]["accuracy"] == pytest.approx(np.mean(each))
        assert entry["std"]["accuracy"] == pytest.approx(np.std(each, ddof=1))
        assert entry["pooled"]["images"] == 12 * len(CLASSES)
        assert entry["parameters"] > entry["trainable_parameters"] > 0 < entry["macs"]
    assert len(summary["comparisons"]) == 1


def test_the_table_shows_every_network_and_what_the_comparison_says(finished: Experiment) -> None:
    summary = json.loads(finished.summary_file.read_text())
    table = summary_table(summary)
    assert "tiny_plain" in table and summary["comparisons"][0]["conclusion"] in table


def test_runs_say_their_fold_and_share_precision_and_splits(finished: Experiment) -> None:
    for job in finished.jobs():
        run = finished.run(job)
        assert run.manifest()["fold"] == job.fold
        assert run.config().model.name == job.model
        assert run.splits_file.read_bytes() == finished.splits_file(job.fold).read_bytes()


def test_a_finished_fold_keeps_no_optimizer_and_is_known_to_be_finished(finished: Experiment) -> None:
    run = finished.run(finished.jobs()[0])
    with np.load(run.state_file) as state:
        assert state.files == ["progress"]
    before = run.history_file.read_bytes()
    trainer.resume(run.path)
    assert run.history_file.read_bytes() == before


def test_a_finished_experiment_is_left_alone(finished: Experiment) -> None:
    before = {file: file.stat().st_mtime_ns for file in finished.path.rglob("*.keras")}
    summary = finished.summary_file.read_bytes()

    def refuse(experiment: Experiment, jobs: Sequence[Job]) -> None:
        raise AssertionError(f"{jobs} were to be done again")

    cross_validate(finished, refuse)
    for job in finished.jobs():
        run_job(finished, job.index)
    assert finished.summary_file.read_bytes() == summary
    assert before == {file: file.stat().st_mtime_ns for file in finished.path.rglob("*.keras")}


def test_what_is_kept_of_it_can_be_reported_and_gone_on_with(
    tmp_path: Path, finished: Experiment, shared_images: Path
) -> None:
    keep = runpy.run_path(str(ROOT / "scripts/keep_results.py"))["keep"]
    kept = tmp_path / "kept"
    assert keep(finished, kept) == 4
    suffixes = {file.suffix for file in kept.rglob("*") if file.is_file()}
    assert suffixes == {".yaml", ".json", ".csv"}
    texts = [file.read_text() for file in kept.rglob("*") if file.is_file()]
    assert not any(str(path) in text for text in texts for path in (finished.path, shared_images))
    reported = btkeras("report", kept, "--out", tmp_path / "report.json")
    assert reported.exit_code == 0, reported.output
    # One fold is missing, and the dataset is elsewhere now.
    shutil.rmtree(kept / "tiny_plain/fold_0")
    (kept / "summary.json").unlink()
    shutil.copytree(shared_images, tmp_path / "moved")
    lost = btkeras("cv", "--out", kept, "--task", "1")
    fails(lost, "dataset must still be where it was", "--data DATASET")
    again = open_experiment(kept)
    again.use_dataset(load_dataset(tmp_path / "moved"))
    cross_validate(again, in_this_process)
    assert again.summary_file.read_bytes() == finished.summary_file.read_bytes()


def test_another_dataset_is_not_taken_for_one_that_has_moved(finished: Experiment, image_folder: Path) -> None:
    (image_folder / "glioma/000.png").unlink()
    fails(
        btkeras("cv", "--resume", "--data", image_folder, "--out", finished.path), "must be the one that", "is missing"
    )


def test_a_job_that_is_not_there_and_settings_that_differ_are_refused(finished: Experiment) -> None:
    fails(btkeras("cv", "--out", finished.path, "--task", "4"), "must be 0 to 3", "Received: 4")
    fails(btkeras("cv", "--out", finished.path, "--plan"), "which exists", "--resume")
    other = btkeras("cv", "--out", finished.path, "--resume", "--folds", "3", "--set", "train.epochs=2")
    fails(other, r"Received: another cv\.folds\.")


def test_seeds_get_folders_of_their_own_and_count_images_once(tmp_path: Path, shared_images: Path) -> None:
    dataset = load_dataset(shared_images)
    experiment = fake_experiment(tmp_path / "cv", dataset, "cv.models=[vgg16]", "cv.folds=2", "cv.seeds=[0, 7]")
    summary = json.loads(experiment.summary_file.read_text())
    assert {path.name for path in (experiment.path / "vgg16").iterdir()} == {"seed_0", "seed_7"}
    assert [experiment.run(job).config().train.seed for job in experiment.jobs()] == [0, 0, 7, 7]
    assert summary["bootstrap"]["images"] == 12 * len(CLASSES)
    assert summary["models"]["vgg16"]["pooled"]["images"] == 2 * 12 * len(CLASSES)


def test_changes_reach_one_network_only(tmp_path: Path, shared_images: Path) -> None:
    config = load_config(None, (*CV, "cv.overrides={tiny: [optimizer.learning_rate=0.5, train.epochs=1]}"))
    check_models(config)
    experiment = create_experiment(tmp_path / "cv", config, load_dataset(shared_images))
    rates = {job.model: experiment.config_of(job).optimizer.learning_rate for job in experiment.jobs()}
    assert rates == {"tiny": 0.5, "tiny_plain": config.optimizer.learning_rate}


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("cv.models=[resnet43]", ModelError, "Did you mean 'resnet34'"),
        ("cv.overrides={vgg161: [train.epochs=1]}", ModelError, "Did you mean 'vgg16'"),
        ("cv.overrides={tiny: [train.epoch=1]}", ConfigError, "Did you mean 'epochs'"),
        ("cv.overrides={tiny: [model.weights=imagenet]}", ModelError, "Weights, of ImageNet or from a file"),
        ("cv.models=[tiny, tiny]", ConfigError, "each once"),
        ("cv.seeds=[]", ConfigError, "at least one seed"),
        ("cv.folds=1", ConfigError, "between 2 and 1000"),
        ("cv.models=tiny", ConfigError, "cv.models must be a list"),
        ("cv.overrides=[tiny]", ConfigError, "cv.overrides must be a section"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_read(
    override: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_models(load_config(None, (*CV, override)))


def test_an_unfinished_experiment_has_no_summary(tmp_path: Path, shared_images: Path) -> None:
    experiment = create_experiment(tmp_path / "cv", load_config(None, CV), load_dataset(shared_images))
    assert len(unfinished(experiment)) == 4
    with pytest.raises(RunError, match=r"4 of 4 folds unfinished \(tiny, seed 0, fold 0\).*cv --resume"):
        write_summary(experiment)
    with pytest.raises(RunError, match=r"another train\.epochs"):
        open_experiment(experiment.path, load_config(None, (*CV, "train.epochs=9")))


def test_the_plan_makes_the_folder_and_says_what_is_left(tmp_path: Path, shared_images: Path) -> None:
    out = tmp_path / "cv"
    made = btkeras("cv", "--data", shared_images, "--out", out, *settings(*CV), "--plan")
    assert made.exit_code == 0, made.output
    assert next(line.split()[:3] for line in made.stdout.splitlines()) == ["0", "to", "do"]
    assert len(made.stdout.splitlines()) == 4
    fails(btkeras("cv", "--data", shared_images, "--out", out, *settings(*CV)), "which exists", "--resume")
    run_job(open_experiment(out), 1)
    states = btkeras("cv", "--out", out, "--resume", "--plan").stdout.splitlines()
    assert ["finished" in line for line in states] == [False, True, False, False]


def test_bad_usage_is_one_message(tmp_path: Path, shared_images: Path) -> None:
    fails(btkeras("cv", "--out", tmp_path / "cv"), "needs --data", code=2)
    fails(btkeras("cv", "--out", tmp_path / "cv", "--task", "0"), "must hold config.yaml and splits/")
    fails(btkeras("cv", "--out", tmp_path / "cv", "--task", "0", "--seed", "7"), "but --out", code=2)
    few = btkeras("cv", "--data", shared_images, "--out", tmp_path / "cv", *settings(*CV), "--folds", "13")
    fails(few, "12 of glioma for 13 folds")
    assert not (tmp_path / "cv").exists()


def test_local_binary_patterns_are_a_model_like_any_other(tmp_path: Path, shared_images: Path) -> None:
    pytest.importorskip("skimage")
    out = tmp_path / "run"
    trained = btkeras("train", "--data", shared_images, "--out", out, *settings(*TINY), "--model", "lbp_knn")
    assert trained.exit_code == 0, trained.output
    assert f"Next: btkeras report {out}" in trained.stderr
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["accuracy"] > 0.5
    weights = btkeras(
        "train", "--data", shared_images, "--out", tmp_path / "x", "--model", "lbp_knn", "--weights", "imagenet"
    )
    fails(weights, "model.weights is for networks")
    fails(btkeras("evaluate", out), "lbp_knn, which keeps its predictions only")
    again = btkeras("train", "--resume", "--out", out)
    assert json.loads((out / "metrics.json").read_text()) == metrics, again.output


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.cli_with_tiny", "cv", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition: object, process: subprocess.Popen[str]) -> None:
    for _ in range(2400):
        if condition():  # type: ignore[operator]
            return
        if process.poll() is not None:
            pytest.fail(f"ended early: {process.communicate()[1]}")
        time.sleep(0.05)
    pytest.fail("nothing happened in 2 minutes")


@pytest.fixture
def _tiny_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of this process know the tiny networks."""
    monkeypatch.setattr(executors, "COMMAND", COMMAND)


@pytest.mark.usefixtures("_tiny_jobs")
def test_killed_with_its_job_it_finishes_with_the_same_summary(tmp_path: Path, finished: Experiment) -> None:
    out = tmp_path / "cv"
    shutil.copytree(finished.path, out)
    (out / "summary.json").unlink()
    # One job is left to do, in a process of its own.
    shutil.rmtree(out / "tiny/fold_1")
    process = start("--resume", "--out", out)
    try:
        wait_for(lambda: (out / "tiny/fold_1/history.csv").exists(), process)
        children = descendants(process)
        assert children
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        _, alive = psutil.wait_procs(children, timeout=20)
        assert not alive, "jobs must not outlive the command that started them"
        assert not (out / "summary.json").exists()
    finally:
        process.kill()
    again = btkeras("cv", "--resume", "--out", out)
    assert again.exit_code == 0, again.output
    assert "tiny, seed 0, fold 1: test accuracy" in again.stderr and "tiny_plain" in again.stdout
    assert (out / "summary.json").read_bytes() == finished.summary_file.read_bytes()


@pytest.mark.usefixtures("_tiny_jobs")
def test_a_job_that_fails_says_why(tmp_path: Path, image_folder: Path) -> None:
    (image_folder / "glioma/005.png").write_bytes(b"no image")
    failed = btkeras("cv", "--data", image_folder, "--out", tmp_path / "cv", *settings(*CV))
    fails(failed, "Every image of a dataset must be readable", "cv --resume")


def test_ctrl_c_says_how_to_go_on(tmp_path: Path, shared_images: Path) -> None:
    out = tmp_path / "cv"
    process = start("--data", shared_images, "--out", out, *settings(*CV, "train.epochs=5000"))
    wait_for(lambda: list(out.glob("*/fold_*/history.csv")), process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in stderr and f"btkeras cv --resume --out {out}" in stderr


def test_a_job_that_lost_its_interruption_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "_PATIENCE_SECONDS", 0.2)
    forgetful = """
import signal, time
times = []
def asked(*_):
    times.append(0)
    if len(times) == 2:
        raise SystemExit(3)
signal.signal(signal.SIGTERM, asked)
print("ready", flush=True)
while True:
    time.sleep(0.02)
"""
    with subprocess.Popen([sys.executable, "-c", forgetful], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        executors.stop_jobs([executors.RunningJob(Job(0, "tiny", 0, 0), 0, process)])
        assert process.returncode == 3
