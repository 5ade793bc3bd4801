"""What TensorFlow and the engines print about themselves is left out, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from btkeras.quiet import quiet_engine

ROOT = Path(__file__).parents[1]
LINE = b"I0000 00:00:1795877122.652081    4959 port.cc:153] oneDNN custom operations are on.\n"


def run(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    environment |= {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)


def test_from_python_nothing_is_printed_but_what_the_user_prints() -> None:
    code = (
        "import os\n"
        "from btkeras import Predictor\n"
        "from btkeras.models import build_model\n"
        "Predictor()\n"
        "build_model('improved_resnet34', input_shape=(32, 32, 1), classes=2)\n"
        "print('TF_CPP_MIN_LOG_LEVEL' in os.environ)\n"
    )
    done = run(code)
    assert (done.stderr, done.stdout) == ("", "False\n")


def test_who_asks_for_tensorflows_log_gets_it() -> None:
    done = run("from btkeras.quiet import load_tensorflow; load_tensorflow()", TF_CPP_MIN_LOG_LEVEL="0")
    assert "oneDNN" in done.stderr or "TensorFlow" in done.stderr


def test_lines_of_others_come_after_the_block(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_engine(), quiet_engine():
        os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n" + LINE)
        os.write(2, b"of a thread\n")
        os.write(2, b"INFO: of another library\n")
        assert capfd.readouterr().err == ""
    assert capfd.readouterr().err == "of a thread\nINFO: of another library\n"


def test_what_fails_in_the_block_restores_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="bad"), quiet_engine():
        raise ValueError("bad")
    os.write(2, b"shown\n")
    assert capfd.readouterr().err == "shown\n"
