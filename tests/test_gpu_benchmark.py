"""``benchmarks.gpu`` where there is no GPU: small, and with what fails named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALL = "--network resnet34 --size 48 --channels 1 --batch 4 --steps 1 --images 60 --epochs 1 --rounds 1 --wait 1"


@pytest.mark.slow
def test_it_times_steps_epochs_and_limits_and_names_what_fails(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "benchmarks.gpu", *SMALL.split(), "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    rates = report["images_per_second"]
    ways = ("btkeras, step alone", "Keras, step alone", "btkeras train, within an epoch", "btkeras train, all in")
    assert all(rates[way] > 0 and f"| {way} |" in done.stdout for way in ways)
    assert rates["btkeras train, all in"] < rates["btkeras train, within an epoch"]
    assert all(report["limits"][name] > 0 for name in ("matrices", "memory"))
    # In a second nothing is compiled, and without PyTorch it is not even begun.
    assert "PyTorch compiled" in report["failed"] and "PyTorch compiled: no figure" in done.stdout
