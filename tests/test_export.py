"""The served model, as a client of TensorFlow Serving meets it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from btkeras import Predictor
from btkeras.errors import ModelError
from btkeras.evaluation.evaluate import load_best
from btkeras.explain.cam import explain
from btkeras.export.export import export
from btkeras.export.network import ExportNetwork
from btkeras.inference.backends import load_backend
from btkeras.runs import open_run

# Runs with keras and btkeras blocked: what a hospital's server has.
CLIENT = """
import json, sys
# `import tensorflow` imports keras' sources on its own; blocked are they afterwards, and btkeras from the start.
sys.modules["btkeras"] = None
sys.modules["keras"] = None
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
answer = model.signatures["serving_default"](image_bytes=tf.constant([open(p, "rb").read() for p in sys.argv[2:]]))
_, *shape = model.signatures["serving_prepared"].structured_input_signature[1]["images"].shape
images = tf.reshape(tf.cast(tf.range(2 * shape[0] * shape[1] * shape[2]) % 251, tf.uint8), [2, *shape])
maps = model.signatures["serving_explained"](images=images, class_index=tf.constant([2, -1]))
answer |= {"map": maps["map"], "explained": maps["label"]}
print(json.dumps({name: value.numpy().tolist() for name, value in answer.items()}, default=bytes.decode))
"""


@pytest.fixture(scope="module")
def exported(exported_model: Path) -> Path:
    return exported_model / "1"


@pytest.fixture(scope="module")
def slices(shared_images: Path) -> list[Path]:
    return sorted(shared_images.glob("*/001.png"))


def test_the_served_model_answers_and_explains_without_keras_or_btkeras(
    exported: Path, trained_run: Path, slices: list[Path]
) -> None:
    output = subprocess.run([sys.executable, "-c", CLIENT, exported, *slices], capture_output=True, text=True)
    assert output.returncode == 0, output.stderr
    answer = json.loads(output.stdout)
    labels, probabilities = Predictor(trained_run).predict(slices)
    np.testing.assert_allclose(answer["probabilities"], probabilities, atol=1e-5)
    assert answer["label"] == labels
    assert answer["classes"] == [["glioma", "meningioma", "no_tumor", "pituitary"]] * len(slices)
    images = (np.arange(2 * 32 * 32) % 251).astype(np.uint8).reshape(2, 32, 32, 1)
    model = load_best(open_run(trained_run))
    probable = int(np.asarray(model(images[1:].astype(np.float32))).argmax())
    np.testing.assert_allclose(answer["map"], explain(model, images, np.array([2, probable])), atol=1e-4)
    assert answer["explained"] == ["no_tumor", answer["classes"][0][probable]]


@pytest.mark.parametrize("of_run", [False, True])
def test_a_network_explains_any_number_of_slices(exported: Path, trained_run: Path, of_run: bool) -> None:
    network = load_backend(trained_run if of_run else exported)
    assert (network.version, network.explain is not None) == (None if of_run else 1, True)
    images = np.random.default_rng(0).integers(0, 256, (18, 32, 32, 1), np.uint8)
    indices = np.arange(18) % 4
    expected = explain(load_best(open_run(trained_run)), images, indices)
    np.testing.assert_allclose(network.explain(images, indices), expected, atol=1e-4)
    assert network.explain(images[:0], indices[:0]).shape == (0, 32, 32)


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
    parameters = sum(w.size for w in load_best(open_run(trained_run)).get_weights()) * 4
    assert stored < 1.3 * parameters


def test_signatures_are_the_contract(exported: Path) -> None:
    loaded = tf.saved_model.load(str(exported))
    inputs = {
        name: {key: (spec.dtype, spec.shape.as_list()) for key, spec in f.structured_input_signature[1].items()}
        for name, f in loaded.signatures.items()
    }
    prepared = (tf.uint8, [None, 32, 32, 1])
    assert inputs == {
        "serving_default": {"image_bytes": (tf.string, [None])},
        "serving_pixels": {"images": (tf.uint8, [None, None, None, None])},
        "serving_prepared": {"images": prepared},
        "serving_explained": {"images": prepared, "class_index": (tf.int32, [None])},
    }
    outputs = loaded.signatures["serving_default"].structured_outputs
    assert {name: spec.dtype for name, spec in outputs.items()} == {
        "probabilities": tf.float32,
        "label": tf.string,
        "classes": tf.string,
    }


@pytest.mark.parametrize("data", [b"", b"text", b"GIF89a" + bytes(100)])
def test_bytes_that_are_no_image_are_refused(exported: Path, data: bytes) -> None:
    loaded = tf.saved_model.load(str(exported))
    with pytest.raises(tf.errors.InvalidArgumentError):
        loaded.signatures["serving_default"](image_bytes=tf.constant([data]))


def test_versions_count_up_and_one_that_exists_is_kept(
    exported: Path, trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only the numbers are looked at.
    write = "btkeras.export.export._Exporter.write"
    monkeypatch.setattr(write, lambda self, folder, *_: shutil.copytree(exported, folder / "x"))
    run, out = open_run(trained_run), tmp_path / "m"
    for wanted, made in ((None, "1"), (7, "7"), (None, "8")):
        folder = export(run, out, wanted)
        assert folder.name == made
        (folder / "x").rename(tmp_path / "x")
        shutil.copytree(tmp_path / "x", folder, dirs_exist_ok=True)
        shutil.rmtree(tmp_path / "x")
    with pytest.raises(ModelError, match="does not exist yet"):
        export(run, out, 7)


def test_a_model_that_disagrees_is_not_published(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = ExportNetwork.outputs
    monkeypatch.setattr(
        ExportNetwork, "outputs", lambda *a: right(*a) | {"probabilities": right(*a)["probabilities"] * 0.99}
    )
    with pytest.raises(ModelError, match=r"with its checkpoint.*probabilities of .*png through savedmodel's serv"):
        export(open_run(trained_run), tmp_path / "m")
    assert not list((tmp_path / "m").iterdir())


def test_maps_that_disagree_are_not_published(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("btkeras.export.maps._to_one", lambda maps: maps)
    with pytest.raises(ModelError, match=r"in map of .* serving_explained; nothing was published"):
        export(open_run(trained_run), tmp_path / "m")
    assert not list((tmp_path / "m").iterdir())


def test_the_folder_says_what_it_is(exported: Path, trained_run: Path) -> None:
    extra = exported / "assets.extra"
    manifest = json.loads((extra / "manifest.json").read_text())
    checkpoint = (trained_run / "best.keras").read_bytes()
    assert manifest["checkpoint"] == {"file": "best.keras", "sha256": hashlib.sha256(checkpoint).hexdigest()}
    metrics = json.loads((trained_run / "metrics.json").read_text())
    assert (manifest["test"]["images"], manifest["test"]["accuracy"]) == (metrics["images"], metrics["accuracy"])
    rows = {row["signature"]: row for row in manifest["parity"]["rows"]}
    assert set(rows) == {"serving_default", "serving_pixels", "serving_prepared", "serving_explained"}
    assert all(row["labels"] == row["images"] for name, row in rows.items() if name != "serving_explained")
    assert "of the validation subset" in manifest["parity"]["inputs"]
    assert (extra / "labels.txt").read_text().split() == manifest["classes"]
    card = (extra / "model_card.md").read_text()
    assert str(trained_run) not in card + json.dumps(manifest)
    assert "serving_pixels" in card and "never evaluated" not in card


def test_warm_up_requests_are_tensorflow_servings_and_are_answered(exported: Path) -> None:
    logs = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    served = tf.saved_model.load(str(exported))
    batches = []
    for record in tf.data.TFRecordDataset(str(exported / "assets.extra" / "tf_serving_warmup_requests")):
        log = logs.PredictionLog.FromString(record.numpy())
        request = log.predict_log.request
        assert (request.model_spec.name, request.model_spec.signature_name) == ("tiny", "serving_default")
        # Nothing in it is unknown to the official types.
        assert len(log.SerializeToString()) == len(record.numpy())
        assert list(request.inputs) == ["image_bytes"]
        tensor = tf.constant(tf.make_ndarray(request.inputs["image_bytes"]))
        answer = served.signatures["serving_default"](image_bytes=tensor)
        batches.append(len(answer["label"]))
    assert batches == [1, 2, 4, 8, 16, 32]


def test_who_reads_all_the_time_sees_no_half_version_even_of_a_run_without_metrics_and_dataset(
    trained_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(trained_run, tmp_path / "run")
    (run / "metrics.json").unlink()
    manifest = json.loads((run / "manifest.json").read_text()) | {"dataset": str(tmp_path / "gone")}
    (run / "manifest.json").write_text(json.dumps(manifest))
    out, done, found, reads = tmp_path / "tiny", threading.Event(), [], 0

    def read() -> None:
        nonlocal reads
        while not done.wait(0.002):
            reads += 1
            # As TensorFlow Serving does: a version is a folder whose name is a number.
            for version in out.glob("[0-9]*"):
                found.append({str(path.relative_to(version)) for path in version.rglob("*") if path.is_file()})

    reader = threading.Thread(target=read)
    reader.start()
    try:
        version = export(open_run(run), out)
        count = reads
        while reads < count + 2:
            time.sleep(0.002)
    finally:
        done.set()
        reader.join()
    files = {str(path.relative_to(version)) for path in version.rglob("*") if path.is_file()}
    assert reads > 10 and found and all(each == files for each in found)
    assert "never evaluated" in (version / "assets.extra/model_card.md").read_text()
    written = json.loads((version / "assets.extra/manifest.json").read_text())
    assert written["test"] is None and "synthetic" in written["parity"]["inputs"]
