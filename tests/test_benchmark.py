"""``btkeras benchmark``: what is measured of a user's model, and what is said of it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from btkeras.benchmark.benchmark import Benchmark, Loaded, Row, benchmark, forms
from btkeras.benchmark.format import conclusion, format_benchmark
from btkeras.cli import main
from btkeras.errors import ConfigError, ModelError
from btkeras.files import read_json
from btkeras.inference.model_folder import MANIFEST
from btkeras.models.build import count_macs
from btkeras.models.reparameterize import reparameterize
from btkeras.runs import open_run

HAS_OPENVINO = importlib.util.find_spec("openvino") is not None


@pytest.fixture(scope="module")
def files(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version with an ONNX and a LiteRT file."""
    pytest.importorskip("tf2onnx")
    pytest.importorskip("ai_edge_litert")
    from btkeras.export.export import export

    return export(open_run(trained_run), tmp_path_factory.mktemp("files") / "tiny", formats=("onnx", "litert"))


@pytest.fixture(scope="module")
def measured(files: Path) -> Iterator[dict]:
    command = ["benchmark", "--model", str(files.parent), "--batch", "1", "--batch", "4", "--rounds", "2", "--json"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_each_file_of_a_version_is_measured_at_each_batch(measured: dict, files: Path) -> None:
    names = {item["form"] for item in measured["loaded"]}
    assert names >= {"onnx", "litert"}
    assert ("onnx, openvino" in names) == HAS_OPENVINO
    assert {(row["form"], row["batch"]) for row in measured["rows"]} == {(name, n) for name in names for n in (1, 4)}
    assert measured["failed"] == {}
    for row in measured["rows"]:
        assert 0 < row["milliseconds"] <= row["p95"]
        assert row["images"] == pytest.approx(1000 * row["batch"] / row["milliseconds"])
        assert 0 < row["share"] < 1.5
    for item in measured["loaded"]:
        assert item["difference"] < (1e-4 if "bfloat16" not in item["form"] else 0.1)
        assert 30 < item["mebibytes"] < 5000
        assert item["seconds"] > 0
        assert "predict --model" in item["use"]
    assert measured["matrix_rate"] > 1e8
    assert measured["machine"]["cores"] >= 1


def test_an_export_records_what_shares_are_counted_from(files: Path, measured: dict, trained_run: Path) -> None:
    from btkeras.evaluation.evaluate import load_best

    macs = read_json(files / MANIFEST)["macs"]
    assert macs == count_macs(reparameterize(load_best(open_run(trained_run))))
    row = next(row for row in measured["rows"] if row["form"] == "onnx" and row["batch"] == 4)
    assert row["share"] == pytest.approx(macs * 4 / (row["processor"] / 1000) / measured["matrix_rate"])


@pytest.mark.slow
def test_a_run_is_measured_as_trained_and_as_deployed(trained_run: Path) -> None:
    said: list[str] = []

    found = benchmark(trained_run, batches=(2,), rounds=1, done=said.append)

    assert [item.form for item in found.loaded] == ["as trained", "deploy form"]
    assert found.loaded[1].difference < 1e-4
    assert said == ["loaded as trained", "loaded deploy form", "batch 2"]
    text = "\n".join(format_benchmark(found))
    assert "as trained" in text
    assert f"btkeras export {trained_run}" in text


def test_a_file_that_cannot_be_loaded_is_named_and_the_others_are_measured(files: Path, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "model.onnx").write_bytes(b"no graph")
    (tmp_path / "1" / "model.tflite").write_bytes((files / "model.tflite").read_bytes())

    found = benchmark(tmp_path, batches=(1,), rounds=1)

    assert [item.form for item in found.loaded] == ["litert"]
    assert "whole" in found.failed["onnx"]
    assert any(line.startswith("onnx could not be measured") for line in format_benchmark(found))


def test_without_a_form_that_loads_the_reason_is_the_error(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(b"no graph")
    with pytest.raises(ModelError, match="litert"):
        benchmark(tmp_path / "model.tflite", rounds=1)


def test_what_is_no_model_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="run folder or an exported model"):
        forms(tmp_path)
    with pytest.raises(ConfigError):
        benchmark(tmp_path, rounds=0)


def _row(form: str, batch: int, milliseconds: float) -> Row:
    return Row(form, batch, milliseconds, 2 * milliseconds, milliseconds, 1000 * batch / milliseconds, 1.0, None)


def test_the_last_sentence_names_the_fastest_for_each_batch_and_how_to_use_it(tmp_path: Path) -> None:
    loaded = tuple(Loaded(form, 1.0, 0.0, 100.0, None, f"use {form}") for form in ("a", "b"))
    rows = (_row("a", 1, 5.0), _row("b", 1, 4.0), _row("a", 16, 40.0), _row("b", 16, 60.0))
    found = Benchmark(str(tmp_path), {}, 3, 1e9, loaded, rows, {})

    assert found.fastest(1).form == "b"
    assert conclusion(found) == (
        "Fastest here: b for one image at a time (4.0 ms, 250 a second); a for 16 images at a time "
        "(40.0 ms, 400 a second). Use it with: use b; use a"
    )


@pytest.mark.skipif(not HAS_OPENVINO, reason="needs the extra btkeras[openvino]")
def test_openvino_answers_as_onnx_runtime_whatever_the_number_of_images(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from btkeras.inference.backends import load_backend

    expected = load_backend(files / "model.onnx")
    monkeypatch.setenv("BTKERAS_ENGINE", "openvino")
    network = load_backend(files / "model.onnx")

    assert network.classes == expected.classes
    for count in (1, 3, 5, 8, 9, 21):
        images = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 1), np.uint8)
        np.testing.assert_allclose(
            network.predict(images).probabilities, expected.predict(images).probabilities, atol=1e-5
        )


def test_an_engine_that_there_is_not_is_an_error(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from btkeras.inference.backends import load_backend

    monkeypatch.setenv("BTKERAS_ENGINE", "abacus")
    with pytest.raises(ConfigError, match="abacus"):
        load_backend(files / "model.onnx")
