"""deploy/: the files against the schemas and message types of those who read them, and the client examples."""

from __future__ import annotations

import ast
import importlib.util
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import jsonschema
import kubernetes_validate
import numpy as np
import pytest
import tensorflow as tf
import yaml
from check_jsonschema import builtin_schemas
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf import wrappers_pb2 as wrappers
from PIL import Image
from tensorflow_serving.apis import prediction_service_pb2_grpc
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.config import model_server_config_pb2

from tests.rest_server import CLASSES, fake_server, outputs

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
CONFIG = DEPLOY / "tensorflow-serving"
MANIFESTS = [
    (file.name, manifest)
    for file in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    for manifest in yaml.safe_load_all(file.read_text())
]
KINDS = {manifest["kind"]: manifest for _, manifest in MANIFESTS}
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
TF_SERVING = COMPOSE["services"]["tensorflow-serving"]
POD = KINDS["Deployment"]["spec"]["template"]


def model_config() -> Any:
    text = (CONFIG / "models.config").read_text()
    (config,) = text_format.Parse(text, model_server_config_pb2.ModelServerConfig()).model_config_list.config
    return config


def test_the_model_configuration_is_tensorflow_servings() -> None:
    config = model_config()
    assert (config.name, config.base_path, config.model_platform) == ("btkeras", "/models/btkeras", "tensorflow")
    versions = list(config.model_version_policy.specific.versions)
    assert versions and set(config.version_labels.values()) <= set(versions)
    assert config.version_labels["stable"] in versions


