"""Runs killed with SIGKILL, stopped with Ctrl-C, and resumed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import TINY

ROOT = Path(__file__).parents[1]


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts ``btkeras train`` in a process of its own, which does not outlive the test."""
    started: list[subprocess.Popen[str]] = []

    def train(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.cli_with_tiny", "train", *map(str, arguments)]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Tests under `nohup` hand on that it is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield train
    for process in started:
        process.kill()
        process.communicate()


def wait_for_epochs(process: subprocess.Popen[str], run: Path, epochs: int) -> None:
    """Waits until the run can be resumed, and its history, written just before the state, has so many rows."""
    for _ in range(6000):
        file = run / "history.csv"
        if (run / "last/state.npz").exists() and file.read_text().count("\n") > epochs:
            return
        if process.poll() is not None:
            pytest.fail(f"ended early: {process.communicate()[1]}")
        time.sleep(0.05)
    pytest.fail("no epoch was finished in 5 minutes")


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    return out, err


def assert_equal_runs(one: Path, other: Path) -> None:
    assert (one / "history.csv").read_bytes() == (other / "history.csv").read_bytes()
    assert (one / "predictions.csv").read_bytes() == (other / "predictions.csv").read_bytes()
    with np.load(one / "last/state.npz") as x, np.load(other / "last/state.npz") as y:
        names = set(x.files) - {"progress"}
        assert names == set(y.files) - {"progress"}
        assert all(np.array_equal(x[name], y[name]) for name in names)


def settings(*overrides: str) -> list[str]:
    return [word for setting in overrides for word in ("--set", setting)]


def test_a_killed_run_resumes_to_the_result_of_an_uninterrupted_one(
    tmp_path: Path, shared_images: Path, start: Start
) -> None:
    arguments = ["--data", shared_images, *settings(*TINY, "train.epochs=80", "data.cache=disk")]
    whole = start(*arguments, "--out", tmp_path / "whole")
    killed = start(*arguments, "--out", tmp_path / "killed")
    wait_for_epochs(killed, tmp_path / "killed", 1)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "killed/metrics.json").exists()
    _, err = finish(start("--resume", "--out", tmp_path / "killed"))
    assert "resuming" in err
    finish(whole)
    assert_equal_runs(tmp_path / "killed", tmp_path / "whole")
    assert not list((tmp_path / "killed").rglob("*.tmp*"))


def test_a_stopped_run_says_how_to_go_on(tmp_path: Path, shared_images: Path, start: Start) -> None:
    arguments = ["--data", shared_images, *settings(*TINY, "train.epochs=5000")]
    signals = {signal.SIGINT: 1, signal.SIGTERM: 128 + signal.SIGTERM, signal.SIGHUP: 128 + signal.SIGHUP}
    # Side by side: most of their time is their start.
    processes = [start(*arguments, "--out", tmp_path / number.name) for number in signals]
    for number, process in zip(signals, processes, strict=True):
        wait_for_epochs(process, tmp_path / number.name, 1)
        process.send_signal(number)
    for number, process in zip(signals, processes, strict=True):
        _, err = process.communicate(timeout=300)
        assert process.returncode == signals[number]
        assert "Traceback" not in err and f"btkeras train --resume --out {tmp_path / number.name}" in err


@pytest.mark.slow
def test_three_random_kills_leave_no_trace_in_the_improved_network(
    tmp_path: Path, shared_images: Path, start: Start
) -> None:
    overrides = [*TINY[1:], "model.name=improved_resnet34", "train.epochs=8", "data.channels=3"]
    arguments = ["--data", shared_images, *settings(*overrides)]
    finish(start(*arguments, "--out", tmp_path / "whole"))
    rng, killed = random.Random(), tmp_path / "killed"
    process = start(*arguments, "--out", killed)
    for epochs in sorted(rng.sample(range(1, 7), 3)):
        wait_for_epochs(process, killed, epochs)
        time.sleep(rng.random())
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        print(f"killed after epoch {(killed / 'history.csv').read_text().count(chr(10)) - 1}")
        process = start("--resume", "--out", killed)
    finish(process)
    assert_equal_runs(killed, tmp_path / "whole")


@pytest.mark.slow
def test_kills_at_random_writes_lose_nothing_and_leave_nothing() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.kills", "4"], cwd=ROOT, capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
