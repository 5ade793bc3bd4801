"""A client written from TensorFlow Serving's documentation of its REST interface alone, against ``btkeras serve``.

https://www.tensorflow.org/tfx/serving/api_rest, paragraph by paragraph; nothing here knows how the server is built. The
messages that the documentation refers to are parsed by tensorflow-serving-api.
"""

from __future__ import annotations

import base64
import json
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import tensorflow as tf
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

START_SECONDS = 240
IMAGE = b"\x89PNG\r\n\xff\x00 bytes that are no UTF-8"


class Documented(tf.Module):
    """``half_plus_three`` of the documentation's example, and its instances of three named inputs."""

    def __init__(self, plus: float) -> None:
        super().__init__()
        self.plus = tf.Variable(plus)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def half(self, x):  # type: ignore[no-untyped-def]
        return {"y": x / 2 + self.plus}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="tag"),
            tf.TensorSpec([None, 5], tf.int64, name="signal"),
            tf.TensorSpec([None, 2, 2], tf.float32, name="sensor"),
        ]
    )
    def three(self, tag, signal, sensor):  # type: ignore[no-untyped-def]
        return {"tag": tag, "total": tf.reduce_sum(signal, axis=1), "transposed": tf.transpose(sensor, [0, 2, 1])}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def image(self, image):  # type: ignore[no-untyped-def]
        return {"length": tf.strings.length(image), "copy_bytes": image, "short": tf.strings.length(image) < 5}


def write_version(folder: Path, version: int) -> None:
    module = Documented(3.0 * version)
    signatures = {"serving_default": module.half, "three": module.three, "image": module.image}
    folder.mkdir(parents=True, exist_ok=True)
    tf.saved_model.save(module, str(folder / f".{version}"), signatures=signatures)
    (folder / f".{version}").rename(folder / str(version))


@contextmanager
def served(model: Path, *options: str) -> Iterator[str]:
    """Runs ``btkeras serve`` in a process of its own; gives its address when it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "btkeras", "serve", "--model", str(model), "--port", str(port), *options]
    environment = {name: value for name, value in os.environ.items() if name != "BTKERAS_TOKEN"}
    log = model.parent / f"serve-{port}.log"
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file, env=environment) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            _wait(f"{url}/v1/models/{model.name}", process, log)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        try:
            if "AVAILABLE" in requests.get(url, timeout=5).text:
                return
        except (requests.ConnectionError, requests.Timeout):
            pass
        time.sleep(0.3)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The model ``documented`` in versions 1 (half plus three) and 2 (half plus six)."""
    folder = tmp_path_factory.mktemp("protocol") / "documented"
    for version in (1, 2):
        write_version(folder, version)
    with served(folder, "--keep", "2") as address:
        yield f"{address}/v1/models/documented"


def post(url: str, body: Any) -> requests.Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return requests.post(url, data, timeout=60)


def predict(url: str, **body: Any) -> Any:
    """The answer of a request that is right."""
    response = post(f"{url}:predict", body)
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"].startswith("application/json")
    return json.loads(response.text)


def assert_error(response: requests.Response, code: int | None = None) -> None:
    """ "In case of error, all APIs will return a JSON object in the response body with `error` as key"."""
    assert response.status_code >= 400, response.text
    assert response.status_code < 500, response.text
    if code:
        assert response.status_code == code, response.text
    answer = json.loads(response.text)
    assert list(answer) == ["error"] and isinstance(answer["error"], str) and answer["error"]
    assert response.headers["Content-Type"].startswith("application/json")


