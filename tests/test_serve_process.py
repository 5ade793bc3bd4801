"""`btkeras serve` as a process with the installed model; its end; and what it says when it cannot start."""

from __future__ import annotations

import contextlib
import json
import os
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
from btkeras.inference.model_folder import PRETRAINED
from btkeras.server import app
from btkeras.server.settings import ServerSettings
from tests.serve_tools import b64, noise, png, quarters_backend, until

ROOT = Path(__file__).parents[1]


@contextlib.contextmanager
def process(*arguments: str, folder: Path = ROOT) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server of its own; yields it and its URL once it listens."""
    command = [sys.executable, "-m", "btkeras", "serve", *arguments, "--port", "0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment.pop("BTKERAS_TOKEN", None)
    with (
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=folder, env=environment) as server,
        # It ends with the pipe, so with the server, and before the pipe is closed.
        ThreadPoolExecutor(1) as reader,
    ):
        try:
            assert server.stderr
            lines = (json.loads(line) for line in server.stderr if line.startswith("{"))
            url = next(line["url"] for line in lines if line["event"] == "listening")
            # Read on, or the server would stop at a full pipe.
            reader.submit(server.stderr.read)
            yield server, url
        finally:
            server.kill()


def test_the_installed_model_is_served_and_sigterm_ends_it_without_a_failed_request(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    with process("--drain-seconds", "2", folder=tmp_path) as (server, url):
        maps = Path(f"/proc/{server.pid}/maps")
        # A LiteRT file needs no TensorFlow.
        assert not maps.exists() or "libtensorflow_cc" not in maps.read_text()
        stop, codes = threading.Event(), []
        body = {"instances": [b64(png(noise(0, 200, 200)))]}

        def client() -> None:
            with httpx.Client(base_url=url, timeout=30) as session:
                while not stop.is_set():
                    answer = session.post(f"/v1/models/{PRETRAINED}:predict", json=body)
                    codes.append(answer.status_code)

        with ThreadPoolExecutor(2) as pool:
            clients = [pool.submit(client) for _ in range(2)]
            until(lambda: len(codes) > 10)
            server.send_signal(signal.SIGTERM)
            # As a load balancer: as long as it says that it is ready, it gets requests.
            until(lambda: httpx.get(f"{url}/readyz").status_code == 503)
            codes.append(httpx.post(f"{url}/v1/models/{PRETRAINED}:predict", json=body, timeout=30).status_code)
            stop.set()
            for future in clients:
                future.result(timeout=30)
        assert server.wait(timeout=30) == 0
    assert set(codes) == {200}


def fails(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["serve", *arguments])
    return result.exit_code, result.output


def test_what_it_says_when_it_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BTKERAS_TOKEN", raising=False)
    monkeypatch.setattr(app, "configure_logging", lambda: None)
    code, output = fails(str(tmp_path / "none"))
    assert code == 1 and "A model must be a run folder or an exported model" in output
    empty = tmp_path / "token"
    empty.write_text("\n")
    code, output = fails("--token-file", str(empty))
    assert code == 2 and "must not be empty" in output
    code, output = fails("--max-queue", "0")
    assert code == 2 and "queued_images must be above 0" in output
    code, output = fails("--max-mib", "200")
    assert code == 2 and "--max-mib may be 128 at most" in output


def test_an_address_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "configure_logging", lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(app.ConfigError, match=f"127.0.0.1:{port}.*--port 0"):
            app.serve(quarters_backend(), ServerSettings(port=port))
    with pytest.raises(app.ConfigError, match=r"host\.invalid"):
        app.serve(quarters_backend(), ServerSettings(host="host.invalid"))


def test_a_public_server_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BTKERAS_TOKEN", raising=False)
    served: list[ServerSettings] = []
    monkeypatch.setattr(app, "serve", lambda backend, settings: served.append(settings))
    monkeypatch.setattr("btkeras.cli.serve._load", lambda model: quarters_backend())
    output = CliRunner().invoke(main, ["serve", "--host", "0.0.0.0"]).output
    assert "warning: anyone who reaches 0.0.0.0" in output
    monkeypatch.setenv("BTKERAS_TOKEN", "sesame")
    output = CliRunner().invoke(main, ["serve", "some/model", "--host", "0.0.0.0", "--name", "m"]).output
    assert "warning" not in output
    assert [(settings.token, settings.name) for settings in served] == [(None, ""), ("sesame", "m")]
