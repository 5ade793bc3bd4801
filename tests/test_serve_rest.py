"""`btkeras serve` speaks as TensorFlow Serving does.

What is expected stands in TensorFlow Serving's documentation (https://www.tensorflow.org/tfx/serving/api_rest) or is
computed by the SavedModel itself.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tensorflow as tf

from btkeras.server.engine import Engine
from btkeras.server.settings import Batching, ServerSettings
from tests.serve_tools import b64, noise, png, running, write_half_plus_two

HALF = "/v1/models/half"
TINY = "/v1/models/tiny"


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("models") / "half"
    write_half_plus_two(folder, 123)
    with running(ServerSettings(folder)) as (client, _):
        yield client


@pytest.fixture(scope="module")
def tiny_server(exported_model: Path) -> Iterator[tuple[httpx.Client, Engine]]:
    with running(ServerSettings(exported_model, batching=Batching(max_images=4))) as server:
        yield server


@pytest.fixture(scope="module")
def tiny(tiny_server: tuple[httpx.Client, Engine]) -> httpx.Client:
    return tiny_server[0]


@pytest.fixture(scope="module")
def tiny_engine(tiny_server: tuple[httpx.Client, Engine]) -> Engine:
    return tiny_server[1]


@pytest.fixture(scope="module")
def saved_model(exported_model: Path) -> Any:
    return tf.saved_model.load(str(exported_model / "1"))


def test_the_documented_example_in_rows_and_columns(half: httpx.Client) -> None:
    # "Returns => { "predictions": [2.5, 3.0, 4.5] }", the end-to-end example of the documentation.
    assert half.post(f"{HALF}:predict", json={"instances": [1.0, 2.0, 5.0]}).json() == {"predictions": [2.5, 3.0, 4.5]}
    assert half.post(f"{HALF}:predict", json={"inputs": [1.0, 2.0, 5.0]}).json() == {"outputs": [2.5, 3.0, 4.5]}
    named = {"signature_name": "serving_default", "instances": [{"x": 3.0}, {"x": 4.0}]}
    assert half.post(f"{HALF}/versions/123:predict", json=named).json() == {"predictions": [3.5, 4.0]}
    assert half.post(f"{HALF}:predict", json={"inputs": {"x": [3]}}).json() == {"outputs": [3.5]}


def test_several_inputs_and_outputs_of_all_types(half: httpx.Client) -> None:
    rows = [
        {"pair": [1, 2], "text": "plain", "yes": True},
        {"pair": [3, 4], "text": b64(b"\xff\x00"), "yes": False},
    ]
    answer = half.post(f"{HALF}:predict", json={"signature_name": "mixed", "instances": rows})
    assert answer.json() == {
        "predictions": [
            # 0.3 is no float32: it is written as the shortest number that is the same float32.
            {"total": 3, "text": "plain", "text_bytes": b64(b"plain"), "part": 0.3},
            {"total": 0, "text": "\ufffd\x00", "text_bytes": b64(b"\xff\x00"), "part": 0.0},
        ]
    }
    columns = {"pair": [[1, 2]], "text": ["plain"], "yes": [True], "ignored": 1}
    answer = half.post(f"{HALF}:predict", json={"signature_name": "mixed", "inputs": columns})
    assert answer.json() == {"outputs": {"total": [3], "text": ["plain"], "text_bytes": [b64(b"plain")], "part": [0.3]}}


def test_nan_and_infinity_pass_in_both_directions(half: httpx.Client) -> None:
    content = '{"signature_name": "strange", "instances": [-1.0, 0.0, Infinity, NaN, 1]}'
    values = json.loads(half.post(f"{HALF}:predict", content=content).text)["predictions"]
    assert math.isnan(values[0]) and values[1] == -math.inf and values[2] == math.inf and math.isnan(values[3])
    assert values[4] == 0


def test_an_output_without_a_batch_has_to_be_asked_for_in_columns(half: httpx.Client) -> None:
    request: dict[str, Any] = {"signature_name": "mean", "inputs": [1, 2, 6]}
    assert half.post(f"{HALF}:predict", json=request).json() == {"outputs": 3.0}
    request["instances"] = request.pop("inputs")
    assert half.post(f"{HALF}:predict", json=request).status_code == 400


def test_status_and_metadata(half: httpx.Client) -> None:
    status = {
        "model_version_status": [
            {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }
    assert half.get(HALF).json() == status
    assert half.get(f"{HALF}/versions/123").json() == status
    metadata = half.get(f"{HALF}/metadata").json()
    assert metadata["model_spec"] == {"name": "half", "signature_name": "", "version": "123"}
    definition = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert definition["method_name"] == "tensorflow/serving/predict"
    assert definition["inputs"]["x"]["dtype"] == "DT_FLOAT"
    assert definition["inputs"]["x"]["tensor_shape"] == {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    assert definition["inputs"]["x"]["name"] == "serving_default_x:0"


@pytest.mark.parametrize(
    ("method", "path", "content", "code", "message"),
    [
        # Those of TensorFlow Serving's own tests of its handler.
        ("GET", "/v1/foo", "", 400, "Malformed request"),
        ("POST", "/v1/foo", "", 400, "Malformed request"),
        ("GET", "/v1/models", "", 400, "Missing model name"),
        ("POST", "/v1/models", "", 400, "Malformed request"),
        ("GET", "/v1/models/foo:predict", "", 400, "Malformed request"),
        ("GET", "/v1/models/foo/version/50:predict", "", 400, "Malformed request"),
        ("POST", "/v1/models/foo/version/50:regress", "", 400, "Malformed request"),
        ("POST", "/v1/models/foo/versions/HELLO:regress", "", 400, "Malformed request"),
        ("POST", f"/v1/models/foo/versions/{2**64 - 1}:regress", "", 400, "Failed to convert version"),
        ("POST", f"/v1/models/half/versions/{'9' * 5000}:predict", "", 400, "Failed to convert version"),
        ("POST", "/v1/models/foo:predict", '{"instances": [1]}', 404, "Servable not found for request: Latest(foo)"),
        ("POST", "/v1/models/foo/versions/5:predict", "{}", 404, "Servable not found for request: Specific(foo, 5)"),
        ("POST", f"{HALF}/versions/5:predict", '{"instances": [1]}', 404, "request: Specific(half, 5)"),
        ("GET", "/v1/models/foo", "", 404, "Could not find any versions of model foo"),
        ("GET", f"{HALF}/versions/99", "", 404, "Could not find version 99 of model half"),
        ("GET", f"{HALF}/versions/99/metadata", "", 404, "Servable not found for request: Specific(half, 99)"),
        ("POST", f"{HALF}/labels/stable:predict", '{"instances": [1]}', 400, "Unrecognized servable version label"),
        ("POST", f"{HALF}:predict", "", 400, "JSON Parse error: The document is empty"),
        ("POST", f"{HALF}:predict", "instances = [1, 2]", 400, "JSON Parse error"),
        ("POST", f"{HALF}:predict", "[1]", 400, "Is not object"),
        ("POST", f"{HALF}:predict", '{"instances": ["a"]}', 400, "not of expected type: float"),
        ("POST", f"{HALF}:predict", '{"instances": [true]}', 400, "not of expected type: float"),
        ("POST", f"{HALF}:predict", '{"instances": []}', 400, "No values in 'instances'"),
        ("POST", f"{HALF}:predict", '{"instances": 1}', 400, "to be an list/array"),
        ("POST", f"{HALF}:predict", "{}", 400, "Missing 'inputs' or 'instances' key"),
        ("POST", f"{HALF}:predict", '{"inputs": [1], "instances": [1]}', 400, "only one of"),
        ("POST", f"{HALF}:predict", '{"signature_name": 1, "instances": [1]}', 400, "must be a string"),
        ("POST", f"{HALF}:predict", '{"signature_name": "no", "instances": [1]}', 400, '"no" not found in signature'),
        ("POST", f"{HALF}:predict", '{"inputs": {"z": [1]}}', 400, "Missing named input: x"),
        ("POST", f"{HALF}:predict", '{"instances": [{"z": 1}]}', 400, "does not have named input: z"),
        ("POST", f"{HALF}:predict", '{"instances": [{}]}', 400, "must only have keys: x"),
        ("POST", f"{HALF}:predict", '{"instances": [{"x": 1}, 2]}', 400, "Expecting object but got list at item 1"),
        ("POST", f"{HALF}:predict", '{"instances": [1, {"x": 2}]}', 400, "got object at item 1"),
        ("POST", f"{HALF}:predict", '{"instances": [[1], [1, 2]]}', 400, "unexpected size: 2"),
        ("POST", f"{HALF}:predict", '{"instances": [[1], 1]}', 400, "incorrect level"),
        ("POST", f"{HALF}:predict", '{"instances": [1, [1]]}', 400, "unexpected level"),
        ("POST", f"{HALF}:predict", '{"instances": [[1]]}', 400, "must have the shape [-1]. Received: [1, 1]"),
        ("POST", f"{HALF}:predict", '{"inputs": 1}', 400, "must have the shape"),
        ("POST", f"{HALF}:predict", '{"instances": [1e999999]}', 200, ""),
        ("POST", f"{HALF}:predict", '{"instances": [' + "9" * 400 + "]}", 400, "loss of precision"),
        ("POST", f"{HALF}:predict", '{"instances": [' + "9" * 5000 + "]}", 400, "JSON Parse error"),
        ("POST", f"{HALF}:predict", '{"instances": ' + "[" * 5000, 400, "nested too deeply"),
        ("POST", f"{HALF}:classify", '{"examples": [{"x": 1}]}', 400, "method_name to be tensorflow/serving/classify"),
        ("POST", f"{HALF}:regress", '{"examples": [{"x": 1}]}', 400, "method_name to be tensorflow/serving/regress"),
        ("POST", f"{HALF}:classify", "{}", 400, "key 'examples' is expected"),
    ],
)  # fmt: skip
def test_errors(half: httpx.Client, method: str, path: str, content: str, code: int, message: str) -> None:
    answer = half.request(method, path, content=content)
    assert answer.status_code == code, answer.text
    assert answer.headers["content-type"] == "application/json"
    if message:
        assert list(answer.json()) == ["error"]
        assert message in answer.json()["error"]


def test_mixed_inputs_are_checked(half: httpx.Client) -> None:
    good = {"pair": [1, 2], "text": "a", "yes": True}
    for wrong, message in (
        ({"pair": [1, 2**31]}, "must be between"),
        ({"pair": [1, 2.0]}, "not of expected type: int32"),
        ({"pair": [1]}, "must have the shape"),
        ({"text": {"b64": "%%%"}}, "Unable to base64 decode"),
        ({"text": {"b64": 1}}, "not formatted correctly for base64"),
        ({"text": "\ud800"}, "valid Unicode"),
        ({"yes": 1}, "not of expected type: bool"),
        ({"more": 1}, "does not have named input: more"),
    ):
        request = json.dumps({"signature_name": "mixed", "instances": [good | wrong]})
        answer = half.post(f"{HALF}:predict", content=request)
        assert answer.status_code == 400 and message in answer.json()["error"], answer.text
    request = json.dumps({"signature_name": "mixed", "inputs": {"pair": [[1, 2]], "text": ["a", "b"], "yes": [True]}})
    assert "as many instances" in half.post(f"{HALF}:predict", content=request).json()["error"]
    request = json.dumps({"signature_name": "mixed", "instances": [1]})
    assert "multiple input tensors" in half.post(f"{HALF}:predict", content=request).json()["error"]


def test_base64_without_padding_and_gzip_are_understood(half: httpx.Client) -> None:
    rows = [{"pair": [1, 2], "text": {"b64": "YQ"}, "yes": True}]
    content = gzip.compress(json.dumps({"signature_name": "mixed", "instances": rows}).encode())
    answer = half.post(f"{HALF}:predict", content=content, headers={"Content-Encoding": "gzip"})
    assert answer.json()["predictions"][0]["text"] == "a"
    for broken in (content[:-9], content[:4], b"no gzip"):
        answer = half.post(f"{HALF}:predict", content=broken, headers={"Content-Encoding": "gzip"})
        assert answer.status_code == 400
    assert half.post(f"{HALF}:predict", content=b"x", headers={"Content-Encoding": "br"}).status_code == 415


def images() -> list[bytes]:
    """Each kind that is decoded in a way of its own."""
    deep = (noise(4, 60, 40).astype(np.uint16) * 201) + 17
    return [
        png(noise(0, 48, 40)),
        png(noise(1, 64, 64, 3)),
        png(noise(2, 90, 70, 3), "JPEG"),
        png(noise(3, 33, 80), "JPEG"),
        png(deep),
        png(noise(5, 50, 50, 4)),
    ]


def test_batched_answers_are_those_of_the_saved_model(
    tiny: httpx.Client, tiny_engine: Engine, saved_model: Any
) -> None:
    files = images()
    expected = saved_model.signatures["serving_default"](image_bytes=tf.constant(files))
    answer = tiny.post(f"{TINY}:predict", json={"instances": [{"image_bytes": b64(file)} for file in files]})
    rows = answer.json()["predictions"]
    assert set(rows[0]) == set(expected)
    probabilities = np.array([row["probabilities"] for row in rows])
    np.testing.assert_allclose(probabilities, expected["probabilities"], atol=1e-6)
    # The images must differ for this to show anything.
    assert len(np.unique(probabilities.round(4), axis=0)) == len(files)
    assert [row["label"].encode() for row in rows] == expected["label"].numpy().tolist()
    assert [[name.encode() for name in row["classes"]] for row in rows] == expected["classes"].numpy().tolist()
    # It did go through batches: six images, at most four together.
    assert tiny_engine.versions.get(None).decoder is not None
    assert 'btkeras_batch_images_bucket{le="4.0"}' in tiny.get("/metrics").text
    columns = tiny.post(f"{TINY}:predict", json={"inputs": [b64(file) for file in files]}).json()["outputs"]
    np.testing.assert_allclose(columns["probabilities"], probabilities, atol=1e-6)


def test_pixels_and_prepared_pixels_too(tiny: httpx.Client, saved_model: Any) -> None:
    for signature, pixels in (("serving_pixels", noise(1, 2, 50, 44, 3)), ("serving_prepared", noise(2, 5, 32, 32, 1))):
        expected = saved_model.signatures[signature](images=tf.constant(pixels))["probabilities"]
        request = {"signature_name": signature, "instances": pixels.tolist()}
        rows = tiny.post(f"{TINY}:predict", json=request).json()["predictions"]
        np.testing.assert_allclose([row["probabilities"] for row in rows], expected, atol=1e-6)


def test_one_bad_image_fails_its_own_request_alone(tiny: httpx.Client) -> None:
    good = png(noise(0, 48, 40))
    for bad in (b"", b"text", good[:200], good[:-30], b"GIF89a" + b"\0" * 50):
        answer = tiny.post(f"{TINY}:predict", json={"instances": [b64(good), b64(bad)]})
        assert answer.status_code == 400
        assert "image 1" in answer.json()["error"]
    assert tiny.post(f"{TINY}:predict", json={"instances": [b64(good)]}).status_code == 200


def test_pixels_that_the_graph_cannot_take_are_refused(tiny: httpx.Client) -> None:
    for pixels in ([[[[0, 0]]]], [[]], [[[[256]]]], [[[[-1]]]], [[[["a"]]]], [[[[1.5]]]], [[[]]]):
        request = {"signature_name": "serving_pixels", "instances": pixels}
        answer = tiny.post(f"{TINY}:predict", json=request)
        assert answer.status_code == 400, answer.text
    request = {"signature_name": "serving_prepared", "instances": noise(0, 1, 31, 32, 1).tolist()}
    assert "must have the shape" in tiny.post(f"{TINY}:predict", json=request).json()["error"]
