#!/usr/bin/env bash
# OpenVINO writes one image over another in the caller's own array, without a word. A compiled model that is called
# with an array shares its memory (share_inputs=True is the default of such a call). If the next call is to copy
# (share_inputs=False, the default of InferRequest.infer and of AsyncInferQueue), it copies its image into the
# request's input tensor, and that still is the first call's array: images[0] becomes images[1], for whatever reads it
# later. A request that was given a Tensor(..., shared_memory=True) does the same. In a network with a dynamic batch
# even other requests of the same compiled model do it: after one call with images[:1], a queue that copies writes over
# images[0]. With a fixed batch they do not.
#
# A user expects: with share_inputs=False it "will safely copy data to existing Tensors", as the documentation has it;
# inputs are only read, and sharing lasts for its call. What helps: one mode for a compiled model and all its requests,
# or arrays that are not writeable (images.flags.writeable = False), which are always copied.
# Versions: openvino 2026.4.1, onnx 1.23.2, numpy 2.4.6. Source: the run below; update_tensor in
# openvino/utils/data_helpers/data_dispatcher.py. The documentation warns that "shared data can be modified during
# runtime" in the shared call. No public issue found; https://github.com/openvinotoolkit/openvino/pull/36554 (open) has
# another fault of sharing.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet openvino==2026.4.1 onnx==1.23.2 numpy==2.4.6
cd "$work"
venv/bin/python - 2>errors.txt <<'PYTHON' || { cat errors.txt >&2; exit 1; }
import numpy as np
import onnx
import openvino
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(0)
graph = helper.make_graph(
    [
        helper.make_node("Conv", ["images", "kernel"], ["maps"]),
        helper.make_node("GlobalMaxPool", ["maps"], ["scores"]),
    ],
    "network",
    [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, 16, 16])],
    [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 4, 1, 1])],
    [numpy_helper.from_array(rng.normal(size=(4, 1, 3, 3)).astype(np.float32), "kernel")],
)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "network.onnx")
originals = rng.random((8, 1, 16, 16)).astype(np.float32)
core = openvino.Core()


def call(model, images):
    model(images[:1])
    model(images[1:2], share_inputs=False)


def request(model, images):
    request = model.create_infer_request()
    request.infer(images[:1], share_inputs=True)
    request.infer(images[1:2])


def tensor(model, images):
    request = model.create_infer_request()
    request.infer(openvino.Tensor(images[:1], shared_memory=True))
    request.infer(images[1:2])


def queue(model, images):
    model(images[:1])
    queue = openvino.AsyncInferQueue(model, 2)
    for index in range(1, 8):
        queue.start_async(images[index : index + 1])
    queue.wait_all()


def always_shared(model, images):
    for index in range(8):
        model(images[index : index + 1])


def always_copied(model, images):
    for index in range(8):
        model(images[index : index + 1], share_inputs=False)


found = {}
for batch, shape in (("fixed", [1, 1, 16, 16]), ("dynamic", [-1, 1, 16, 16])):
    for use in (call, request, tensor, queue, always_shared, always_copied):
        network = core.read_model("network.onnx")
        network.reshape(shape)
        model = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        images = originals.copy()
        truth = model(originals[:1].copy())[0]
        use(model, images)
        changed = [index for index in range(8) if (images[index] != originals[index]).any()]
        error = float(np.abs(model(images[:1])[0] - truth).max())
        found[batch, use.__name__] = changed
        print(f"{batch} batch, {use.__name__}: images changed {changed}, output for image 0 off by {error:.2f}")
for batch in ("fixed", "dynamic"):
    for use in ("call", "request", "tensor"):
        assert found[batch, use] == [0], (batch, use)
    for use in ("always_shared", "always_copied"):
        assert found[batch, use] == [], (batch, use)
assert found["fixed", "queue"] == [] and found["dynamic", "queue"] == [0], found
PYTHON
