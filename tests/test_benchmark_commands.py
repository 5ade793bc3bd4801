"""benchmarks/commands.py: which commands are timed, and beside which."""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks.cold_start import Taken
from benchmarks.commands import BEFORE, cases, compared

ROOT = Path(__file__).parents[1]


def test_each_command_is_beside_the_other_checkouts() -> None:
    taken = {
        "audit": [Taken(2.0, 1.0, 100.0), Taken(4.0, 1.0, 110.0)],
        f"{BEFORE}audit": [Taken(4.0, 3.0, 300.0), Taken(4.0, 3.0, 300.0)],
    }
    ours, theirs = compared(taken)
    assert (ours.case, ours.wall, ours.wall_speed, ours.processor_speed) == ("audit", 3.0, 1.5, 3.0)
    assert (theirs.wall_speed, theirs.processor_speed, theirs.memory_mib) == (1.0, 1.0, 300.0)


def test_a_command_runs_without_what_was_made_before(tmp_path: Path, shared_images: Path) -> None:
    (tmp_path / "made").mkdir()
    subprocess.run(cases(shared_images, shared_images, ROOT, tmp_path)["audit"], capture_output=True, check=True)
    assert not (tmp_path / "made").exists()


def test_a_command_that_fails_is_no_time(tmp_path: Path) -> None:
    command = cases(tmp_path / "missing", tmp_path, ROOT, tmp_path)["prepare"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1
