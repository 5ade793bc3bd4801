"""The self-test of exported models: passed by what was exported, and by nothing else."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest

from btkeras.inference.backends import load_backend
from btkeras.runs import open_run
from tests.test_cli import btkeras, fails
from tests.test_light import HEAVY, fresh

pytest.importorskip("ai_edge_litert")

EXTRA = "assets.extra"


@pytest.fixture(scope="module")
def run(calibrated_run: Path) -> Path:
    return calibrated_run


@pytest.fixture(scope="module")
def made(quantized_formats: Path) -> Path:
    return quantized_formats


@pytest.fixture
def version(made: Path, tmp_path: Path) -> Path:
    """One of its own, to be changed."""
    return shutil.copytree(made, tmp_path / "tiny" / "1")


def change(version: Path, name: str, **values: object) -> None:
    """Changes what is expected, as somebody might who also knows of the digests."""
    file, manifest = version / EXTRA / name, version / EXTRA / "manifest.json"
    document = json.loads(file.read_text())
    document["formats"]["litert"].update(values)
    file.write_text(json.dumps(document))
    digests = json.loads(manifest.read_text())
    digests["files"][f"{EXTRA}/{name}"] = hashlib.sha256(file.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(digests))


def test_what_was_exported_passes_without_tensorflow(made: Path, tmp_path: Path) -> None:
    result, loaded = fresh("selftest", "--model", made.parent, "--write", tmp_path / "slice.png")
    assert result.returncode == 0, result.stderr
    assert not HEAVY & loaded
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines()[:-1])
    assert lines["model"] == f"tiny, version 1: {made / 'model.tflite'}"
    assert lines["engine"].startswith("LiteRT 2")
    assert result.stdout.splitlines()[-1] == "ok"
    digest = hashlib.sha256((made / EXTRA / "manifest.json").read_bytes()).hexdigest()
    assert lines["files"].startswith("ok") and digest in lines["files"]
    # The image is one to try `predict` with, which then gives the very answer.
    answers = json.loads(btkeras("predict", tmp_path / "slice.png", "--model", made.parent, "--json").stdout)
    expected = json.loads((made / EXTRA / "selftest.json").read_text())["formats"]["litert"]
    assert answers[0]["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-6)
    assert (answers[0]["decision"], answers[0]["ood_percentile"]) == (expected["decision"], expected["ood_percentile"])


def test_each_format_is_tested_by_name(made: Path) -> None:
    found = json.loads(btkeras("selftest", "--model", made / "saved_model.pb", "--json").stdout)
    assert found["ok"] and found["engine"].startswith("TensorFlow 2") and found["tolerance"] == 1e-3
    assert found["difference"] <= 1e-6 and found["version"] == 1


def test_it_says_what_the_quantized_file_is_worth_and_not_its_run(made: Path, run: Path) -> None:
    manifest = json.loads((made / EXTRA / "manifest.json").read_text())
    cost = next(row for row in manifest["quantization"] if row["format"] == "litert")
    manifest["test"]["accuracy"] = 0.0625
    from btkeras.inference.model_folder import model_summary

    own = f"test accuracy {100 * cost['test']['accuracy']:.2f} % of {cost['test']['images']} slices"
    assert own in model_summary(manifest, "litert") and "test accuracy 6.25 %" in model_summary(manifest, "savedmodel")
    split = json.loads((run / "splits.json").read_text())
    assert f"trained on {len(split['train'])} slices of images" in model_summary(manifest, "litert")


def test_every_file_but_the_manifest_has_its_digest(made: Path) -> None:
    files = {path.relative_to(made).as_posix(): path for path in made.rglob("*") if path.is_file()}
    digests = json.loads(files.pop(f"{EXTRA}/manifest.json").read_text())["files"]
    assert digests == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    assert len(digests) > 8


@pytest.mark.parametrize("name", ["model.tflite", "saved_model.pb", f"{EXTRA}/selftest.json", f"{EXTRA}/ood.json"])
def test_a_changed_or_missing_file_fails(version: Path, name: str) -> None:
    data = bytearray((version / name).read_bytes())
    data[len(data) // 2] ^= 1
    (version / name).write_bytes(data)
    fails(
        btkeras("selftest", "--model", version / "model.tflite"), "as they were exported", name, "content was changed"
    )
    if name != "model.tflite":
        (version / name).unlink()
        fails(btkeras("selftest", "--model", version / "model.tflite"), name, "which is missing")


def test_a_file_that_was_added_is_not_trusted(version: Path) -> None:
    (version / "model.tflite").rename(version / "kept")
    fails(btkeras("selftest", "--model", version / "model.onnx"), r"model\.tflite, which is missing")
    shutil.copy(version / "kept", version / "model.tflite")
    shutil.copy(version / "kept", version / "other.tflite")
    fails(btkeras("selftest", "--model", version / "other.tflite"), r"other\.tflite, which is not in")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"probabilities": {"glioma": 0.9, "meningioma": 0.1, "no_tumor": 0.0, "pituitary": 0.0}},
            "a probability that",
        ),
        ({"ood_percentile": 3.0}, "an OOD percentile of .* and not 3.0"),
        ({"decision": "pituitary", "decided": True}, "and not pituitary"),
    ],
)
def test_another_answer_fails(version: Path, values: dict[str, object], words: str) -> None:
    assert btkeras("selftest", "--model", version).exit_code == 0
    change(version, "selftest.json", **values)
    fails(btkeras("selftest", "--model", version), "must predict as it did", words, "LiteRT")


def test_an_answer_within_the_tolerance_passes(version: Path) -> None:
    expected = json.loads((version / EXTRA / "selftest.json").read_text())["formats"]["litert"]["probabilities"]
    change(version, "selftest.json", probabilities={name: p + 0.04 for name, p in expected.items()})
    result = btkeras("selftest", "--model", version, "--json")
    assert json.loads(result.stdout)["difference"] == pytest.approx(0.04, abs=1e-3)
    change(version, "selftest.json", probabilities={name: p + 0.06 for name, p in expected.items()})
    fails(btkeras("selftest", "--model", version), "a probability that differs by 0.06")


def test_a_missing_engine_is_one_message(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    fails(btkeras("selftest", "--model", version / "model.tflite"), "needs the package ai_edge_litert", "pip install")


def test_what_carries_no_self_test_is_one_message(version: Path, run: Path, tmp_path: Path) -> None:
    manifest = version / EXTRA / "manifest.json"
    old = {key: value for key, value in json.loads(manifest.read_text()).items() if key != "files"}
    manifest.write_text(json.dumps(old))
    fails(btkeras("selftest", "--model", version), "older btkeras", "Export the run again")
    fails(btkeras("selftest", "--model", run), "a run", "btkeras export")
    alone = shutil.copy(version / "model.tflite", tmp_path / "model.tflite")
    fails(btkeras("selftest", "--model", alone), r"with its assets\.extra/")
    manifest.write_text("[]")
    fails(btkeras("selftest", "--model", version), "must be whole")


def test_a_quantized_file_is_compared_with_itself(made: Path, run: Path) -> None:
    """The percentages and sets of float32 mislead: int8 moves the scores of the validation slices themselves."""
    import numpy as np

    from btkeras.decisions.calibration import nonconformity_scores
    from btkeras.evaluation.calibrate import calibration_images
    from btkeras.export.quantize import subset_slices

    network, checkpoint = load_backend(made / "model.tflite"), load_backend(run)
    opened = open_run(run)
    subset, dataset = subset_slices(opened, "validation"), opened.dataset()
    probabilities, _ = network.predict(subset.images)
    _, scores = network.predict(calibration_images(opened, opened.split(dataset), dataset).images)
    assert np.abs(np.sort(scores) - checkpoint.ood_calibration.scores).max() > 1e-3
    # By its own reference exactly as many are at most as unlike as there are.
    assert np.sort(network.ood_calibration.percentile(scores)).tolist() == [
        100 * (i + 1) / len(scores) for i in range(len(scores))
    ]
    np.testing.assert_allclose(
        network.calibration.scores, nonconformity_scores(subset.labels, probabilities), atol=1e-6
    )
    assert network.calibration.scores != checkpoint.calibration.scores
    assert network.calibration.temperature == checkpoint.calibration.temperature
    assert "int8" in network.calibration.method
    # What lies beside is float32's, as the SavedModel is.
    exact = load_backend(made / "saved_model.pb")
    np.testing.assert_allclose(exact.ood_calibration.scores, checkpoint.ood_calibration.scores, rtol=1e-6)
