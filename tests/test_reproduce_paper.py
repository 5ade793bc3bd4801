"""The one command for the whole experiment, with tiny networks in place of the paper's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import TINY
from tests.test_cv import settings

ROOT = Path(__file__).parents[1]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A copy, since the script prefers the environment beside it to the command of this test."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    command = tmp_path / "bin/btkeras"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.cli_with_tiny "$@"\n')
    command.chmod(0o755)
    return Path(shutil.copy(ROOT / "scripts/reproduce_paper", tmp_path / "scripts"))


@pytest.mark.slow
def test_both_parts_and_one_report_and_again_without_training(
    script: Path, shared_images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    few = ("--model", "tiny", "--model", "tiny_plain", "--folds", "2", *settings(*TINY, "cv.overrides={}"))
    command = [script, shared_images, out, ROOT / "configs/quick.yaml", *few]
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}

    def reproduce() -> str:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stderr

    assert "test accuracy" in reproduce()
    assert all((out / part / "summary.json").is_file() for part in ("ablation", "comparison"))
    report = (out / "report.html").read_text(encoding="utf-8")
    assert "tiny_plain" in report and "fixed test part" in report
    trained = (out / "ablation/tiny/fold_0/best.keras").stat().st_mtime_ns
    reproduce()
    assert (out / "ablation/tiny/fold_0/best.keras").stat().st_mtime_ns == trained


def test_without_arguments_it_says_how(script: Path) -> None:
    done = subprocess.run([script], capture_output=True, text=True)
    assert done.returncode == 2 and "scripts/reproduce_paper DATASET OUT" in done.stderr
