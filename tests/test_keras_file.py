"""``best.keras`` is read by any Keras from 3.8 on, and one of a newer Keras is one message.

``tests/data/keras_3_8.json`` lists what the classes of Keras 3.8 accept. Files of all networks were loaded with the
versions 3.6 to 3.15 and gave the same probabilities.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from btkeras.checksums import record_files
from btkeras.models import build
from btkeras.models.averaging import average
from btkeras.models.head import with_temperature
from btkeras.models.keras_file import load_network, save_network
from tests.test_cli import btkeras

ACCEPTED = json.loads((Path(__file__).parent / "data/keras_3_8.json").read_text())


def config_of(file: Path) -> Any:
    with zipfile.ZipFile(file) as archive:
        return json.loads(archive.read("config.json"))


def objects(config: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Class and settings of each layer, operation, initializer and policy."""
    for value in config.values() if isinstance(config, dict) else config:
        if isinstance(value, dict | list):
            yield from objects(value)
    if isinstance(config, dict) and config.get("class_name", "Functional") not in ("Functional", "__keras_tensor__"):
        yield config["class_name"], config["config"]


def require_old_settings(file: Path) -> None:
    found = list(objects(config_of(file)))
    assert {name for name, _ in found} >= {"Conv2D", "Dense"}
    for name, settings in found:
        assert settings.keys() <= set(ACCEPTED[name]), name


def test_keras_3_8_knows_every_setting(tmp_path: Path, trained_run: Path) -> None:
    require_old_settings(trained_run / "best.keras")
    model = with_temperature(build.build_model("improved_resnet34", input_shape=(32, 32, 1)), 1.5)
    before = model.get_config()
    save_network(model, tmp_path / "model.keras")
    require_old_settings(tmp_path / "model.keras")
    assert model.get_config() == before
    # What was left away is what Keras takes without it.
    loaded = load_network(tmp_path / "model.keras")
    assert [settings for _, settings in objects(loaded.get_config())] == [settings for _, settings in objects(before)]
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 1)).astype(np.float32)
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), model.predict(images, verbose=0))


def test_so_it_is_of_an_average(tmp_path: Path) -> None:
    network = build.build_model("resnet34", input_shape=(32, 32, 1))
    save_network(average([network], ["flip", "crops"]), tmp_path / "model.keras")
    require_old_settings(tmp_path / "model.keras")


@pytest.mark.slow
@pytest.mark.parametrize("name", build.MODELS)
def test_so_it_is_of_every_network(tmp_path: Path, name: str) -> None:
    save_network(build.build_model(name, input_shape=(32, 32, 3)), tmp_path / "model.keras")
    require_old_settings(tmp_path / "model.keras")


def rewritten(run: Path, target: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Path:
    """A run whose checkpoint has another configuration and other metadata."""
    shutil.copytree(run, target)
    with zipfile.ZipFile(run / "best.keras") as old, zipfile.ZipFile(target / "best.keras", "w") as new:
        config, metadata = (json.loads(old.read(name)) for name in ("config.json", "metadata.json"))
        change(config, metadata)
        for name in old.namelist():
            data = {"config.json": config, "metadata.json": metadata}.get(name)
            new.writestr(name, old.read(name) if data is None else json.dumps(data))
    record_files(target, [target / "best.keras"])
    return target


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("99.1.0", f"written with Keras 99.1.0; {keras.__version__} is installed"),
        ("3.8.0", "A checkpoint must be a whole .keras file"),
        (None, "A checkpoint must be a whole .keras file"),
    ],
)
def test_a_checkpoint_that_cannot_be_read_says_of_which_keras_it_is(
    trained_run: Path, tmp_path: Path, version: str | None, message: str
) -> None:
    def change(config: dict[str, Any], metadata: dict[str, Any]) -> None:
        config["config"]["layers"][1]["config"]["of_tomorrow"] = 1
        metadata["keras_version"] = version

    result = btkeras("evaluate", rewritten(trained_run, tmp_path / "run", change))
    assert result.exit_code == 1 and message in result.stderr, result.output
    assert "Traceback" not in result.output
    assert ("pip install 'keras>=99.1.0'" in result.stderr) == (version == "99.1.0")


def test_what_older_keras_wrote_is_read(trained_run: Path, tmp_path: Path) -> None:
    run = rewritten(trained_run, tmp_path / "run", lambda config, metadata: metadata.update(keras_version="3.8.0"))
    a, b = (load_network(folder / "best.keras") for folder in (trained_run, run))
    assert a.get_config() == b.get_config()
