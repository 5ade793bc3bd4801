#!/usr/bin/env bash
# With ONNX Runtime's dynamic quantization (quantize_dynamic), what the network says of an image depends on the other
# images in its batch: DynamicQuantizeLinear takes one scale and zero point for the whole tensor, all images together.
# The output of a dark image (0 to 0.02) is 1 % from float32's when it is alone, and 22 % beside a bright one (0 to 1).
# The float32 network gives an image the same output in any batch, and so does static quantization, whose ranges are
# fixed. (LiteRT's dynamic-range kernels take a scale per image.)
#
# A reader expects: dynamic ranges are those of each image; batching changes speed and nothing else.
# Versions: onnxruntime 1.32.0, onnx 1.23.2, numpy 2.4.6. Source: the run below; the operator's definition says that it
# computes "scale and zero point" of the data as a whole (https://onnx.ai/onnx/operators/onnx__DynamicQuantizeLinear.html).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cd "$work"
venv/bin/python - 2>stderr.txt <<'PYTHON' || { cat stderr.txt; exit 1; }
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession
from onnxruntime.quantization import (
    CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static,
)

rng = np.random.default_rng(0)
kernels = [rng.normal(0, 0.2, shape).astype(np.float32) for shape in ((16, 1, 3, 3), (4, 16, 3, 3))]
nodes = [
    helper.make_node("Conv", ["images", "k0"], ["a"], pads=[1, 1, 1, 1]),
    helper.make_node("Relu", ["a"], ["b"]),
    helper.make_node("Conv", ["b", "k1"], ["scores"], pads=[1, 1, 1, 1]),
]
graph = helper.make_graph(
    nodes, "network",
    [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 1, 32, 32])],
    [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 4, 32, 32])],
    [numpy_helper.from_array(kernel, f"k{i}") for i, kernel in enumerate(kernels)],
)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), "float32.onnx")
dark = rng.uniform(0, 0.02, (1, 1, 32, 32)).astype(np.float32)
bright = rng.uniform(0, 1, (1, 1, 32, 32)).astype(np.float32)


class Reader(CalibrationDataReader):
    def __init__(self):
        self.batches = iter([{"images": dark}, {"images": bright}])

    def get_next(self):
        return next(self.batches, None)


quantize_dynamic("float32.onnx", "dynamic.onnx", op_types_to_quantize=["Conv"], weight_type=QuantType.QUInt8)
quantize_static("float32.onnx", "static.onnx", Reader(), quant_format=QuantFormat.QDQ, per_channel=True)


def scores(name, *images):
    session = InferenceSession(f"{name}.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {"images": np.concatenate(images)})[0][0].ravel()


def error(one, other):
    return float(np.sqrt(np.mean((one - other) ** 2) / np.mean(exact**2)))


exact = scores("float32", dark)
for name in ("float32", "static", "dynamic"):
    alone, beside = scores(name, dark), scores(name, dark, bright)
    found = {"alone": error(alone, exact), "beside a bright image": error(beside, exact)}
    print(f"{name}: relative error of the dark image's output", {key: round(value, 4) for key, value in found.items()})
    if name == "dynamic":
        assert found["beside a bright image"] > 5 * found["alone"]
    else:
        np.testing.assert_allclose(beside, alone, atol=1e-6)
PYTHON
