"""``btkeras benchmark``: what is timed of a model, and what is said about it; OpenVINO as an engine."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from btkeras.cli.benchmark import format_benchmark, measure
from btkeras.errors import ConfigError, ModelError
from btkeras.inference.backends import load_backend, single_file
from tests.test_cli import btkeras

HAS_OPENVINO = importlib.util.find_spec("openvino") is not None


@pytest.fixture(autouse=True)
def _short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("btkeras.cli.benchmark._TURN_SECONDS", 0.01)


def test_each_file_of_a_version_is_timed_at_each_batch(exported_formats: Path) -> None:
    options = ("--batch", "1", "--batch", "4", "--rounds", "2", "--json")
    result = btkeras("benchmark", "--model", exported_formats.parent, *options)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    names = set(found["formats"])
    assert names >= {"savedmodel", "onnx", "litert"} and found["failed"] == {}
    assert ("onnx, openvino" in names) == HAS_OPENVINO
    assert {(row["format"], row["batch"]) for row in found["rows"]} == {(name, n) for name in names for n in (1, 4)}
    for row in found["rows"]:
        assert 0 < row["milliseconds"] <= row["p95"]
        assert row["images_per_second"] == pytest.approx(1000 * row["batch"] / row["milliseconds"])
    for name, values in found["formats"].items():
        assert values["difference"] < (1e-4 if "bfloat16" not in name else 0.1)
        assert values["load_seconds"] > 0 and "predict --model" in values["use"]
    assert found["machine"]["cores"] >= 1


def test_a_run_is_timed_as_trained_and_reparameterized(trained_run: Path) -> None:
    said: list[str] = []
    found = measure(trained_run, batches=(2,), rounds=1, progress=said.append)
    assert list(found["formats"]) == ["as trained", "re-parameterised"]
    assert found["formats"]["re-parameterised"]["difference"] < 1e-4
    assert said == ["loaded as trained", "loaded re-parameterised", "batch 2, round 1 of 1"]
    assert f"btkeras export {trained_run}" in found["formats"]["re-parameterised"]["use"]
    assert "no files of other formats" in format_benchmark(found)[-1]


def test_a_file_that_cannot_be_loaded_is_named_and_the_others_are_timed(exported_formats: Path, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "model.onnx").write_bytes(b"no graph")
    (tmp_path / "1" / "model.tflite").write_bytes((exported_formats / "model.tflite").read_bytes())
    found = measure(tmp_path, batches=(1,), rounds=1)
    assert "litert" in found["formats"] and "onnx" not in found["formats"] and "whole" in found["failed"]["onnx"]
    assert any(line.startswith("onnx could not be timed") for line in format_benchmark(found))
    # By its name, one file alone.
    assert next(iter(measure(tmp_path / "1/model.tflite", batches=(1,), rounds=1)["formats"])) == "litert"


def test_without_a_format_that_loads_the_reason_is_the_error(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(b"no graph")
    with pytest.raises(ModelError, match="litert"):
        measure(tmp_path / "model.tflite", (1,), 1)
    with pytest.raises(ModelError, match="run folder or an exported model"):
        measure(tmp_path / "nothing", (1,), 1)


def test_the_last_lines_name_the_fastest_for_each_batch_and_how_to_use_it(tmp_path: Path) -> None:
    times = {("a", 1): 5.0, ("b", 1): 4.0, ("a", 16): 40.0, ("b", 16): 60.0}
    found = {
        "model": str(tmp_path),
        "machine": {"processor": "p", "instructions": ["avx2"], "threads": 1, "cores": 2, "load": None},
        "rounds": 3,
        "formats": {name: {"load_seconds": 1.0, "difference": 0.0, "use": f"use {name}"} for name in "ab"},
        "rows": [
            {"format": name, "batch": n, "milliseconds": ms, "p95": 2 * ms, "images_per_second": 1000 * n / ms}
            for (name, n), ms in times.items()
        ],
        "failed": {},
    }
    assert format_benchmark(found)[-2:] == [
        "fastest for one image at a time: b. Use: use b",
        "fastest for 16 images at a time: a. Use: use a",
    ]


@pytest.mark.skipif(not HAS_OPENVINO, reason="needs the extra btkeras[openvino]")
@pytest.mark.parametrize("name", ["model.onnx", "model.tflite"])
def test_openvino_predicts_as_a_formats_own_engine_whatever_the_number_of_images(
    exported_formats: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    expected = load_backend(exported_formats / name)
    monkeypatch.setenv("BTKERAS_ENGINE", "openvino")
    backend = load_backend(exported_formats / name)
    assert backend.classes == expected.classes
    for count in (1, 2, 3, 5, 8, 9, 21):
        images = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 1), np.uint8)
        found, wanted = backend.predict(images), expected.predict(images)
        np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=1e-5)
        np.testing.assert_allclose(found.ood_scores, wanted.ood_scores, rtol=1e-4)


@pytest.mark.parametrize(
    ("installed", "instructions", "litert", "onnx"),
    [
        ((), (), "litert", "onnxruntime"),
        ((), ("bfloat16", "int8"), "litert-mixed", "onnxruntime"),
        (("openvino",), (), "openvino", "openvino"),
        (("openvino",), ("int8",), "litert-mixed", "openvino"),
        (("openvino",), ("bfloat16",), "openvino-mixed", "openvino-mixed"),
        (("openvino",), ("bfloat16", "int8"), "litert-mixed", "openvino-mixed"),
        (("openvino",), ("bfloat16", "bfloat16 tiles", "int8"), "openvino-mixed", "openvino-mixed"),
    ],
)
def test_a_faster_engine_takes_over_where_it_can_and_pays(
    exported_formats: Path,
    quantized_formats: Path,
    monkeypatch: pytest.MonkeyPatch,
    installed: tuple[str, ...],
    instructions: tuple[str, ...],
    litert: str,
    onnx: str,
) -> None:
    monkeypatch.delenv("BTKERAS_ENGINE", raising=False)
    monkeypatch.setattr(single_file.importlib.util, "find_spec", lambda name: name if name in installed else None)
    monkeypatch.setattr(single_file, "has_instructions", lambda name: name in instructions)
    float32, int8 = exported_formats / "model.tflite", quantized_formats / "model.tflite"
    assert [single_file.engine(float32, count) for count in (1, 199, 200)] == ["litert", "litert", litert]
    assert single_file.engine(exported_formats / "model.onnx", 200) == onnx
    # Another engine computes int8 otherwise, and so gives other probabilities.
    assert single_file.engine(int8, 200) == "litert"
    monkeypatch.setenv("BTKERAS_ENGINE", "litert")
    assert single_file.engine(float32, 200) == "litert"
    monkeypatch.setenv("BTKERAS_ENGINE", "litert-mixed")
    assert single_file.engine(exported_formats / "model.onnx", 1) == "onnxruntime"


def test_an_unknown_engine_is_an_error(exported_formats: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTKERAS_ENGINE", "abacus")
    with pytest.raises(ConfigError, match="abacus"):
        load_backend(exported_formats / "model.onnx")
