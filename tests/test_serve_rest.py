"""`btkeras serve` speaks as TensorFlow Serving does, with a model of any format.

What is expected stands in TensorFlow Serving's documentation (https://www.tensorflow.org/tfx/serving/api_rest), or is
what the model itself answers. The messages that the documentation refers to are parsed by tensorflow-serving-api.
"""

from __future__ import annotations

import base64
import gzip
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from btkeras import Predictor
from btkeras.config import PhantomConfig
from btkeras.datasets.phantom import draw_patient
from btkeras.decisions.calibration import Calibration
from btkeras.inference.backends import ModelOutputs, load_backend
from btkeras.preprocessing.decode import decode
from btkeras.preprocessing.mri_check import rejection_reason
from btkeras.preprocessing.preprocessor import Preprocessor
from btkeras.server.settings import ServerSettings
from tests.conftest import CLASSES
from tests.serve_tools import PREDICT, SIZE, b64, noise, png, quarters_backend, quarters_outputs, running

MODEL = PREDICT.removesuffix(":predict")


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with running(quarters_backend()) as (client, _):
        yield client


def files() -> list[bytes]:
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


def expected(images: list[bytes]) -> list[dict[str, Any]]:
    preprocessor = Preprocessor(SIZE, 1)
    probabilities, scores = quarters_outputs(np.stack([preprocessor.bytes(image) for image in images]))
    assert scores is not None
    return [
        {
            "probabilities": pytest.approx(row.tolist(), rel=1e-6),
            "classes": list(CLASSES),
            "label": CLASSES[int(row.argmax())],
            "ood_score": pytest.approx(float(score), rel=1e-6),
            "decision": "rejected",
            "reasons": [f"no brain MRI slice: {rejection_reason(decode(image))}"],
            # Noise has a higher mean grey level than all calibration slices.
            "ood_percentile": 100.0,
        }
        for image, row, score in zip(images, probabilities, scores, strict=True)
    ]


def test_decisions_are_those_of_predict(tmp_path: Path) -> None:
    drawn = draw_patient(PhantomConfig(image_size=96), 0)[0].image
    certain = drawn * 0.3
    certain[:48, 48:] = drawn[:48, 48:]
    images = {"certain": certain, "bright": np.minimum(drawn * 1.8, 255), "noise": noise(0, 60, 60)}
    calibration = Calibration(1.0, tuple(np.linspace(0, 0.6, 100).tolist()), 0.0, 0.0)
    backend = quarters_backend(calibration=calibration)
    for name, pixels in images.items():
        (tmp_path / f"{name}.png").write_bytes(png(pixels.astype(np.uint8)))
    predictions = list(Predictor(backend).predict_files(sorted(tmp_path.iterdir())))
    with running(backend) as (client, _):
        body = {"instances": [b64(Path(each.file).read_bytes()) for each in predictions]}
        rows = client.post(PREDICT, json=body).json()["predictions"]
    for row, prediction in zip(rows, predictions, strict=True):
        shown = {name: row[name] for name in ("decision", "reasons", "set", "ood_percentile", "label")}
        theirs = {name: getattr(prediction, name) for name in shown}
        assert shown == {name: list(value) if isinstance(value, tuple) else value for name, value in theirs.items()}
    assert {row["decision"] for row in rows} == {"meningioma", "rejected", "uncertain"}


def test_predict_in_rows_and_columns(client: httpx.Client) -> None:
    rows = expected(files())
    # The images must differ for this to show anything.
    assert len({row["label"] for row in rows}) > 1
    for body in (
        {"instances": [{"image_bytes": b64(file)} for file in files()]},
        {"instances": [b64(file) for file in files()], "signature_name": "serving_default"},
    ):
        response = client.post(PREDICT, json=body)
        assert response.headers["content-type"] == "application/json"
        assert response.json() == {"predictions": rows}
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    for column in ([b64(file) for file in files()], {"image_bytes": [b64(file) for file in files()]}):
        answer = client.post(f"{MODEL}/versions/3:predict", json={"inputs": column}).json()
        assert answer == {"outputs": columns}


def test_decoded_images(client: httpx.Client) -> None:
    pixels = [noise(1, 50, 44, 1), noise(2, 50, 44, 1)]
    rows = expected([png(image[..., 0]) for image in pixels])
    for body in (
        {"instances": [image.tolist() for image in pixels]},
        {"instances": [{"images": image.tolist()} for image in pixels]},
    ):
        answer = client.post(PREDICT, json=body | {"signature_name": "serving_pixels"}).json()
        assert answer == {"predictions": rows}


def test_probabilities_are_the_shortest_numbers_that_are_the_same_float32() -> None:
    exact = np.array([[0.1, 0.2, 0.3, 0.4]], np.float32)
    backend = quarters_backend(predict=lambda pixels: ModelOutputs(exact, None), ood_calibration=None)
    with running(backend) as (client, _):
        text = client.post(PREDICT, json={"instances": [b64(files()[0])]}).text
    assert '"probabilities":[0.1,0.2,0.3,0.4]' in text and "ood_score" not in text


