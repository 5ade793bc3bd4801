"""How a report of measurements describes the machine."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys

import pytest

from btkeras import machine


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
