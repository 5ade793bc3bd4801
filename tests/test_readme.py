"""The README: its length, and that what it shows is what comes out; its links: ``test_documents``."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_serve_process import process

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"```(\w+)\n(.*?)```", README, re.S)


def block(language: str, number: int = 0) -> str:
    return [text for name, text in SHOWN if name == language][number]


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands of "Try it" were run."""
    folder = tmp_path_factory.mktemp("readme")
    run(folder, "-m", "btkeras", "selftest", "--write", "slice.png")
    return folder


def test_it_is_short() -> None:
    assert len(README.split()) <= 1200


def test_predict_prints_what_is_shown(folder: Path) -> None:
    assert "btkeras predict slice.png" in block("bash")
    assert run(folder, "-m", "btkeras", "predict", "slice.png") == block("text")


def test_the_python_lines_print_what_is_shown(folder: Path) -> None:
    assert run(folder, "-c", block("python")) == block("text", 2)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_server_replies_what_is_shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # OpenVINO, where it is installed, rounds the last digits otherwise.
    monkeypatch.setenv("BTKERAS_ENGINE", "litert")
    lines = next(text for name, text in SHOWN if name == "bash" and "curl" in text)
    with process(folder=folder) as (_, url):
        lines = lines.replace("localhost:8501", url)
        done = subprocess.run(["bash", "-c", lines], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout == block("text", 1).rstrip("\n")
