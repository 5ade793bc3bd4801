#!/usr/bin/env bash
# OnnxSlim gives a network other outputs, without a word, where a convolution is multiplied by a vector along its rows
# or columns and there are as many channels as rows or columns. It folds such a vector into the kernel as if it had one
# value for each channel, since it looks at the vector's length and not at its axis. 64 channels of 64 x 64 are the
# first stage of a ResNet with images of 256 pixels, or a U-Net's; the vector may be a window that fades the border.
# With 63 or 65 channels the network stays right. The same fold of an addition looks at the axis ("must select
# channels, not spatial axes", its comment says), and is right; so are ONNX Runtime's own fusion and onnxsim's.
#
# A user expects: "OnnxSlim can help you slim your onnx model, with less operators, but same accuracy"; NumPy's rules
# of broadcasting, which ONNX has, decide the axis.
# What helps: compare both files' outputs, or onnxslim's --skip-fusion-patterns FusionConvMul.
# Versions: onnxslim 0.1.98, onnxsim 0.8.1, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6. Source: the run below;
# onnxslim/core/pattern/fusion/convmul.py. No public issue found.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet onnxslim==0.1.98 onnxsim==0.8.1 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$work"
venv/bin/python - 2>errors.txt <<'PYTHON' || { cat errors.txt >&2; exit 1; }
import copy

import numpy as np
import onnx
import onnxruntime
import onnxsim
import onnxslim
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

rng = np.random.default_rng(0)
images = rng.random((2, 1, 64, 64)).astype(np.float32)
window = np.hanning(66)[1:-1].astype(np.float32)


def network(operation, channels, vector):
    """A convolution, an operation with a vector, ReLU."""
    constants = {"kernel": rng.normal(size=(channels, 1, 3, 3)), "bias": np.ones(channels), "vector": vector}
    nodes = [
        helper.make_node("Conv", ["images", "kernel", "bias"], ["maps"], pads=[1, 1, 1, 1]),
        helper.make_node(operation, ["maps", "vector"], ["faded"]),
        helper.make_node("Relu", ["faded"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [2, 1, 64, 64])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [2, channels, 64, 64])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def run(model):
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"images": images})[0]


found = {}
for name, operation, channels, vector in (
    ("rows * window, 64 channels", "Mul", 64, window[:, None]),
    ("columns * window, 64 channels", "Mul", 64, window),
    ("columns * window, 63 channels", "Mul", 63, window),
    ("channels * vector, 64 channels", "Mul", 64, window[:, None, None]),
    ("columns + window, 64 channels", "Add", 64, window),
):
    model = network(operation, channels, vector)
    truth = ReferenceEvaluator(model).run(None, {"images": images})[0]
    outputs = {
        "ONNX Runtime": run(model),
        "onnxsim": run(onnxsim.simplify(copy.deepcopy(model))[0]),
        "OnnxSlim": run(onnxslim.slim(copy.deepcopy(model))),
    }
    errors = {tool: float(np.abs(output - truth).max() / truth.max()) for tool, output in outputs.items()}
    found[name] = errors
    print(f"{name}: " + ", ".join(f"{tool} off by {error:.1%}" for tool, error in errors.items()))
for name, errors in found.items():
    assert errors["ONNX Runtime"] < 1e-5 and errors["onnxsim"] < 1e-5, errors
    wrong = name in ("rows * window, 64 channels", "columns * window, 64 channels")
    assert errors["OnnxSlim"] > 0.3 if wrong else errors["OnnxSlim"] < 1e-5, (name, errors)
PYTHON
