#!/usr/bin/env bash
# Three settings of ONNX Runtime's static quantization (quantize_static) do something else than they say, silently:
# - CalibTensorRangeSymmetric removes the network's ReLU layers, though it is only to make the ranges symmetric: the
#   quantizer takes a ReLU out where a range that begins at 0 does its work, and asks only ActivationSymmetric whether
#   it does. Negative values go on through the network. With ActivationSymmetric the ReLU stays, the result is right.
# - CalibMaxIntermediateOutputs=N, which by its documentation "will produce the same result as all computing with None,
#   but is more memory efficient", forgets each N batches: what remains after the last N calibrates (if nothing does,
#   it raises).
# - CalibrationMethod.Entropy is MinMax: of its 128 bins it has to keep 128, so that there is one range to choose from.
#   One pixel of 50 in 64 images of 0 to 1, which it is there to ignore, makes the input's step 50 times as large. With
#   2048 bins the range ends at 5, but quantize_static does not pass `num_bins` on; create_calibrator does.
#
# A reader expects: symmetric ranges cost one bit, the memory setting costs nothing, entropy ignores what is rare.
# What helps: ActivationSymmetric in place of the first, fewer or smaller images in place of the second.
# Versions: onnxruntime 1.32.0, onnx 1.23.2, numpy 2.4.6. Source: the run below. For ActivationSymmetric the first was
# mended by https://github.com/microsoft/onnxruntime/pull/11696; the second's cause is in
# https://github.com/microsoft/onnxruntime/pull/20226 (closed), where it is an error; the third's numbers are in
# https://github.com/microsoft/onnxruntime/issues/9597 (closed).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cd "$work"
venv/bin/python - 2>errors.txt <<'PYTHON' || { cat errors.txt >&2; exit 1; }
import contextlib
import io

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantType,
    create_calibrator,
    quantize_static,
)

random = np.random.default_rng(0)
tensors = {
    "kernel1": random.normal(0, 0.3, (8, 1, 3, 3)),
    "bias1": random.normal(0, 0.1, 8),
    "kernel2": random.normal(0, 0.1, (16, 8, 3, 3)),
    "bias2": random.normal(0, 0.1, 16),
    "dense": random.normal(0, 1, (16, 4)),
    "offset": np.zeros(4),
}
nodes = [
    helper.make_node("Conv", ["x", "kernel1", "bias1"], ["c1"], pads=[1] * 4),
    helper.make_node("Relu", ["c1"], ["r1"]),
    helper.make_node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
    helper.make_node("Conv", ["p1", "kernel2", "bias2"], ["c2"], pads=[1] * 4),
    helper.make_node("Relu", ["c2"], ["r2"]),
    helper.make_node("GlobalAveragePool", ["r2"], ["pooled"]),
    helper.make_node("Flatten", ["pooled"], ["flat"]),
    helper.make_node("Gemm", ["flat", "dense", "offset"], ["logits"]),
]
graph = helper.make_graph(
    nodes,
    "network",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 24, 24])],
    [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4])],
    [numpy_helper.from_array(value.astype(np.float32), name) for name, value in tensors.items()],
)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "network.onnx")
images = (random.uniform(0, 1, (64, 1, 24, 24)) * random.uniform(0.2, 1, (64, 1, 1, 1))).astype(np.float32)
images[0] = random.uniform(0, 1, images[0].shape)
rare = images.copy()
rare[0, 0, 0, 0] = 50


class Reader(CalibrationDataReader):
    def __init__(self, images):
        self.batches = iter([{"x": images[start : start + 8]} for start in range(0, len(images), 8)])

    def get_next(self):
        return next(self.batches, None)


def run(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": images})[0]


exact = run("network.onnx")


def quantize(calibration=images, method=CalibrationMethod.MinMax, signed=True, **options):
    """The error of the logits (of their spread), the ReLU layers left, and the input's step."""
    kind = QuantType.QInt8 if signed else QuantType.QUInt8
    with contextlib.redirect_stdout(io.StringIO()):
        quantize_static(
            "network.onnx",
            "quantized.onnx",
            Reader(calibration),
            calibrate_method=method,
            activation_type=kind,
            extra_options=options,
        )
    graph = onnx.load("quantized.onnx").graph
    step = next(numpy_helper.to_array(tensor).item() for tensor in graph.initializer if tensor.name == "x_scale")
    error = np.sqrt(np.mean((run("quantized.onnx") - exact) ** 2) / np.mean((exact - exact.mean(axis=0)) ** 2))
    return error, sum(node.op_type == "Relu" for node in graph.node), step


cases = {
    "default": quantize(),
    "ActivationSymmetric": quantize(ActivationSymmetric=True),
    "CalibTensorRangeSymmetric": quantize(CalibTensorRangeSymmetric=True),
    "CalibTensorRangeSymmetric, uint8": quantize(signed=False, CalibTensorRangeSymmetric=True),
    "rare pixel, MinMax": quantize(rare),
    "rare pixel, CalibMaxIntermediateOutputs=3": quantize(rare, CalibMaxIntermediateOutputs=3),
    "rare pixel, Entropy": quantize(rare, CalibrationMethod.Entropy),
}
for name, (error, left, step) in cases.items():
    print(f"{name}: logits off by {error:.1%} of their spread, ReLU layers {left}, step of the input {step:.4f}")
assert cases["default"][0] < 0.1 and cases["ActivationSymmetric"][0] < 0.1
for name in ("CalibTensorRangeSymmetric", "CalibTensorRangeSymmetric, uint8"):
    assert cases[name][0] > 1 and cases[name][1] == 0, name
minmax, memory, entropy = (values[2] for values in list(cases.values())[4:])
np.testing.assert_allclose([minmax, entropy], 50 / 255, rtol=1e-3)
assert memory < 1.01 / 255, cases


def input_range(bins):
    with contextlib.redirect_stdout(io.StringIO()):
        calibrator = create_calibrator(
            "network.onnx",
            ["Conv"],
            augmented_model_path="augmented.onnx",
            calibrate_method=CalibrationMethod.Entropy,
            extra_options={"num_bins": bins},
        )
        calibrator.collect_data(Reader(rare))
        return float(np.ravel(calibrator.compute_data()["x"].range_value[1])[0])


ends = {bins: input_range(bins) for bins in (128, 2048)}
print(f"rare pixel, Entropy: the input's range ends at {ends[128]:.1f} with 128 bins, at {ends[2048]:.1f} with 2048")
assert ends[128] == 50 and ends[2048] < 10
try:
    quantize(CalibMaxIntermediateOutputs=4)
except ValueError as error:
    print(f"CalibMaxIntermediateOutputs=4 of 8 batches: {error}")
else:
    raise AssertionError("no error")
PYTHON