def test_the_status_of_all_versions(url: str) -> None:
    answer = requests.get(url, timeout=60)
    assert answer.status_code == 200
    message = json_format.Parse(answer.text, get_model_status_pb2.GetModelStatusResponse())
    states = {entry.version: entry for entry in message.model_version_status}
    assert set(states) == {1, 2}
    for entry in states.values():
        assert entry.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE
        assert (entry.status.error_code, entry.status.error_message) == (0, "")
    # As the documentation's example shows them.
    fields = {"version": "2", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert fields in answer.json()["model_version_status"]


def test_the_status_of_one_version(url: str) -> None:
    answer = requests.get(f"{url}/versions/1", timeout=60).json()
    assert [entry["version"] for entry in answer["model_version_status"]] == ["1"]


@pytest.mark.parametrize("part", ["/versions/9", "/labels/none", "/versions/none"])
def test_the_status_of_what_is_not_there(url: str, part: str) -> None:
    assert_error(requests.get(f"{url}{part}", timeout=60))


def test_the_status_of_another_model(url: str) -> None:
    assert_error(requests.get(f"{url}_other", timeout=60), 404)


@pytest.mark.parametrize(("part", "version"), [("", 2), ("/versions/1", 1)])
def test_metadata(url: str, part: str, version: int) -> None:
    answer = requests.get(f"{url}{part}/metadata", timeout=60)
    assert answer.status_code == 200
    spec, metadata = answer.json()["model_spec"], answer.json()["metadata"]
    assert (spec["name"], spec["version"]) == ("documented", str(version))
    signatures = json_format.ParseDict(metadata["signature_def"], get_model_metadata_pb2.SignatureDefMap())
    assert {"serving_default", "three", "image"} <= set(signatures.signature_def)
    three = signatures.signature_def["three"]
    assert three.method_name == "tensorflow/serving/predict"
    assert three.inputs["sensor"].dtype == tf.float32.as_datatype_enum
    assert [size.size for size in three.inputs["sensor"].tensor_shape.dim] == [-1, 2, 2]
    assert three.inputs["tag"].dtype == tf.string.as_datatype_enum
    assert set(three.outputs) == {"tag", "total", "transposed"}


@pytest.mark.parametrize("part", ["/versions/9/metadata", "/labels/none/metadata"])
def test_metadata_of_what_is_not_there(url: str, part: str) -> None:
    assert_error(requests.get(f"{url}{part}", timeout=60))


def test_row_format_of_one_input_and_one_output(url: str) -> None:
    assert predict(f"{url}/versions/1", instances=[1.0, 2.0, 5.0]) == {"predictions": [3.5, 4.0, 5.5]}


def test_row_format_of_one_named_input(url: str) -> None:
    assert predict(f"{url}/versions/1", instances=[{"x": 1.0}, {"x": 2.0}]) == {"predictions": [3.5, 4.0]}


def test_without_a_version_the_latest_answers(url: str) -> None:
    assert predict(url, instances=[1.0]) == {"predictions": [6.5]}
    assert predict(f"{url}/versions/2", instances=[1.0]) == {"predictions": [6.5]}


def test_whole_numbers_and_exponents_are_numbers(url: str) -> None:
    assert predict(f"{url}/versions/1", instances=[2, -1, 1e1]) == {"predictions": [4.0, 2.5, 8.0]}


def test_columnar_format_of_one_input(url: str) -> None:
    assert predict(f"{url}/versions/1", inputs=[1.0, 2.0]) == {"outputs": [3.5, 4.0]}
    assert predict(f"{url}/versions/1", inputs={"x": [1.0, 2.0]}) == {"outputs": [3.5, 4.0]}


ROWS = [
    {"tag": "foo", "signal": [1, 2, 3, 4, 5], "sensor": [[1, 2], [3, 4]]},
    {"tag": "bar", "signal": [3, 4, 1, 2, 5], "sensor": [[4, 5], [6, 8]]},
]
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}


def test_row_format_of_three_inputs_and_outputs(url: str) -> None:
    assert predict(url, signature_name="three", instances=ROWS) == {
        "predictions": [
            {"tag": "foo", "total": 15, "transposed": [[1.0, 3.0], [2.0, 4.0]]},
            {"tag": "bar", "total": 15, "transposed": [[4.0, 6.0], [5.0, 8.0]]},
        ]
    }


def test_columnar_format_of_three_inputs_and_outputs(url: str) -> None:
    assert predict(url, signature_name="three", inputs=COLUMNS) == {
        "outputs": {
            "tag": ["foo", "bar"],
            "total": [15, 15],
            "transposed": [[[1.0, 3.0], [2.0, 4.0]], [[4.0, 6.0], [5.0, 8.0]]],
        }
    }


