"""`btkeras serve` as a process: a new version under load, its end, and what it says when it cannot start."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from btkeras.cli import main
from btkeras.server import run as run_module
from tests.serve_tools import until, write_half_plus_two

PREDICT = "/v1/models/half:predict"


@contextlib.contextmanager
def process(model: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server of its own; yields it and its URL once it listens."""
    command = [sys.executable, "-m", "btkeras", "serve", "--model", str(model), "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            lines = (json.loads(line) for line in server.stderr or () if line.startswith("{"))
            url = next(line["url"] for line in lines if line["event"] == "listening")
            # Read on, or the server would stop at a full pipe.
            threading.Thread(target=lambda: list(lines), daemon=True).start()
            yield server, url
        finally:
            server.kill()


def test_a_new_version_and_the_end_come_under_load_without_a_failed_request(tmp_path: Path) -> None:
    folder = tmp_path / "half"
    write_half_plus_two(folder, 1)
    with process(folder, "--poll-seconds", "0.2", "--drain-seconds", "1") as (server, url):
        stop, answers = threading.Event(), []

        def client() -> None:
            with httpx.Client(base_url=url, timeout=30) as session:
                while not stop.is_set():
                    answer = session.post(PREDICT, json={"instances": [1.0]})
                    answers.append((answer.status_code, answer.json().get("predictions")))

        with ThreadPoolExecutor(4) as pool:
            clients = [pool.submit(client) for _ in range(4)]
            until(lambda: len(answers) > 50)
            write_half_plus_two(folder, 2, plus=3.0)
            until(lambda: answers[-1] == (200, [3.5]))
            states = {
                s["version"]: s["state"] for s in httpx.get(f"{url}/v1/models/half").json()["model_version_status"]
            }
            assert states["2"] == "AVAILABLE" and states["1"] in ("UNLOADING", "END")
            server.send_signal(signal.SIGTERM)
            # As a load balancer: as long as it says that it is ready, it gets requests.
            until(lambda: httpx.get(f"{url}/readyz").status_code == 503)
            count = len(answers)
            until(lambda: len(answers) > count)
            stop.set()
            for future in clients:
                future.result(timeout=30)
        assert server.wait(timeout=30) == 0
    assert {code for code, _ in answers} == {200}
    # Each version has answered, and the old one never again after the new one, but for requests side by side.
    values = [predictions[0] for _, predictions in answers]
    assert set(values) == {2.5, 3.5}
    assert 2.5 not in values[values.index(3.5) + 8 :]


def fails(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["serve", *arguments])
    return result.exit_code, result.output


def test_what_it_says_when_it_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BTKERAS_TOKEN", raising=False)
    monkeypatch.setattr(run_module, "start_logging", lambda: None)
    missing = str(tmp_path / "none")
    code, output = fails("--model", missing)
    assert code == 1 and "NAME/VERSION/saved_model.pb" in output and "btkeras export RUN" in output
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    code, output = fails("--model", str(tmp_path / "run"))
    assert code == 1 and f"btkeras export {tmp_path / 'run'} --out saved_models/run" in output
    (tmp_path / "other" / "3").mkdir(parents=True)
    (tmp_path / "other" / "3" / "model.onnx").write_bytes(b"x")
    code, output = fails("--model", str(tmp_path / "other"))
    assert code == 1 and "version 3 has another format" in output
    folder = tmp_path / "half"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "saved_model.pb").write_bytes(b"no SavedModel")
    code, output = fails("--model", str(folder), "--port", "0")
    assert code == 1 and "At least one version must be a whole SavedModel" in output
    code, output = fails("--model", str(folder / "1"))
    assert code == 1 and f"Name the folder above it: {folder}" in output
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, output = fails("--model", str(folder), "--port", str(port))
        assert code == 2 and f"127.0.0.1:{port}" in output and "--port 0" in output
    code, output = fails("--model", str(folder), "--host", "host.invalid")
    assert code == 2 and "host.invalid" in output
    empty = tmp_path / "token"
    empty.write_text("\n")
    code, output = fails("--model", str(folder), "--token-file", str(empty))
    assert code == 2 and "must not be empty" in output
    code, output = fails("--model", str(folder), "--max-queue", "0")
    assert code == 2 and "queued_images must be above 0" in output


def test_the_missing_extra_and_an_open_server_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BTKERAS_TOKEN", raising=False)
    served = []
    monkeypatch.setattr(run_module, "serve", served.append)
    output = CliRunner().invoke(main, ["serve", "--model", str(tmp_path), "--host", "0.0.0.0"]).output
    assert "warning: anyone who reaches 0.0.0.0" in output
    monkeypatch.setenv("BTKERAS_TOKEN", "sesame")
    output = CliRunner().invoke(main, ["serve", "--model", str(tmp_path), "--host", "0.0.0.0", "--name", "m"]).output
    assert "warning" not in output
    assert [(settings.token, settings.name) for settings in served] == [(None, tmp_path.name), ("sesame", "m")]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, output = fails("--model", str(tmp_path))
    assert code == 2 and "pip install 'btkeras[serve]'" in output
