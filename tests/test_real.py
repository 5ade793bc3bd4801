"""On real slices of both sources, named by ``$BTKERAS_DATA``; with a network of random weights, where that will do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from btkeras import Predictor
from btkeras.config import DataConfig
from btkeras.config_io import load_config
from btkeras.datasets import load_dataset
from btkeras.export.export import export
from btkeras.runs import create_run
from btkeras.splitting.splits import make_split
from tests.test_export import CLIENT

pytestmark = pytest.mark.data


def test_the_collection_is_read_and_split_as_the_paper_does(real_slices: Path) -> None:
    dataset = load_dataset(real_slices)
    assert dataset.counts() == {"glioma": 1426, "meningioma": 708, "no_tumor": 1500, "pituitary": 930}
    split = make_split(dataset, DataConfig())
    tested = {name: sum(record.label == name for record in split.test) for name in dataset.classes}
    assert tested == {"glioma": 285, "meningioma": 141, "no_tumor": 300, "pituitary": 186}


@pytest.fixture(scope="module")
def fifty(real_slices: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """50 slices of both sources: as they are, and as PNG and JPEG, grey and RGB."""
    folder = tmp_path_factory.mktemp("fifty")
    records = load_dataset(real_slices).records[::183]
    kinds = [(mode, suffix) for mode in ("L", "RGB") for suffix in ("png", "jpg")]
    paths = [real_slices / record.path for record in records]
    for i, path in enumerate(paths):
        mode, suffix = kinds[i % 4]
        Image.open(path).convert("RGB").convert(mode).save(folder / f"{i}.{suffix}")
    return [*paths, *sorted(folder.iterdir())]


@pytest.mark.parametrize("channels", [1, 3])
def test_predict_and_the_served_model_agree_on_real_slices(
    real_slices: Path, fifty: list[Path], tmp_path: Path, channels: int
) -> None:
    import keras

    from btkeras.models import build_model

    assert len(fifty) == 50
    config = load_config(None, ["model.name=tiny", f"data.channels={channels}", "data.image_size=64"])
    dataset = load_dataset(real_slices)
    run = create_run(tmp_path / "run", config, dataset, make_split(dataset, config.data))
    keras.utils.set_random_seed(0)
    model = build_model("tiny", input_shape=(64, 64, channels), mean=50.0, variance=2500.0)
    model.save(run.best_model)
    version = export(run, tmp_path / "served")
    done = subprocess.run([sys.executable, "-c", CLIENT, version, *fifty], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    labels, probabilities = Predictor(run.path).predict(fifty)
    assert probabilities.std() > 1e-3
    # Of random weights; a trained network's exports agree to 1e-5.
    np.testing.assert_allclose(answer["probabilities"], probabilities, atol=1e-4)
    assert answer["label"] == labels
