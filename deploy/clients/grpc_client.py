#!/usr/bin/env python3
"""Classifies PNG or JPEG slices through TensorFlow Serving's gRPC interface. Needs: pip install tensorflow-serving-api

    python deploy/clients/grpc_client.py localhost:8500 btkeras slice.png other.jpg
    python deploy/clients/grpc_client.py localhost:8500 btkeras/labels/stable slice.png
    python deploy/clients/grpc_client.py dns:///btkeras-grpc:8500 btkeras slice.png         # all pods in turn

The second argument is the model's name, with /versions/N or /labels/LABEL behind it if one is wanted. Prints a JSON
object a line. `btkeras serve` has no gRPC; deploy/clients/rest.py works with both.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


def request_for(model: str, images: Sequence[bytes]) -> predict_pb2.PredictRequest:
    """The request for encoded images."""
    name, *chosen = model.split("/")
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = "serving_default"
    if chosen[:1] == ["versions"]:
        request.model_spec.version.value = int(chosen[1])
    elif chosen[:1] == ["labels"]:
        request.model_spec.version_label = chosen[1]
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(list(images), dtype=tf.string))
    return request


def classify(server: str, model: str, images: Sequence[bytes]) -> list[dict[str, object]]:
    """Sends encoded images in one request and returns a label and probabilities for each.

    Raises:
        grpc.RpcError: As the server says, or after 60 s.
    """
    # Pods come and go: each request takes the next one that is there.
    with grpc.insecure_channel(server, [("grpc.lb_policy_name", "round_robin")]) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        outputs = stub.Predict(request_for(model, images), timeout=60).outputs
    arrays = {name: tf.make_ndarray(outputs[name]) for name in ("label", "classes", "probabilities")}
    return [
        {
            "label": label.decode(),
            "probabilities": {name.decode(): float(p) for name, p in zip(names, row, strict=True)},
        }
        for label, names, row in zip(arrays["label"], arrays["classes"], arrays["probabilities"], strict=True)
    ]


def main(server: str, model: str, *files: str) -> None:
    """Prints the answers to files."""
    answers = classify(server, model, [Path(file).read_bytes() for file in files])
    for file, answer in zip(files, answers, strict=True):
        print(json.dumps({"file": file, **answer}))


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