def test_status(client: httpx.Client) -> None:
    for path in (MODEL, f"{MODEL}/versions/3"):
        answer = client.get(path)
        message = json_format.Parse(answer.text, get_model_status_pb2.GetModelStatusResponse())
        (entry,) = message.model_version_status
        assert (entry.version, entry.state) == (3, get_model_status_pb2.ModelVersionStatus.AVAILABLE)
        # As the documentation's example shows it.
        fields = {"version": "3", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        assert answer.json() == {"model_version_status": [fields]}


def test_metadata(client: httpx.Client) -> None:
    answer = client.get(f"{MODEL}/metadata").json()
    assert answer["model_spec"] == {"name": "quarters", "signature_name": "", "version": "3"}
    message = json_format.ParseDict(answer["metadata"]["signature_def"], get_model_metadata_pb2.SignatureDefMap())
    assert set(message.signature_def) == {"serving_default", "serving_pixels"}
    default = message.signature_def["serving_default"]
    assert default.method_name == "tensorflow/serving/predict"
    assert [size.size for size in default.inputs["image_bytes"].tensor_shape.dim] == [-1]
    answer = client.post(PREDICT, json={"instances": [b64(files()[0])]}).json()
    assert set(default.outputs) == set(answer["predictions"][0])


def test_the_models_are_listed(client: httpx.Client) -> None:
    assert client.get("/v1/models").json() == {"models": ["quarters"]}


IMAGE = b64(png(noise(0, 48, 40)))
PNG = png(noise(1, 49, 40))


def instances(*rows: object) -> str:
    return json.dumps({"instances": rows})


@pytest.mark.parametrize(
    ("method", "path", "content", "code", "message"),
    [
        ("GET", "/v1/models/other", "", 404, "Servable not found for request: Latest(other)"),
        ("GET", f"{MODEL}/versions/4", "", 404, "Specific(quarters, 4)"),
        ("GET", f"{MODEL}/versions/{'9' * 5000}", "", 404, "Servable not found"),
        ("GET", f"{MODEL}/versions/x/metadata", "", 404, "Servable not found"),
        ("GET", f"{MODEL}/labels/stable", "", 400, "Unrecognized servable version label: stable"),
        ("GET", PREDICT, "", 404, "Latest(quarters:predict)"),
        ("GET", "/v1/model", "", 400, "Malformed request"),
        ("GET", "/nothing", "", 404, ""),
        ("POST", MODEL, "{}", 400, "Malformed request"),
        ("POST", f"{MODEL}:classify", "{}", 400, "Malformed request"),
        ("POST", "/v1/models/other:predict", "{}", 404, "Latest(other)"),
        ("POST", f"{MODEL}/versions/4:predict", "{}", 404, "Specific(quarters, 4)"),
        ("POST", f"{MODEL}/labels/stable:predict", "{}", 400, "servable version label"),
        ("POST", PREDICT, "", 400, "JSON Parse error"),
        ("POST", PREDICT, "{", 400, "JSON Parse error"),
        ("POST", PREDICT, '"\xff', 400, "JSON Parse error"),
        ("POST", PREDICT, '{"instances": ' + "[" * 5000, 400, "nested too deeply"),
        ("POST", PREDICT, '{"instances": [' + "9" * 5000 + "]}", 400, "JSON Parse error"),
        ("POST", PREDICT, "[1]", 400, "must be a JSON object"),
        ("POST", PREDICT, "{}", 400, "Missing 'inputs' or 'instances' key"),
        ("POST", PREDICT, '{"instances": [1], "inputs": [1]}', 400, "Exactly one of"),
        ("POST", PREDICT, '{"signature_name": 3, "instances": [1]}', 400, "must be a string value"),
        ("POST", PREDICT, '{"signature_name": "x", "instances": [1]}', 400, '"x" not found in signature def'),
        ("POST", PREDICT, '{"instances": []}', 400, "not empty"),
        ("POST", PREDICT, '{"instances": null}', 400, "must be a list"),
        ("POST", PREDICT, '{"inputs": {}}', 400, "Missing named input: image_bytes"),
        ("POST", PREDICT, '{"inputs": 1}', 400, "must be a list"),
        ("POST", PREDICT, '{"instances": [{"x": 1}]}', 400, "must only have keys: image_bytes"),
        ("POST", PREDICT, instances(IMAGE, {"image_bytes": IMAGE}), 400, "item 1 differs"),
        ("POST", PREDICT, instances(IMAGE, "text"), 400, "image 1 must be base64"),
        ("POST", PREDICT, '{"instances": [{"image_bytes": {"b64": 1}}]}', 400, "image 0 must be base64"),
        ("POST", PREDICT, instances(IMAGE, {"b64": "%"}), 400, "Unable to base64 decode image 1"),
    ],
)  # fmt: skip
def test_errors(client: httpx.Client, method: str, path: str, content: str, code: int, message: str) -> None:
    answer = client.request(method, path, content=content.encode("latin-1"))
    assert answer.status_code == code, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"] and answer.json()["error"]
    assert message in answer.json()["error"]


def test_one_broken_image_is_named_and_fails_its_own_request_alone(client: httpx.Client) -> None:
    good = png(noise(0, 48, 40))
    for bad in (b"", b"text", good[:200], good[:-30], b"GIF89a" + b"\0" * 50):
        answer = client.post(PREDICT, json={"instances": [b64(good), b64(bad)]})
        assert answer.status_code == 400 and "image 1" in answer.json()["error"]
    assert client.post(PREDICT, json={"instances": [b64(good)]}).status_code == 200


def test_pixels_that_are_no_image_are_refused(client: httpx.Client) -> None:
    whole = noise(0, 20, 20, 1).tolist()
    values = [[[[value]] * 20] * 20 for value in (256, -1, 1.5, 2**70, True, "1", None)]
    shapes = [0, "a", None, [], [[[0, 0]]], [[[0, 0]] * 20] * 20, [[[0]] * 8] * 8, [[[0]], [[0], [0]]]]
    # In a NumPy array of text, each value would be as long as the longest.
    text = [[["a" * 20_000]] + [[""]] * 2_000] * 16
    for pixels in (*values, *shapes, text):
        body = {"signature_name": "serving_pixels", "instances": [whole, pixels]}
        answer = client.post(PREDICT, json=body)
        assert answer.status_code == 400 and "image 1" in answer.json()["error"], answer.text


def test_gzip_and_base64_without_padding_are_understood(client: httpx.Client) -> None:
    image = b64(png(noise(0, 48, 40)))["b64"].rstrip("=")
    content = gzip.compress(json.dumps({"instances": [{"b64": image}]}).encode())
    headers = {"Content-Encoding": "gzip"}
    assert client.post(PREDICT, content=content, headers=headers).status_code == 200
    for broken in (content[:-9], content[:4], b"no gzip", b""):
        answer = client.post(PREDICT, content=broken, headers=headers)
        assert answer.status_code == 400 and "valid gzip" in answer.json()["error"]
    assert client.post(PREDICT, content=b"x", headers={"Content-Encoding": "br"}).status_code == 415


def answer_to(client: httpx.Client, text: str) -> httpx.Response:
    return client.post(PREDICT, json={"instances": [{"b64": text}]})


def test_base64_is_read_as_tensorflow_serving_reads_it(client: httpx.Client) -> None:
    """Compared with `absl::Base64Unescape`, which it calls, on 200,000 random texts."""
    # One byte over a multiple of three, so that two signs of padding are right.
    text = base64.b64encode(PNG).decode()
    digits = text.rstrip("=")
    assert len(digits) % 4 == 2 and {"+", "/"} <= set(digits)
    expected = answer_to(client, text).json()
    lines = ["\n".join(textwrap.wrap(text, 76)), "\r\n".join(textwrap.wrap(text, 64)) + "\r\n"]
    spaces = [f" \t{text}\v\f", " ".join(text), f"{digits} = =", f"{digits} \n"]
    padding = [digits, digits + "..", digits + ".="]
    for right in (*lines, *spaces, *padding):
        answer = answer_to(client, right)
        assert answer.status_code == 200 and answer.json() == expected, right[-9:]
    alphabet = [text.replace("+", "-").replace("/", "_"), "\u00a0" + text, "\0" + text, text + "%", "\u0661" + text]
    wrong = [digits + "=", text + "=", "=" + text, digits[:-1], text + digits, f"{digits[:8]}=={digits[8:]}"]
    # What a browser's FileReader.readAsDataURL gives.
    for refused in (*alphabet, *wrong, f"data:image/png;base64,{text}"):
        answer = answer_to(client, refused)
        assert answer.status_code == 400 and "decode image 0: send standard" in answer.json()["error"], refused[-9:]


@pytest.mark.parametrize("kind", ["run", "saved_model.pb", "model.onnx", "model.tflite"])
def test_models_of_all_formats_answer_alike(calibrated_run: Path, exported_formats: Path, kind: str) -> None:
    backend = load_backend(calibrated_run if kind == "run" else exported_formats / kind, 1000)
    images = files()
    direct = backend.predict(np.stack([Preprocessor(32, 1).bytes(image) for image in images]))[0]
    with running(backend, ServerSettings()) as (client, served):
        status = client.get(f"/v1/models/{served.name}/versions/1").json()["model_version_status"]
        assert status[0]["state"] == "AVAILABLE"
        answer = client.post(f"/v1/models/{served.name}:predict", json={"instances": [b64(image) for image in images]})
    rows = [row["probabilities"] for row in answer.json()["predictions"]]
    np.testing.assert_allclose(rows, direct, atol=1e-6)
