"""One writer a folder: who holds the lock, also on another machine, and what is left after a kill."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from btkeras import files, locks
from btkeras.errors import RunError
from btkeras.files import atomic_file, atomic_folder, new_folder, sweep
from btkeras.locks import locked, writing
from tests.test_cli import btkeras, fails

ROOT = Path(__file__).parents[1]

# Holds a folder's lock as a process of a machine of that name, with a file half written, until it is killed.
HOLDER = """
import platform, sys, time
platform.node = lambda: sys.argv[2]
from pathlib import Path
from btkeras.files import atomic_file
from btkeras.locks import writing
with writing(Path(sys.argv[1])), atomic_file(Path(sys.argv[1], "last/state.npz")) as temporary:
    temporary.write_bytes(b"half")
    print("ready", flush=True)
    time.sleep(600)
"""

Hold = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Starts a process that holds a folder's lock, and ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def holding(folder: Path, host: str = "") -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLDER, str(folder), host or os.uname().nodename]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        return process

    yield holding
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


@pytest.fixture
def _no_kernel_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network file system without a lock service."""

    def acquire(self: FileLock, **_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(FileLock, "acquire", acquire)


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if ".tmp" in path.name]


def test_a_second_process_learns_who_writes(tmp_path: Path, hold: Hold) -> None:
    process = hold(tmp_path)
    with pytest.raises(RunError) as caught, writing(tmp_path):
        pass
    text = str(caught.value)
    assert f"Only one process at a time may write to {tmp_path}" in text
    assert (
        f"`btkeras {tmp_path} {os.uname().nodename}`, process {process.pid} on {os.uname().nodename} since 20" in text
    )
    assert "Wait until it has ended, or end it." in text and "remove" not in text


def test_of_two_machines_the_message_names_the_other_and_the_way_out(tmp_path: Path, hold: Hold) -> None:
    process = hold(tmp_path, "node-7.cluster")
    with pytest.raises(RunError) as caught, writing(tmp_path):
        pass
    text = str(caught.value)
    assert f"process {process.pid} on node-7.cluster since" in text
    assert f"If that machine is gone, and with it the process, remove {tmp_path / '.lock'}" in text


def test_the_lock_of_a_killed_process_is_gone_and_what_it_left_is_swept(tmp_path: Path, hold: Hold) -> None:
    process = hold(tmp_path)
    assert len(leftovers(tmp_path)) == 1
    process.kill()
    process.wait()
    with writing(tmp_path):
        assert leftovers(tmp_path) == []
        with writing(tmp_path), locked(tmp_path / ".lock") as new:
            assert not new, "an outer block has it"
        assert locked_elsewhere(tmp_path)
    assert not locked_elsewhere(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [".lock"]


def locked_elsewhere(folder: Path) -> bool:
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        return True
    lock.release()
    return False


def test_who_waits_gets_the_lock_when_it_is_free(
    tmp_path: Path, hold: Hold, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    process = hold(tmp_path)
    monkeypatch.setattr(locks, "_PATIENCE_SECONDS", 0)
    monkeypatch.setattr(locks.logger, "info", lambda text: (caplog.messages.append(text), process.kill()))
    with writing(tmp_path, wait=True):
        assert process.wait() == -signal.SIGKILL


@pytest.mark.usefixtures("_no_kernel_locks")
def test_without_kernel_locks_a_file_is_the_lock(tmp_path: Path) -> None:
    soft = tmp_path / ".lock.soft"
    with writing(tmp_path):
        assert soft.exists()
    assert not soft.exists()
    # A process of this machine that is gone, and one of another machine, of which nobody here knows.
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    soft.write_text(f"{ended.pid}\n{os.uname().nodename}\n")
    old = time.time() - 3600
    os.utime(soft, (old, old))
    with writing(tmp_path):
        pass
    soft.write_text("1\nnode-7.cluster\n")
    with (
        pytest.raises(RunError, match=rf"another process\..*If that machine is gone.*remove {soft}"),
        writing(tmp_path),
    ):
        pass


@pytest.mark.parametrize("error", [errno.EROFS, errno.EIO])
def test_other_failures_of_a_lock_are_no_missing_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def acquire(self: FileLock, **_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(FileLock, "acquire", acquire)
    with pytest.raises(OSError, match=os.strerror(error)), writing(tmp_path):
        pass


def test_only_leftovers_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".report.tmp").touch()
    (tmp_path / ".x.1-2.tmp.npz").touch()
    old = time.time() - 2 * 24 * 3600
    elsewhere = {}
    for name, age in {"new.npz": None, "old.npz": old}.items():
        with monkeypatch.context() as patch:
            patch.setattr(files, "_machine", lambda: "abcdef")
            elsewhere[name] = files._temporary(tmp_path / name, ".npz")
        elsewhere[name].touch()
        if age:
            os.utime(elsewhere[name], (age, age))
    # Of an earlier version, which wrote neither the machine nor the start of the process.
    earlier = tmp_path / f".state.npz.{os.getpid()}-0123abcd.tmp.npz"
    earlier.touch()
    os.utime(earlier, (old, old))
    with atomic_file(tmp_path / "own.npz") as own, atomic_folder(tmp_path / "folder") as folder:
        own.touch()
        # A number that another process had before this one.
        reused = own.with_name(own.name.replace(f"-{files._start_of(os.getpid())}-", "-17-"))
        reused.touch()
        sweep(tmp_path)
        kept = {".report.tmp", ".x.1-2.tmp.npz", elsewhere["new.npz"].name, own.name, folder.name}
        assert {path.name for path in tmp_path.iterdir()} == kept


def test_a_folder_that_another_process_makes_meanwhile_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"must have a new folder.*which exists"), new_folder(tmp_path / "run") as folder:
        (folder / "config.yaml").touch()
        (tmp_path / "run").mkdir()
        (tmp_path / "run/config.yaml").touch()
    assert leftovers(tmp_path) == []


def test_every_command_that_writes_to_a_run_needs_its_lock(tmp_path: Path, trained_run: Path, hold: Hold) -> None:
    path = Path(shutil.copytree(trained_run, tmp_path / "run"))
    hold(path, "node-7.cluster")
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    for command in ("train --resume --out", "evaluate", "calibrate", "robustness"):
        fails(btkeras(*command.split(), path), "Only one process at a time may write to", "on node-7.cluster")
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


def test_a_command_that_is_asked_to_end_clears_up(tmp_path: Path) -> None:
    from tests.conftest import write_images

    source = write_images(tmp_path / "source", per_class=400)
    out = tmp_path / "out/prepared"
    command = [sys.executable, "-m", "btkeras", "prepare", str(source), "--out", str(out), "--no-mri-check"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not list(out.parent.glob(".prepared.*/images/*/*")):
            time.sleep(0.02)
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Error: Stopped by SIGTERM" in err and "Traceback" not in err
    assert list(out.parent.iterdir()) == []