def encoded(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


@pytest.mark.parametrize("name", [True, False])
def test_binary_values_go_in_and_out_as_base64(url: str, name: bool) -> None:
    instances = [{"image": encoded(data)} if name else encoded(data) for data in (IMAGE, b"")]
    assert predict(url, signature_name="image", instances=instances) == {
        "predictions": [
            {"length": len(IMAGE), "copy_bytes": encoded(IMAGE), "short": False},
            {"length": 0, "copy_bytes": encoded(b""), "short": True},
        ]
    }


def test_binary_values_in_columns(url: str) -> None:
    answer = predict(url, signature_name="image", inputs={"image": [encoded(IMAGE), "text"]})["outputs"]
    assert answer["length"] == [len(IMAGE), 4] and answer["short"] == [False, True]
    assert answer["copy_bytes"] == [encoded(IMAGE), encoded(b"text")]


def test_strings_are_utf8(url: str) -> None:
    answer = predict(url, signature_name="image", instances=["Größe"])
    assert answer["predictions"][0]["length"] == len("Größe".encode())


def test_what_json_has_no_numbers_for(url: str) -> None:
    response = post(f"{url}:predict", b'{"instances": [NaN, Infinity, -Infinity, 1.0]}')
    assert response.status_code == 200, response.text
    values = json.loads(response.text)["predictions"]
    assert math.isnan(values[0]) and values[1:] == [math.inf, -math.inf, 6.5]


WRONG = {
    "both formats": {"instances": [1.0], "inputs": [1.0]},
    "neither format": {"signature_name": "serving_default"},
    "no such signature": {"signature_name": "none", "instances": [1.0]},
    "no such input": {"instances": [{"z": 1.0}]},
    "an input is missing": {"signature_name": "three", "instances": [{"tag": "foo", "signal": [1, 2, 3, 4, 5]}]},
    "a missing column": {"signature_name": "three", "inputs": {"tag": ["foo"]}},
    "one value for three inputs": {"signature_name": "three", "instances": ["foo"]},
    "text for a number": {"instances": ["one"]},
    "a number for text": {"signature_name": "image", "instances": [1.5]},
    "a list too deep": {"instances": [[1.0, 2.0]]},
    "lists of unequal length": {"signature_name": "three", "instances": [ROWS[0], ROWS[1] | {"signal": [1, 2]}]},
    "no base64": {"signature_name": "image", "instances": [{"b64": "*"}]},
    "nothing": {"instances": None},
    "a signature that is no string": {"signature_name": 3, "instances": [1.0]},
    "no object": [1.0],
    "columns of unequal length": {"signature_name": "three", "inputs": COLUMNS | {"tag": ["foo"]}},
}


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_body_is_an_error(url: str, body: Any) -> None:
    assert_error(post(f"{url}:predict", body), 400)


@pytest.mark.parametrize("body", [b"", b"{", b"not JSON", b'{"instances": [1.0]', b"\xff\xfe"])
def test_a_body_that_is_no_json_is_an_error(url: str, body: bytes) -> None:
    assert_error(post(f"{url}:predict", body), 400)


def test_another_model_is_not_found(url: str) -> None:
    """As in the documentation's example."""
    assert_error(post(f"{url}_other:predict", {"instances": [1.0, 5.0]}), 404)


@pytest.mark.parametrize(
    "part", ["/versions/9:predict", "/labels/none:predict", "/versions/x:predict", ":nonsense", ""]
)
def test_a_wrong_url_is_an_error(url: str, part: str) -> None:
    assert_error(post(f"{url}{part}", {"instances": [1.0]}))


def test_reading_where_one_has_to_send_is_an_error(url: str) -> None:
    assert_error(requests.get(f"{url}:predict", timeout=60))


@pytest.mark.parametrize("verb", ["classify", "regress"])
def test_a_model_without_examples_cannot_classify_or_regress(url: str, verb: str) -> None:
    """No signature of this model has such a method; TensorFlow Serving refuses them too."""
    assert_error(post(f"{url}:{verb}", {"examples": [{"x": 1.0}]}))


def test_one_connection_serves_many_requests(url: str) -> None:
    with requests.Session() as session:
        for number in range(20):
            answer = session.post(f"{url}/versions/1:predict", json={"instances": [number]}, timeout=60)
            assert answer.json() == {"predictions": [number / 2 + 3]}
        assert_error(session.post(f"{url}:predict", b"{", timeout=60))
        assert session.post(f"{url}:predict", json={"instances": [0]}, timeout=60).json() == {"predictions": [6.0]}
