"""benchmarks/cold_start.py: what it runs, and what it makes of the times."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "cold_start.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cold_start", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_formats_that_are_there_are_measured(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "model.tflite").touch()
    commands = script.cases(Path("slice.png"), Path("run"), tmp_path)
    assert [name for name in commands if "predict" in name] == ["btkeras predict, run", "btkeras predict, litert"]
    assert commands["btkeras predict, litert"][-1] == str(tmp_path / "model.tflite")


def test_a_process_is_timed_with_its_processor_time_and_memory(script: ModuleType) -> None:
    waited = script.timed([sys.executable, "-c", "import time; x = bytearray(200 * 2**20); time.sleep(0.5)"])
    assert waited.wall > 0.5 > waited.processor > 0
    assert waited.memory > 200
    with pytest.raises(SystemExit, match="no such thing"):
        script.timed([sys.executable, "-c", "raise SystemExit('no such thing')"])


def test_ratios_are_of_the_same_round(script: ModuleType) -> None:
    plain = [script.Taken(4.0, 2.0, 1000.0), script.Taken(8.0, 2.0, 1000.0), script.Taken(16.0, 2.0, 1000.0)]
    ours = [script.Taken(0.4, 0.4, 90.0), script.Taken(0.4, 0.2, 100.0), script.Taken(1.6, 0.2, 95.0)]
    first, second = script.rows({script.PLAIN_NAME: plain, "ours": ours})
    assert (first.wall_ratio, first.processor_ratio) == (1, 1)
    assert (second.wall, second.wall_ratio, second.processor_ratio, second.memory_mib) == pytest.approx(
        (0.4, 0.1, 0.1, 95.0)
    )
    assert "ours" in script.table([first, second])
