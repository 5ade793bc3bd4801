"""The command line: help, exit codes, one message per failure."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from btkeras.cli import main
from tests.conftest import TINY, copied_run

ROOT = Path(__file__).parents[1]
COMMANDS = sorted(main.commands)


def btkeras(*arguments: object, stdin: str = "") -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)


def tiny() -> list[str]:
    return [word for setting in TINY for word in ("--set", setting)]


def fails(result: Result, *patterns: str, code: int = 1) -> None:
    """The contract for a failure: exit code, nothing on standard output, one message, no traceback."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for pattern in patterns:
        assert re.search(pattern, result.stderr), result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples_and_stands_in_the_readme(command: str) -> None:
    output = btkeras(command, "--help").output
    assert "Examples:" in output and f"btkeras {command}" in output
    assert f"btkeras {command}" in (ROOT / "README.md").read_text()
    assert all(p.help or isinstance(p, click.Argument) or p.name == "subset" for p in main.commands[command].params)


def test_every_command_is_in_a_section_of_the_help() -> None:
    assert sorted(re.findall("^  ([a-z]+)  ", btkeras("--help").output, re.MULTILINE)) == COMMANDS


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "--help"], ["predict", "-h"]])
def test_help_loads_neither_tensorflow_nor_keras(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom btkeras.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit as end: assert end.code == 0\n"
        "assert not {'tensorflow', 'keras', 'numpy', 'sklearn'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_folder_of_the_packages_name_beside_a_script_does_not_hide_it(tmp_path: Path) -> None:
    """As the clone's own folder."""
    (tmp_path / "btkeras/btkeras").mkdir(parents=True)
    (tmp_path / "script.py").write_text("import btkeras\nprint(btkeras.__version__)")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == version("btkeras"), done.stderr


def test_train_evaluate_predict_export_in_a_row(tmp_path: Path, shared_images: Path) -> None:
    run, image = tmp_path / "run", shared_images / "glioma/000.png"
    trained = btkeras("train", "--data", shared_images, "--out", run, *tiny(), "--set", "train.epochs=1")
    assert trained.exit_code == 0, trained.output
    assert "test accuracy" in trained.stdout and "most frequent class: 25.00 %" in trained.stdout
    assert "tensorboard --logdir" in trained.stderr and "epoch 1/1" in trained.stderr
    evaluated = btkeras("evaluate", run, "--json")
    assert json.loads(evaluated.stdout) == json.loads((run / "metrics.json").read_text())
    predicted = btkeras("predict", image, "--model", run, "--json")
    keys = {"path", "label", "probabilities", "decision", "set", "ood_percentile", "reasons", "slice", "slices"}
    keys |= {"near_duplicate"}
    assert set(json.loads(predicted.stdout)[0]) == keys
    # A training also calibrates.
    assert "calibrate" not in predicted.stderr
    exported = btkeras("export", run, "--out", tmp_path / "models/tiny", "--format", "litert")
    assert exported.stdout.strip() == str(tmp_path / "models/tiny/1")
    assert "litert: writing it" in exported.stderr and "digests and hashes" in exported.stderr


def test_predict_prints_json_csv_or_a_table(trained_run: Path, shared_images: Path, tmp_path: Path) -> None:
    good, bad = shared_images / "pituitary/002.png", tmp_path / "bad.jpg"
    bad.write_text("no image")
    common = ["predict", good, bad, "--model", trained_run]
    as_json, as_csv, table = btkeras(*common, "--json"), btkeras(*common, "--csv"), btkeras(*common)
    assert {as_json.exit_code, as_csv.exit_code, table.exit_code} == {1}
    prediction, broken = json.loads(as_json.stdout)
    assert prediction["path"] == str(good) and prediction["label"] == "pituitary"
    assert sum(prediction["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert set(broken) == {"path", "error"} and "which is text" in broken["error"]
    rows = list(csv.DictReader(io.StringIO(as_csv.stdout)))
    assert float(rows[0]["pituitary"]) == pytest.approx(prediction["probabilities"]["pituitary"])
    assert rows[1]["label"] == "" and "which is text" in rows[1]["error"]
    header, row = table.stdout.splitlines()
    assert header.split() == ["decision", "glioma", "meningioma", "no_tumor", "pituitary", "ood_percentile", "file"]
    assert str(good) in row and str(bad) in table.stderr and "1 of 2 images" in table.stderr
    # Without a row there is no header.
    assert btkeras("predict", bad, "--model", trained_run).stdout == ""


def test_predict_says_on_what_a_model_was_trained(trained_run: Path, shared_images: Path, tmp_path: Path) -> None:
    image = shared_images / "glioma/000.png"
    said = btkeras("predict", image, "--model", trained_run).stderr
    assert f"trained on: {shared_images.name}\n" in said and "warning" not in said
    run = copied_run(trained_run, shared_images, tmp_path / "run")
    run.update_manifest(dataset="/cache/phantom-0123456789ab")
    said = btkeras("predict", image, "--model", run.path).stderr
    assert "drawn images: what it says of real slices means nothing" in said


def test_predict_reads_a_list_and_says_which_model(trained_run: Path, shared_images: Path) -> None:
    paths = sorted(map(str, shared_images.glob("*/003.png")))
    result = btkeras("predict", "-", "--model", trained_run, "--json", stdin="\n".join(paths))
    assert [item["path"] for item in json.loads(result.stdout)] == paths
    assert f"model: {trained_run}" in result.stderr


def test_predict_takes_the_newest_model_where_that_is_asked_for(
    trained_run: Path, shared_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image = shared_images / "glioma/000.png"
    fails(btkeras("predict", image), "takes its pretrained model", "newest")
    fails(btkeras("predict", image, "--model", "newest"), r"saved_models/ or runs/", "btkeras train")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/mine").symlink_to(trained_run)
    assert "model: runs/mine" in btkeras("predict", image, "--model", "newest").stderr


def test_evaluate_on_another_dataset_keeps_the_runs_own_figures(
    trained_run: Path, shared_images: Path, tmp_path: Path
) -> None:
    import shutil

    run, other = tmp_path / "run", tmp_path / "other"
    shutil.copytree(trained_run, run)
    for label in ("glioma", "pituitary"):
        shutil.copytree(shared_images / label, other / label)
    before = (run / "metrics.json").read_bytes()
    result = btkeras("evaluate", run, "--data", other, "--json")
    assert json.loads(result.stdout)["images"] == 24
    assert (run / "metrics.json").read_bytes() == before
    assert (run / "evaluations/other/predictions.csv").read_text().count("\n") == 25


@pytest.mark.parametrize(
    ("arguments", "patterns", "code"),
    [
        (["train", "--out", "r"], ["--data"], 2),
        (["train", "--data", "nowhere", "--out", "r"], ["must be a folder.*nowhere"], 1),
        (["train", "--data", "x", "--out", "r", "--set", "train.epoch=1"], ["'epoch'.*Did you mean 'epochs'"], 2),
        (["train", "--data", "x", "--out", "r", "--set", "optimizer.learning_rate=-1"], ["above 0.*-1"], 2),
        (["train", "--data", "x", "--out", "r", "--set", "train.epochs=many"], ["train.epochs.*int.*'many'"], 2),
        (["train", "--data", "x", "--out", "r", "--config", "none.yaml"], ["none.yaml.*No such file"], 2),
        (["evaluate", "nowhere"], ["config.yaml, splits.json and manifest.json.*nowhere"], 1),
        (["predict"], ["Missing argument"], 2),
        (["predict", "x.png", "--model", "nowhere"], ["run folder or an exported model.*nowhere"], 1),
        (["export", "nowhere", "--out", "m"], ["nowhere"], 1),
        (["prepare", "--out", "d"], ["SOURCE"], 2),
        (["prepare", "nowhere", "--out", "d"], ["nowhere"], 1),
        (["nonsense"], ["No such command"], 2),
    ],
)
def test_wrong_input_is_one_message(
    arguments: list[str], patterns: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fails(btkeras(*arguments), *patterns, code=code)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_model_names_the_nearest(shared_images: Path, tmp_path: Path) -> None:
    result = btkeras("train", "--data", shared_images, "--out", tmp_path / "r", "--model", "resnet43")
    fails(result, "Did you mean 'resnet34'")
    assert not (tmp_path / "r").exists()


def test_one_class_only_is_refused(shared_images: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one/glioma").symlink_to(shared_images / "glioma")
    fails(btkeras("train", "--data", tmp_path / "one", "--out", tmp_path / "r"), "at least two classes.*glioma")
    assert not (tmp_path / "r").exists()


def test_too_few_images_are_refused(image_folder: Path, tmp_path: Path) -> None:
    for path in sorted((image_folder / "pituitary").iterdir())[3:]:
        path.unlink()
    fails(btkeras("train", "--data", image_folder, "--out", tmp_path / "r"), "enough images.*3 of pituitary")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("command", ["train", "predict", "export"])
def test_a_full_disk_is_one_message(
    command: str, trained_run: Path, shared_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from btkeras import files

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "r"))

    monkeypatch.setattr(files.os, "replace", full)
    monkeypatch.setattr(files.os, "rename", full)
    arguments = {
        "train": ["train", "--data", shared_images, "--out", tmp_path / "r", *tiny()],
        "export": ["export", trained_run, "--out", tmp_path / "r"],
        "predict": ["evaluate", trained_run],
    }
    fails(btkeras(*arguments[command]), "No space left on device")
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert left == []


def test_an_option_is_not_taken_for_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fails(
        btkeras("predict", "slice.png", "--explain", "--json"),
        "--explain.*must not begin with -.*Received: --json",
        code=2,
    )
    assert not list(tmp_path.iterdir())
    paths = [param for each in main.commands.values() for param in each.params if isinstance(param.type, click.Path)]
    assert len(paths) > 20
    for param in paths:
        with pytest.raises(click.BadParameter, match="Did you forget a path"):
            param.type.convert("--out", param, None)


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = btkeras("--debug", "evaluate", tmp_path)
    assert result.exit_code == 1 and "Traceback" in result.stderr


def test_resume_starts_a_run_that_is_not_there_and_needs_no_data_for_one_that_is(
    tmp_path: Path, shared_images: Path
) -> None:
    out = tmp_path / "run"
    fails(btkeras("train", "--resume", "--out", out), "--data", code=2)
    started = btkeras("train", "--resume", "--out", out, "--data", shared_images, *tiny(), "--set", "train.epochs=1")
    assert started.exit_code == 0, started.output
    again = btkeras("train", "--resume", "--out", out)
    assert again.exit_code == 0 and "finished already" in again.stderr and "test accuracy" in again.stdout


def test_a_line_of_the_log_is_shown_once(tmp_path: Path) -> None:
    """Though a library logs by itself, as Keras does when it exports."""
    imports = "import logging\nfrom btkeras.logging import log_to_terminal, logger\n"
    code = f"{imports}log_to_terminal()\nlogging.info('x')\nlogger.info('once')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr == "once\n"
