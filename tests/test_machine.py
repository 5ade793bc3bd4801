"""How a report of measurements describes the machine."""

from __future__ import annotations

import importlib.metadata
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from btkeras import machine
from tests.test_cli import ROOT, btkeras, fails


def test_a_machine_is_described_with_the_packages_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTKERAS_THREADS", "1")

    found = machine.describe(["numpy", "no-such-package"])

    assert found["cores"] == os.cpu_count()
    assert found["threads"] == 1
    assert found["packages"] == {"numpy": importlib.metadata.version("numpy")}
    assert found["processor"]
    assert 0.1 < found["memory_gib"] < 1e5


def test_a_description_loads_none_of_the_packages_it_names() -> None:
    code = (
        "import sys; from btkeras.machine import describe; describe(['tensorflow', 'keras', 'numpy']); "
        "sys.exit(' '.join({'tensorflow', 'keras', 'numpy'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("value", ["0", "abc", "-1", "1.5"])
def test_a_wrong_number_of_threads_is_one_message(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTKERAS_THREADS", value)
    (tmp_path / "a.png").touch()
    result = btkeras("predict", tmp_path / "a.png", "--model", ROOT / "saved_models/brain_tumour_mri")
    fails(result, f"BTKERAS_THREADS must be a whole number from 1. Received: '{value}'", code=2)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's figures are Linux'")
def test_released_pages_take_no_memory_and_are_read_again(tmp_path: Path) -> None:
    size, before = 16 * 2**20, os.urandom(2**20)
    file = tmp_path / "a file.bin"
    file.write_bytes(16 * before)

    def resident() -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.split("RssFile:")[1].split()[0]) * 1024

    with file.open("rb") as opened, mmap.mmap(opened.fileno(), size, access=mmap.ACCESS_READ) as mapped:
        start = resident()
        assert mapped[:] == 16 * before
        assert resident() - start > 0.9 * size
        machine.release_pages(file)
        assert resident() - start < 0.1 * size
        assert mapped[-(2**20) :] == before


def test_what_was_written_into_mapped_pages_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "file.bin"
    file.write_bytes(bytes(2**20))
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 2**20, access=mmap.ACCESS_COPY) as mapped:
        mapped[:4] = b"kept"
        machine.release_pages(file)
        assert mapped[:4] == b"kept"
