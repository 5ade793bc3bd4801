"""``predict --server``, the example client and the load test against ``btkeras serve`` with an exported model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from btkeras import Predictor
from btkeras.cli import main
from btkeras.inference.backends import load_backend
from tests.serve_tools import running
from tests.test_client import broken

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


def test_a_server_answers_as_the_model_does(exported_model: Path, image_folder: Path, tmp_path: Path) -> None:
    files = [str(file) for file in sorted(image_folder.rglob("*.png"))]
    bad = broken(files[7])
    labels, probabilities = Predictor(exported_model).predict([file for file in files if file != bad])
    with running(load_backend(exported_model)) as (client, _):
        url = str(client.base_url).rstrip("/")
        arguments = ["predict", str(image_folder), "--server", url, "--name", "tiny", "--json"]
        result = CliRunner().invoke(main, arguments)
        example = [sys.executable, str(ROOT / "deploy" / "clients" / "rest.py"), url, "tiny", *files[:3]]
        printed = subprocess.run(example, capture_output=True, text=True, check=True).stdout
        load = [sys.executable, str(ROOT / "benchmarks" / "load_test.py"), files[0], "--url", url, "--name", "tiny"]
        out = tmp_path / "load.json"
        subprocess.run([*load, "--clients", "2", "--seconds", "1", "--json", str(out)], capture_output=True, check=True)
    predictions = json.loads(result.stdout)
    assert result.exit_code == 1 and [prediction["path"] for prediction in predictions] == files
    assert "error" in predictions[7] and bad in predictions[7]["error"]
    good = [prediction for prediction in predictions if "error" not in prediction]
    assert [prediction["label"] for prediction in good] == labels
    found = [list(prediction["probabilities"].values()) for prediction in good]
    np.testing.assert_allclose(found, probabilities, atol=1e-6)
    lines = [json.loads(line) for line in printed.splitlines()]
    assert [line["label"] for line in lines] == labels[:3]
    assert json.loads(out.read_text())["requests"].keys() == {"200"}
