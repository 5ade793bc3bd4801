"""The served model, as a client of TensorFlow Serving meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from btkeras import Predictor
from btkeras.errors import ModelError
from btkeras.runs import open_run
from btkeras.serving import export as module
from btkeras.serving.export import export

# Runs with keras and btkeras blocked: what a hospital's server has.
CLIENT = """
import json, sys
# `import tensorflow` imports keras' sources on its own; blocked are they afterwards, and btkeras from the start.
sys.modules["btkeras"] = None
sys.modules["keras"] = None
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
answer = model.signatures["serving_default"](image_bytes=tf.constant([open(p, "rb").read() for p in sys.argv[2:]]))
print(json.dumps({name: value.numpy().tolist() for name, value in answer.items()}, default=bytes.decode))
"""


@pytest.fixture(scope="module")
def exported(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(open_run(trained_run), tmp_path_factory.mktemp("saved_models") / "tiny")


@pytest.fixture(scope="module")
def slices(shared_pictures: Path) -> list[Path]:
    return sorted(shared_pictures.glob("*/001.png"))


def test_the_served_model_agrees_with_predict_without_keras_or_btkeras(
    exported: Path, trained_run: Path, slices: list[Path]
) -> None:
    output = subprocess.run([sys.executable, "-c", CLIENT, exported, *slices], capture_output=True, text=True)
    assert output.returncode == 0, output.stderr
    answer = json.loads(output.stdout)
    labels, probabilities = Predictor(trained_run).predict(slices)
    np.testing.assert_allclose(answer["probabilities"], probabilities, atol=1e-5)
    assert answer["label"] == labels
    assert answer["classes"] == [["glioma", "meningioma", "no_tumor", "pituitary"]] * len(slices)


def test_predict_reads_an_exported_model_by_name_and_by_version(
    exported: Path, trained_run: Path, slices: list[Path]
) -> None:
    expected = Predictor(trained_run).predict(slices).probabilities
    for path in (exported, exported.parent):
        np.testing.assert_allclose(Predictor(path).predict(slices).probabilities, expected, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_of_any_size_give_what_their_png_gives(exported: Path, tmp_path: Path, channels: int) -> None:
    signatures = tf.saved_model.load(str(exported))
    images = np.random.default_rng(0).integers(0, 256, (2, 57, 71, channels), np.uint8)
    encoded = []
    for i, image in enumerate(images):
        Image.fromarray(image.squeeze()).save(tmp_path / f"{i}.png")
        encoded.append((tmp_path / f"{i}.png").read_bytes())
    by_pixels = signatures.signatures["serving_pixels"](images=tf.constant(images))
    by_bytes = signatures.signatures["serving_default"](image_bytes=tf.constant(encoded))
    np.testing.assert_allclose(by_pixels["probabilities"], by_bytes["probabilities"], atol=1e-6)


def test_the_weights_are_stored_once(exported: Path, trained_run: Path) -> None:
    stored = (exported / "variables/variables.data-00000-of-00001").stat().st_size
    parameters = sum(w.size for w in _weights(trained_run)) * 4
    assert stored < 1.3 * parameters


def _weights(run: Path) -> list[np.ndarray]:
    from btkeras.evaluation.evaluate import load_best

    return load_best(open_run(run)).get_weights()


def test_signatures_are_the_contract(exported: Path) -> None:
    loaded = tf.saved_model.load(str(exported))
    inputs = {name: f.structured_input_signature[1] for name, f in loaded.signatures.items()}
    assert inputs["serving_default"]["image_bytes"].dtype == tf.string
    assert inputs["serving_pixels"]["images"].dtype == tf.uint8
    outputs = loaded.signatures["serving_default"].structured_outputs
    assert {name: spec.dtype for name, spec in outputs.items()} == {
        "probabilities": tf.float32,
        "label": tf.string,
        "classes": tf.string,
    }


@pytest.mark.parametrize("data", [b"", b"text", b"GIF89a" + bytes(100)])
def test_bytes_that_are_no_picture_are_refused(exported: Path, data: bytes) -> None:
    loaded = tf.saved_model.load(str(exported))
    with pytest.raises(tf.errors.InvalidArgumentError):
        loaded.signatures["serving_default"](image_bytes=tf.constant([data]))


def test_versions_count_up_and_one_that_exists_is_kept(trained_run: Path, tmp_path: Path) -> None:
    run, out = open_run(trained_run), tmp_path / "m"
    assert [export(run, out, version).name for version in (None, None, 7, None)] == ["1", "2", "7", "8"]
    with pytest.raises(ModelError, match="not there yet"):
        export(run, out, 7)


def test_a_model_that_disagrees_is_not_published(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = module._answer
    monkeypatch.setattr(module, "_answer", lambda *a: right(*a) | {"probabilities": right(*a)["probabilities"] * 0.99})
    with pytest.raises(ModelError, match="must agree with its checkpoint"):
        export(open_run(trained_run), tmp_path / "m")
    assert not list((tmp_path / "m").iterdir())
