"""ONNX and LiteRT files: what their engines answer, what they carry, and what quantisation is said to cost."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from btkeras import Predictor
from btkeras.cli import main
from btkeras.errors import DataError, ModelError
from btkeras.export.export import export
from btkeras.inference.backends import load_backend
from btkeras.runs import open_run

pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")
pytest.importorskip("ai_edge_litert")

FILES = ("model.onnx", "model.tflite")


@pytest.fixture(scope="module")
def calibrated(calibrated_run: Path) -> Path:
    return calibrated_run


@pytest.fixture(scope="module")
def exported(exported_formats: Path) -> Path:
    return exported_formats


@pytest.fixture(scope="module")
def quantized(quantized_formats: Path) -> Path:
    return quantized_formats


@pytest.mark.parametrize("name", FILES)
def test_a_file_alone_answers_as_its_run(exported: Path, calibrated: Path, tmp_path: Path, name: str) -> None:
    run, network = load_backend(calibrated), load_backend(shutil.copy(exported / name, tmp_path / f"sent-{name}"))
    assert (network.classes, network.size, network.channels) == (run.classes, 32, 1)
    assert network.calibration == run.calibration
    np.testing.assert_allclose(network.ood_calibration.scores, run.ood_calibration.scores, rtol=1e-6)
    for count in (3, 1, 5):
        images = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 1), np.uint8)
        (ours, scores), (theirs, expected) = network.predict(images), run.predict(images)
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
        np.testing.assert_allclose(scores, expected, rtol=1e-3)


def test_a_version_without_a_saved_model_is_loaded_from_its_files(
    exported: Path, calibrated: Path, shared_images: Path
) -> None:
    paths = sorted(shared_images.glob("*/001.png"))
    by_name, by_run = Predictor(exported.parent), Predictor(calibrated)
    assert load_backend(exported.parent).version == 1
    for ours, theirs in zip(by_name.predict_files(paths), by_run.predict_files(paths), strict=True):
        assert (ours.decision, ours.set, ours.ood_percentile) == (theirs.decision, theirs.set, theirs.ood_percentile)


def test_onnx_runtime_alone_finds_everything_in_the_file(exported: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(exported / "model.onnx", providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    assert (taken.name, taken.type, taken.shape) == ("images", "tensor(uint8)", ["n", 32, 32, 1])
    assert {o.name: o.shape for o in session.get_outputs()} == {"probabilities": ["n", 4], "ood_score": ["n"]}
    carried = session.get_modelmeta().custom_metadata_map
    assert carried["labels.txt"].split() == ["glioma", "meningioma", "no_tumor", "pituitary"]
    assert json.loads(carried["manifest.json"])["harmonize"] is False


def test_a_litert_file_is_an_archive_of_its_texts(exported: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    with zipfile.ZipFile(exported / "model.tflite") as archive:
        assert archive.read("labels.txt").split() == [b"glioma", b"meningioma", b"no_tumor", b"pituitary"]
        assert json.loads(archive.read("calibration.json"))["temperature"] > 0
    interpreter = Interpreter(str(exported / "model.tflite"))
    # As a program on a phone does, without signatures.
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], [2, 32, 32, 1])
    interpreter.allocate_tensors()
    (taken,) = interpreter.get_input_details()
    assert (taken["dtype"], taken["shape"].tolist()) == (np.uint8, [2, 32, 32, 1])


def test_int8_is_published_with_its_cost(quantized: Path, calibrated: Path) -> None:
    from btkeras.export.quantize import subset_slices

    subset = subset_slices(open_run(calibrated), "validation")
    images, labels = subset.images, subset.labels
    exact = load_backend(calibrated).predict(images).probabilities.argmax(axis=1) == labels
    costs = json.loads((quantized / "assets.extra" / "manifest.json").read_text())["quantization"]
    assert {cost["format"]: cost["quantization"] for cost in costs} == {"onnx": "int8", "litert": "int8"}
    for cost in costs:
        name = {"onnx": "model.onnx", "litert": "model.tflite"}[cost["format"]]
        right = load_backend(quantized / name).predict(images).probabilities.argmax(axis=1) == labels
        assert cost["images"] == len(labels)
        assert cost["correct"] == [exact.sum(), right.sum()]
        assert cost["only_float32"] == (exact & ~right).sum() and cost["only_quantized"] == (right & ~exact).sum()
        assert cost["points_lost"] == pytest.approx(100 * (exact.mean() - right.mean()))
        # Compared without maps, which are added last.
        maps = (quantized / name).stat().st_size - cost["bytes"][1]
        assert 0 < maps < 100_000
        # It is another network, not float32 under another name.
        assert cost["difference"] > 0


def test_int8_weights_are_in_the_files(quantized: Path) -> None:
    import onnx

    kinds = {node.op_type for node in onnx.load(quantized / "model.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds


def test_the_outlier_score_is_computed_in_float32_to_its_end(quantized: Path) -> None:
    """Eight bits have a largest value, and nothing would be further away than that."""
    import onnx

    makers = {name: node for node in onnx.load(quantized / "model.onnx").graph.node for name in node.output}
    # Back from the output to where probabilities and features come out of the network.
    kinds, waiting = [], ["ood_score"]
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.op_type != "Concat":
            kinds.append(node.op_type)
            waiting += node.input
    assert {"Sub", "MatMul"} <= set(kinds)
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(kinds)


def test_float16_halves_a_litert_file_and_the_command_says_so(calibrated: Path, tmp_path: Path) -> None:
    out = tmp_path / "half"
    command = ["export", str(calibrated), "--out", str(out), "--format", "litert", "--quantize", "float16"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out / '1'}\n"
    assert "only float32 right" in result.stderr and "95 % interval" in result.stderr
    (row,) = json.loads((out / "1/assets.extra/manifest.json").read_text())["quantization"]
    assert row["bytes"][1] < row["bytes"][0] and row["points_lost"] == 0
    assert 0 < row["difference"] < 0.05


@pytest.mark.parametrize(
    ("formats", "quantize", "words"),
    [
        (("savedmodel",), "int8", "Only ONNX and LiteRT"),
        (("onnx",), "float16", "int8 only"),
        (("pickle",), None, "A format must be one of"),
    ],
)
def test_what_does_not_go_together_is_an_error(
    calibrated: Path, tmp_path: Path, formats: tuple[str, ...], quantize: str | None, words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        export(open_run(calibrated), tmp_path / "m", formats=formats, quantize=quantize)
    assert not (tmp_path / "m").exists()


def test_quantization_without_the_dataset_is_an_error(calibrated: Path, tmp_path: Path) -> None:
    run = shutil.copytree(calibrated, tmp_path / "run")
    manifest = json.loads((run / "manifest.json").read_text()) | {"dataset": str(tmp_path / "gone")}
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="needs the run's dataset"):
        export(open_run(run), tmp_path / "m", formats=("litert",), quantize="int8")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("form", "module"), [("onnx", "tf2onnx"), ("onnx", "onnxruntime"), ("litert", "ai_edge_litert.interpreter")]
)
def test_a_missing_package_is_named(
    calibrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModelError, match=rf"pip install 'btkeras\[{form}\]'"):
        export(open_run(calibrated), tmp_path / "m", formats=(form,))
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [b"", b"text", "cut"])
def test_a_damaged_file_is_an_error(exported: Path, tmp_path: Path, name: str, content: bytes | str) -> None:
    whole = (exported / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    with pytest.raises(ModelError, match="must be whole"):
        load_backend(tmp_path / name)
