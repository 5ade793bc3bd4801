"""Keras' JAX backend: tf.data feeds it, and its checkpoints are ordinary ones."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from btkeras import Predictor

ROOT = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.jax,
    pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs the extra btkeras[jax]"),
]


def test_the_quick_configuration_trains_under_jax_and_predicts_under_tensorflow(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "btkeras", "train", "--data", "phantom", "--config", "configs/quick.yaml"]
    done = subprocess.run(
        [*command, "--set", "train.epochs=2", "--out", run],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout and '"device": "jax' in (run / "manifest.json").read_text()
    image = next((Path(os.environ["BTKERAS_CACHE"])).glob("phantom-*/images/glioma/*.png"))
    assert Predictor(run).predict([image]).probabilities.sum() == pytest.approx(1, abs=1e-5)