def message_type(fields: dict[str, tuple[int, str]]) -> Any:
    """A message type by its fields' numbers and types, for what tensorflow-serving-api does not carry.

    From tensorflow_serving/servables/tensorflow/session_bundle_config.proto and config/monitoring_config.proto.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{id(fields)}.proto", package="checked", syntax="proto3")
    file.dependency.append("google/protobuf/wrappers.proto")
    message = file.message_type.add(name="Message")
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, (number, kind) in fields.items():
        field = message.field.add(name=name, number=number, label=kinds.LABEL_OPTIONAL)
        if kind.startswith("."):
            field.type, field.type_name = kinds.TYPE_MESSAGE, kind
        else:
            field.type = kinds.Type.Value(f"TYPE_{kind.removeprefix('repeated ').upper()}")
        if kind.startswith("repeated"):
            field.label = kinds.LABEL_REPEATED
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("checked.Message"))


INT64, STRING = ".google.protobuf.Int64Value", ".google.protobuf.StringValue"


def test_batching_follows_its_rules() -> None:
    kind = message_type(
        {
            "max_batch_size": (1, INT64),
            "batch_timeout_micros": (2, INT64),
            "max_enqueued_batches": (3, INT64),
            "num_batch_threads": (4, INT64),
            "thread_pool_name": (5, STRING),
            "allowed_batch_sizes": (6, "repeated int64"),
            "pad_variable_length_inputs": (7, "bool"),
        }
    )
    batching = text_format.Parse((CONFIG / "batching.config").read_text(), kind())
    sizes = list(batching.allowed_batch_sizes)
    assert sizes == sorted(set(sizes)) and sizes[-1] == batching.max_batch_size.value
    assert batching.num_batch_threads.value >= 1 and batching.max_enqueued_batches.value >= 1
    # Requests wait in their threads: twice a batch of them, or batches never fill.
    threads = int(flags(TF_SERVING["command"])["rest_api_num_threads"])
    assert threads >= 2 * batching.max_batch_size.value


def test_monitoring_is_where_prometheus_is_told_to_look() -> None:
    text = (CONFIG / "monitoring.config").read_text()
    inner = re.fullmatch(r"(?:#.*\n)*prometheus_config \{\n(.*)\}\n", text, re.DOTALL)
    assert inner
    prometheus = text_format.Parse(inner[1], message_type({"enable": (1, "bool"), "path": (2, "string")})())
    assert prometheus.enable
    assert prometheus.path == POD["metadata"]["annotations"]["prometheus.io/path"]


def flags(command: list[str]) -> dict[str, str]:
    return dict(argument.removeprefix("--").split("=", 1) for argument in command)


def test_compose_is_a_compose_file() -> None:
    schema = builtin_schemas.get_builtin_schema("vendor.compose-spec")
    jsonschema.validators.validator_for(schema)(schema).validate(COMPOSE)
    for service in COMPOSE["services"].values():
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
        assert not service["user"].startswith(("0", "root"))
        # Neither has TLS: this machine alone.
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert all(volume["read_only"] for volume in service["volumes"])


def test_compose_names_what_is_there() -> None:
    build = COMPOSE["services"]["btkeras"]["build"]
    context = (DEPLOY / build["context"]).resolve()
    assert context == ROOT and (context / build["dockerfile"]).is_file()
    mounts = {volume["target"]: volume["source"] for volume in TF_SERVING["volumes"]}
    assert model_config().base_path in mounts
    for flag in ("model_config_file", "batching_parameters_file", "monitoring_config_file"):
        path = flags(TF_SERVING["command"])[flag]
        folder = DEPLOY / mounts[str(Path(path).parent)]
        assert (folder / Path(path).name).is_file()


def test_the_health_check_tells_a_server_that_has_the_model(tmp_path: Path) -> None:
    _, program, *arguments = TF_SERVING["healthcheck"]["test"]
    assert program == "bash"

    def check(port: str) -> int:
        # Compose halves a doubled $; this line has none.
        assert "$" not in arguments[-1]
        command = [program, *arguments[:-1], arguments[-1].replace("8501", port)]
        return subprocess.run(command, capture_output=True, check=False, timeout=20).returncode

    with fake_server() as server:
        port = server.url.rpartition(":")[2]
        assert check(port) == 0
    assert check(port) != 0


@pytest.mark.parametrize(("name", "manifest"), MANIFESTS, ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("version", ["1.28", "1.37"])
def test_manifests_are_kubernetes_objects(name: str, manifest: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schemas_find_mistakes() -> None:
    wrong = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "spec": {"maxUnavailabel": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.37", strict=True)


def test_kubernetes_serves_what_compose_serves() -> None:
    (container,) = POD["spec"]["containers"]
    assert flags(container["args"]) == flags(TF_SERVING["command"])
    assert container["command"] == TF_SERVING["entrypoint"]
    assert f"${{SERVING_IMAGE:-{container['image']}}}" == TF_SERVING["image"]
    data = KINDS["ConfigMap"]["data"]
    assert data == {file.name: file.read_text() for file in CONFIG.glob("*.config")}
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert "/config" in mounts and str(Path(model_config().base_path).parent) in mounts


def test_pods_are_watched_and_locked() -> None:
    spec = POD["spec"]
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] > 0
    assert not spec["automountServiceAccountToken"]
    (container,) = spec["containers"]
    for each in (container, *spec["initContainers"]):
        security = each["securityContext"]
        assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert {"requests", "limits"} <= set(each["resources"])
        assert not each["image"].endswith(":latest") and ":" in each["image"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {str(ports["rest"]), str(ports["grpc"])} == {
        flags(container["args"])["rest_api_port"],
        flags(container["args"])["port"],
    }
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": f"/v1/models/{model_config().name}", "port": "rest"}
    assert spec["terminationGracePeriodSeconds"] > int(container["lifecycle"]["preStop"]["exec"]["command"][1])


def test_everything_points_at_the_same_pods() -> None:
    labels = POD["metadata"]["labels"]
    selectors = [manifest["spec"]["selector"] for _, manifest in MANIFESTS if manifest["kind"] == "Service"]
    selectors += [KINDS[kind]["spec"]["selector"]["matchLabels"] for kind in ("Deployment", "PodDisruptionBudget")]
    selectors.append(KINDS["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"])
    assert all(selector.items() <= labels.items() for selector in selectors) and len(selectors) == 5
    scaled = KINDS["HorizontalPodAutoscaler"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == KINDS["Deployment"]["metadata"]["name"]
    assert 1 < scaled["minReplicas"] < scaled["maxReplicas"]
    # The number of pods is the autoscaler's; and a rolling update keeps them all.
    assert "replicas" not in KINDS["Deployment"]["spec"]
    assert KINDS["Deployment"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    volumes = {volume["name"]: volume for volume in POD["spec"]["volumes"]}
    assert volumes["config"]["configMap"]["name"] == KINDS["ConfigMap"]["metadata"]["name"]


def test_dockerfiles_copy_what_is_there_and_drop_root() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    copied = [name for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE) for name in line.split()[:-1]]
    assert copied and all((ROOT / name).exists() for name in copied)
    included = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    assert set(copied) == included
    for name in ("Dockerfile", "Dockerfile.model"):
        users = re.findall(r"^USER (\d+):", (DEPLOY / name).read_text(), re.MULTILINE)
        assert users and users[-1] != "0"


def test_the_image_gets_the_smaller_tensorflow(tmp_path: Path) -> None:
    (run,) = re.findall(r"^RUN (.*?[^\\])$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE | re.DOTALL)
    edits = [subset.strip(" \\\n") for subset in run.split("&&") if "sed " in subset]
    for name in ("setup.cfg", "constraints.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    for edit in edits:
        subprocess.run(["sh", "-c", f"TENSORFLOW=tensorflow-cpu; {edit}"], cwd=tmp_path, check=True)
    wanted = re.findall(r"^    (tensorflow\S*)>=.*$", (tmp_path / "setup.cfg").read_text(), re.MULTILINE)
    assert wanted.count("tensorflow-cpu") == 1 and "tensorflow" not in wanted
    assert re.search(r"^tensorflow-cpu==", (tmp_path / "constraints.txt").read_text(), re.MULTILINE)


def test_the_dockerfiles_command_is_one_of_serves() -> None:
    from btkeras.cli.serve import serve

    (command,) = re.findall(r"^CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    arguments = ast.literal_eval(command)
    context = serve.make_context("serve", arguments)
    assert (str(context.params["model"]), context.params["host"]) == ("/models/btkeras", "0.0.0.0")


def load_example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DEPLOY / "clients" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pngs() -> list[bytes]:
    images = []
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 80 * seed + 40, (48, 40), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        images.append(buffer.getvalue())
    return images


@pytest.mark.parametrize(("file", "message"), [("none.png", "none.png"), ("0.png", "cannot be reached")])
def test_the_rest_example_fails_in_one_line(tmp_path: Path, file: str, message: str) -> None:
    (tmp_path / "0.png").write_bytes(pngs()[0])
    # Nobody listens on port 9.
    command = [sys.executable, DEPLOY / "clients" / "rest.py", "http://127.0.0.1:9", "btkeras", tmp_path / file]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_rest_example(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTKERAS_TOKEN", "secret")
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file, data in zip(files, pngs(), strict=True):
        file.write_bytes(data)
    example = load_example("rest")
    with fake_server() as server:
        example.main(server.url, "btkeras/labels/stable", *map(str, files))
        assert (server.paths, server.tokens) == (["/v1/models/btkeras/labels/stable:predict"], ["Bearer secret"])
        with pytest.raises(RuntimeError, match=r"404.*Servable not found"):
            example.main(server.url, "other", str(files[0]))
    predictions = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = [outputs(data) for data in pngs()]
    assert [prediction["label"] for prediction in predictions] == [one["label"] for one in expected]
    assert predictions[2]["probabilities"] == dict(zip(CLASSES, expected[2]["probabilities"], strict=True))


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """TensorFlow Serving's service, with a SavedModel that is loaded here."""

    def __init__(self, folder: Path) -> None:
        self.model = tf.saved_model.load(str(folder))
        self.specs: list[Any] = []

    def Predict(self, request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:  # noqa: N802
        self.specs.append(request.model_spec)
        if request.model_spec.name != "btkeras":
            context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found")
        signature = self.model.signatures[request.model_spec.signature_name]
        inputs = {name: tf.constant(tf.make_ndarray(tensor)) for name, tensor in request.inputs.items()}
        response = PredictResponse()
        for name, tensor in signature(**inputs).items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(tensor))
        return response


@pytest.fixture(scope="module")
def grpc_service(exported_model: Path) -> Iterator[tuple[str, PredictionService]]:
    service = PredictionService(exported_model / "1")
    server = grpc.server(ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", service
    server.stop(None).wait()


def test_the_grpc_example(grpc_service: tuple[str, PredictionService]) -> None:
    address, service = grpc_service
    example = load_example("grpc_client")
    predictions = example.classify(address, "btkeras", pngs())
    direct = service.model.signatures["serving_default"](image_bytes=tf.constant(pngs()))
    for number, prediction in enumerate(predictions):
        names = [name.decode() for name in direct["classes"][number].numpy()]
        assert list(prediction["probabilities"]) == names
        found = list(prediction["probabilities"].values())
        np.testing.assert_allclose(found, direct["probabilities"][number], rtol=1e-6)
        assert prediction["label"] == direct["label"][number].numpy().decode()
    example.classify(address, "btkeras/versions/3", pngs())
    example.classify(address, "btkeras/labels/stable", pngs())
    assert not service.specs[0].WhichOneof("version_choice")
    assert service.specs[1].version.value == 3 and service.specs[2].version_label == "stable"
    with pytest.raises(grpc.RpcError, match="Servable not found"):
        example.classify(address, "other", pngs())
