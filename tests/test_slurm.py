"""The job array for Slurm, against a stand-in for ``sbatch`` that runs what it is given."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import TINY
from tests.test_cv import settings

ROOT = Path(__file__).parents[1]

# Writes its arguments down, and prints a job number as --parsable asks for.
SBATCH = """#!/usr/bin/env bash
printf '%s\\n' "$*" >> "$SUBMITTED"
echo "$(wc -l < "$SUBMITTED");cluster"
"""


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sbatch").write_text(SBATCH)
    (folder / "btkeras").write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.cli_with_tiny "$@"\n')
    for file in folder.iterdir():
        file.chmod(0o755)
    return folder


def submit(commands: Path, *arguments: object) -> list[str]:
    submitted = commands.parent / "submitted"
    submitted.unlink(missing_ok=True)
    environment = {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}", "SUBMITTED": str(submitted)}
    script = [str(ROOT / "scripts/slurm_cv.sh"), *map(str, arguments)]
    done = subprocess.run(script, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return submitted.read_text().splitlines()


def test_what_is_left_is_submitted_and_then_the_summary(tmp_path: Path, shared_images: Path, commands: Path) -> None:
    out = tmp_path / "cv"
    array, summary = submit(commands, out, "--data", shared_images, *settings(*TINY, "cv.folds=3"))
    assert "--array=0,1,2%16" in array and f"btkeras cv --out '{out}' --task $SLURM_ARRAY_TASK_ID" in array
    assert "--dependency=afterok:1 " in summary and f"btkeras cv --resume --out '{out}'" in summary
    # As if the second task had finished.
    (out / "tiny/fold_1").mkdir(parents=True)
    (out / "tiny/fold_1/metrics.json").write_text("{}")
    (out / "tiny/fold_1/manifest.json").write_text('{"epochs": 3}')
    array, _ = submit(commands, out)
    assert "--array=0,2%16" in array
