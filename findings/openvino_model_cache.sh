#!/usr/bin/env bash
# With a model cache (CACHE_DIR), OpenVINO's compile_model(PATH) answers with the network that lay at the path before, if the
# new file has its size and its time of change in whole seconds. A network that was trained again has the same size; the
# same time comes with images and archives whose times are set for reproducible builds (SOURCE_DATE_EPOCH), and with files
# that are written within one second. read_model(PATH) and then compile_model(MODEL) looks at the weights, and is right.
#
# A reader expects: the cache is keyed by the model's content, as the other way to load it is; a new file gives its own
# predictions. What helps: a folder of its own for each version's cache, or read_model first.
# Versions: openvino 2026.4.1, onnx 1.23.2, numpy 2.4.6. Source: the run below.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet openvino==2026.4.1 onnx==1.23.2 numpy==2.4.6
cd "$work"
venv/bin/python - <<'PYTHON'
import os
import shutil

import numpy as np
import onnx
import openvino
from onnx import TensorProto, helper, numpy_helper

images = np.ones((1, 8), np.float32)
weights = {version: np.random.default_rng(version).normal(size=(8, 4)).astype(np.float32) for version in (1, 2)}


def write(version):
    """A network of one matrix, built reproducibly: each version with the same time of change."""
    values = [helper.make_tensor_value_info(*each) for each in (("x", TensorProto.FLOAT, [1, 8]), ("y", TensorProto.FLOAT, [1, 4]))]
    matrix = numpy_helper.from_array(weights[version], "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "network", values[:1], values[1:], [matrix])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, "model.onnx")
    os.utime("model.onnx", (1577836800, 1577836800))


def predicted(loads):
    """Whose prediction comes from the file: the version of the nearest weights."""
    core = openvino.Core()
    core.set_property({"CACHE_DIR": "cache"})
    compiled = core.compile_model("model.onnx" if loads == "path" else core.read_model("model.onnx"), "CPU")
    found = compiled(images)[0]
    return min(weights, key=lambda version: np.abs(found - images @ weights[version]).max())


for loads, expected in (("path", [1, 1]), ("read_model", [1, 2])):
    shutil.rmtree("cache", ignore_errors=True)
    seen = []
    for version in (1, 2):
        write(version)
        seen.append(predicted(loads))
    print(f"by {loads}: the file holds versions 1, 2; predictions are of versions {seen[0]}, {seen[1]}")
    assert seen == expected
PYTHON
