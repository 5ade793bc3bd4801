"""benchmarks/load_test.py against a small server whose answers are known."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import write_images
from tests.rest_server import Reply, fake_server

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "load_test.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("load_test", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["load_test"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def slices(tmp_path: Path) -> Path:
    return write_images(tmp_path / "slices", per_class=2)


def report(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_it_counts_what_the_server_answered(script: ModuleType, slices: Path, tmp_path: Path) -> None:
    out = tmp_path / "load.json"
    with fake_server() as server:
        busy: Reply = (503, {"error": "full"}, {})
        server.before = lambda number: busy if number % 5 == 4 else None
        options = ["--url", server.url, "--clients", "3", "--seconds", "0.6", "--batch", "3", "--json", str(out)]
        assert script.main([str(slices), *options, "--pid", "1"]) == 0
        found, sent = report(out), len(server.paths)
        assert set(server.sizes) == {3}
    assert sum(found["requests"].values()) == sent > 5
    assert found["requests"]["503"] == sent // 5
    assert found["connection_errors"] == {} and found["unexpected"] == ""
    assert 0 < found["images_per_second"] <= found["requests"]["200"] * 3 / 0.6 + 0.01
    assert sum(found["per_second"]) == found["requests"]["200"]
    milliseconds = found["latency_ms"]
    assert 0 < milliseconds["p50"] <= milliseconds["p95"] <= milliseconds["p99"] <= milliseconds["max"]
    assert found["memory_mib"]["most"] > 0
    assert found["status"]["model_version_status"][0]["state"] == "AVAILABLE"


def test_another_error_fails(script: ModuleType, slices: Path, tmp_path: Path) -> None:
    out = tmp_path / "load.json"
    with fake_server() as server:
        server.before = lambda number: (500, {"error": "broken"}, {}) if number == 2 else None
        options = ["--url", server.url, "--clients", "1", "--seconds", "0.3", "--json", str(out)]
        assert script.main([str(slices), *options]) == 1
    assert report(out)["requests"]["500"] == 1 and "broken" in report(out)["unexpected"]


def test_no_server_fails(script: ModuleType, slices: Path, tmp_path: Path) -> None:
    out = tmp_path / "load.json"
    options = ["--url", "http://127.0.0.1:9", "--clients", "2", "--seconds", "0.3", "--json", str(out)]
    assert script.main([str(slices), *options]) == 1
    assert report(out)["connection_errors"]["ConnectionRefusedError"] >= 2


def test_a_server_is_killed_and_started_again(script: ModuleType, slices: Path, tmp_path: Path) -> None:
    out, mark = tmp_path / "load.json", tmp_path / "started"
    with fake_server() as server, subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as victim:
        options = ["--url", server.url, "--clients", "1", "--seconds", "0.8", "--pid", str(victim.pid)]
        options += ["--restart-command", f"sh -c 'touch {mark}; exec sleep 60'", "--json", str(out)]
        assert script.main([str(slices), *options]) == 0
        assert victim.wait(5) == -9
    assert mark.exists() and report(out)["killed"]["at"] >= 0.4


def test_a_restart_needs_the_process(script: ModuleType, slices: Path) -> None:
    with pytest.raises(SystemExit):
        script.main([str(slices), "--restart-command", "true"])


def test_there_must_be_images(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="images to send"):
        script.main([str(tmp_path)])
