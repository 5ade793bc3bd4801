"""Kernels of 8 bits, made in memory: against TensorFlow's converter, and against float32 with its decisions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from btkeras.inference.backends import InferenceBackend, load_backend
from btkeras.inference.backends.int8 import with_int8_kernels, with_rows_as_channels
from btkeras.inference.predictor import Predictor

litert = pytest.importorskip("ai_edge_litert.interpreter")
tf = pytest.importorskip("tensorflow")


def converted(network: tf.types.experimental.PolymorphicFunction, kind: str | None) -> bytes:
    module = tf.Module()
    module.network = network
    converter = tf.lite.TFLiteConverter.from_concrete_functions([network.get_concrete_function()], module)
    if kind:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16] if kind == "float16" else []
    content: bytes = converter.convert()
    return content


def convolutions(kind: str | None) -> bytes:
    """Convolutions, one of them too small to pay, as TensorFlow's converter writes them."""
    rng, shapes = np.random.default_rng(0), ((5, 5, 1, 64), (3, 3, 64, 96), (1, 1, 96, 64))
    kernels = [rng.normal(0, 0.3, shape).astype(np.float32) for shape in shapes]
    small = rng.normal(0, 0.3, (1, 1, 64, 4)).astype(np.float32)

    @tf.function(input_signature=[tf.TensorSpec([None, 16, 16, 1], tf.float32, name="images")])
    def network(images: tf.Tensor) -> dict[str, tf.Tensor]:
        for stride, kernel in enumerate(kernels, start=1):
            bias = kernel.mean(axis=(0, 1, 2))
            images = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(images, kernel, stride, "SAME"), bias))
        return {"probabilities": tf.nn.conv2d(images, small, 1, "VALID")}

    return converted(network, kind)


def outputs(content: bytes, images: np.ndarray) -> np.ndarray:
    interpreter = litert.Interpreter(model_content=content)
    (place,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(place["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(place["index"], images)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


@pytest.mark.parametrize("kind", [None, "float16"])
def test_it_computes_as_the_converters_int8(kind: str | None) -> None:
    images = np.random.default_rng(1).normal(0, 1, (3, 16, 16, 1)).astype(np.float32)
    exact, content = outputs(convolutions(None), images), with_int8_kernels(convolutions(kind))
    found, wanted = outputs(content, images), outputs(convolutions("int8"), images)
    # Kernels that were float16 before are rounded a little differently.
    assert np.abs(found - wanted).max() <= (1e-5 if kind is None else 2e-2) * np.abs(exact).max()
    assert 0 < np.abs(found - exact).max() < 0.05 * np.abs(exact).max()
    assert len(content) < 0.75 * len(convolutions("float16"))
    assert_names_differ(content)


def assert_names_differ(content: bytes) -> None:
    """OpenVINO takes tensors of one name for one (findings/openvino_litert_names.sh)."""
    details = litert.Interpreter(
        model_content=content, experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    ).get_tensor_details()
    # LiteRT's own have none.
    names = [each["name"] for each in details if each["name"]]
    assert len(set(names)) == len(names)


# All pixels are used, so that LiteRT finds the same range of values for its 8 bits.
@pytest.mark.parametrize(
    ("size", "padding", "strides", "dilations"),
    [
        ((9, 9), "SAME", (1, 1), (1, 1)),
        ((5, 12), "VALID", (2, 3), (1, 1)),
        ((9, 9), "SAME", (3, 2), (1, 1)),
        ((5, 12), "SAME", (1, 1), (2, 1)),
        ((9, 9), "VALID", (1, 1), (1, 3)),
    ],
)
def test_rows_as_channels_are_the_same_convolution(
    size: tuple[int, int], padding: str, strides: tuple[int, int], dilations: tuple[int, int]
) -> None:
    kernel = np.random.default_rng(0).normal(0, 0.3, (*size, 1, 24)).astype(np.float32)

    @tf.function(input_signature=[tf.TensorSpec([None, 31, 36, 1], tf.float32, name="images")])
    def network(images: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(tf.nn.conv2d(images, kernel, strides, padding, dilations=dilations))

    plain = converted(network, "int8")
    content = with_rows_as_channels(plain)
    images = np.random.default_rng(1).normal(0, 1, (3, 31, 36, 1)).astype(np.float32)
    np.testing.assert_allclose(outputs(content, images), outputs(plain, images), rtol=1e-5, atol=1e-5)
    kernels = [shapes_of_int8(each) for each in (plain, content)]
    assert kernels == [[[24, *size, 1]], [[24, size[0], 1, size[1]]]]
    assert_names_differ(content)


def shapes_of_int8(content: bytes) -> list[list[int]]:
    """Of the kernels of 8 bits that a network's operations take."""
    interpreter = litert.Interpreter(model_content=content)
    taken = {int(each) for op in interpreter._get_ops_details() for each in op["inputs"]}
    tensors = [each for each in interpreter.get_tensor_details() if each["index"] in taken]
    return [each["shape"].tolist() for each in tensors if each["dtype"] is np.int8]


@pytest.fixture
def mixed(exported_formats: Path, monkeypatch: pytest.MonkeyPatch) -> InferenceBackend:
    monkeypatch.setenv("BTKERAS_ENGINE", "litert-mixed")
    return load_backend(exported_formats / "model.tflite", 200)


def test_decisions_are_those_of_float32(
    exported_formats: Path, mixed: InferenceBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BTKERAS_ENGINE", "litert")
    exact = load_backend(exported_formats / "model.tflite", 200)
    assert mixed.fast and not exact.fast and "int8" in mixed.engine
    images = np.random.default_rng(3).integers(0, 256, (300, 32, 32, 1), np.uint8)
    predictor = Predictor(mixed)
    batches = [predictor.outputs(batch) for batch in np.array_split(images, 10)]
    found = np.concatenate([batch.probabilities for batch in batches])
    wanted = exact.predict_all(images)
    assert (found.argmax(axis=1) == wanted.probabilities.argmax(axis=1)).all()
    scores = np.concatenate([batch.ood_scores for batch in batches])
    decide = predictor.selective.decisions
    assert [(each.decision, each.set) for each in decide(found, scores, [None] * 300)] == [
        (each.decision, each.set) for each in decide(*wanted, [None] * 300)
    ]
