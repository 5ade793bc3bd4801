"""`btkeras report` itself: where it writes, in which format, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from btkeras.cli.group import SectionedGroup
from btkeras.cli.report import report
from btkeras.datasets import load_dataset
from tests.fake_experiment import fake_run

# A group of its own, for this is about one command; the group is what turns errors into messages.
group = SectionedGroup(commands={"report": report})


def btkeras(*arguments: object) -> Result:
    return CliRunner().invoke(group, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, shared_images: Path) -> Path:
    folder = tmp_path_factory.mktemp("command") / "run"
    return fake_run(folder, load_dataset(shared_images), "cv.folds=2").path


def test_what_a_real_training_leaves_is_reported(trained_run: Path, tmp_path: Path) -> None:
    result = btkeras("report", trained_run, "--out", tmp_path / "r.json")
    assert result.exit_code == 0, result.output
    found = {
        block.get("name"): block
        for section in json.loads((tmp_path / "r.json").read_text())["sections"]
        for block in section["blocks"]
    }
    training = dict(zip(found["trainings"]["columns"], found["trainings"]["rows"][0], strict=True))
    assert training["epochs"] == 10 and training["duration"] > 0
    metrics = json.loads((trained_run / "metrics.json").read_text())
    assert found["overview"]["rows"][0][1]["mean"] == metrics["accuracy"]


def test_one_run_has_its_report_in_its_folder(run: Path) -> None:
    result = btkeras("report", run)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(run / "report.html")
    assert (run / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_the_format_is_said_or_seen_by_the_ending(run: Path, tmp_path: Path) -> None:
    assert btkeras("report", run, "--out", tmp_path / "a.json", "--no-images").exit_code == 0
    assert btkeras("report", run, "--out", tmp_path / "b.txt", "--format", "json", "--no-images").exit_code == 0
    assert json.loads((tmp_path / "a.json").read_text()) == json.loads((tmp_path / "b.txt").read_text())
    result = btkeras("report", run, "--format", "markdown")
    assert result.stdout.strip() == str(run / "report.md") and (run / "report_files").is_dir()


def test_no_images_leaves_the_slices_out(run: Path, tmp_path: Path) -> None:
    assert btkeras("report", run, "--out", tmp_path / "a.html").exit_code == 0
    assert btkeras("report", run, "--out", tmp_path / "b.html", "--no-images").exit_code == 0
    assert "data:image/jpeg" in (tmp_path / "a.html").read_text()
    assert "data:image/jpeg" not in (tmp_path / "b.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        ((), "RUN", 2),
        (("nowhere",), "which is neither", 1),
        (("nowhere", "elsewhere"), "needs --out FILE", 2),
        (("nowhere", "--out", "report.docx"), "must end in .html.*report.docx", 2),
    ],
)
def test_wrong_input_is_one_message(
    arguments: tuple[str, ...], said: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import re

    monkeypatch.chdir(tmp_path)
    result = btkeras("report", *arguments)
    assert result.exit_code == code and result.stdout == "" and re.search(said, result.stderr), result.output
    assert not list(tmp_path.iterdir())
