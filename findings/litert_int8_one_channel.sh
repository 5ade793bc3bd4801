#!/usr/bin/env bash
# A LiteRT convolution of a grey image (one channel, 11 x 11, 32 filters) is slower with int8 weights than with float32
# ones: 1.9 times the time, where 64 channels take a quarter. int8 kernels multiply a few channels of a pixel at a
# time, and a single one is filled up with zeros. The same products with each row's 11 neighbours as channels, which a
# convolution with a unit matrix makes in float32, take a quarter of that: the outputs are equal to the last bit, since both
# quantize the same range. So the first layer of a grey network is to be reshaped before it is quantized, or left as is.
#
# A reader expects: weights of 8 bits make a convolution about twice as fast (the guess before the run: 0.5 to 0.6).
# Versions: ai-edge-litert 2.3.0, flatbuffers 25.12.19, numpy 2.4.6, Linux. Source: the run below. Seen with AVX-512 VNNI:
#   one channel, ms: float32 5.82, int8 10.88, int8 of rows as channels 2.74
#   64 channels, ms: float32 2.19, int8 0.58
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet ai-edge-litert==2.3.0 flatbuffers==25.12.19 numpy==2.4.6
cd "$work"
cat >measure.py <<'PYTHON'
"""Times convolutions of four images, one thread."""
import time

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

rng = np.random.default_rng(0)


class Network:
    """A LiteRT model of convolutions one after the other, without strides."""

    def __init__(self, side, channels):
        self.side, self.buffers, self.tensors, self.operators = side, [schema.BufferT()], [], []
        self.last = self.first = self.tensor([4, side, side, channels])

    def tensor(self, shape, values=None, scales=None):
        each, each.buffer = schema.TensorT(), 0
        each.name, each.shape, each.type = f"tensor{len(self.tensors)}", shape, schema.TensorType.FLOAT32
        if values is not None:
            data, each.buffer = schema.BufferT(), len(self.buffers)
            data.data = np.frombuffer(values.tobytes(), np.uint8)
            self.buffers.append(data)
        if scales is not None:
            each.type, each.quantization = schema.TensorType.INT8, schema.QuantizationParametersT()
            each.quantization.scale, each.quantization.zeroPoint = scales, np.zeros(len(scales), np.int64)
        self.tensors.append(each)
        return len(self.tensors) - 1

    def convolve(self, kernel, scales=None):
        filters, height, width, _ = kernel.shape
        each, options = schema.OperatorT(), schema.Conv2DOptionsT()
        options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
        options.padding = schema.Padding.SAME
        each.builtinOptionsType, each.builtinOptions = schema.BuiltinOptions.Conv2DOptions, options
        weights = self.tensor(list(kernel.shape), kernel, scales)
        bias = self.tensor([filters], np.zeros(filters, np.float32))
        each.opcodeIndex, each.inputs = 0, [self.last, weights, bias]
        self.last = self.tensor([4, self.side, self.side, filters])
        each.outputs = [self.last]
        self.operators.append(each)
        return self

    def interpreter(self):
        code, graph, model = schema.OperatorCodeT(), schema.SubGraphT(), schema.ModelT()
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CONV_2D
        code.version = 5
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs, graph.outputs = [self.first], [self.last]
        model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], self.buffers
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        found = Interpreter(model_content=bytes(builder.Output()), num_threads=1)
        found.allocate_tensors()
        return found


def measured(networks, images):
    """Least milliseconds of each, in turns, and its output."""
    loaded = [each.interpreter() for each in networks]
    for each in loaded:
        each.set_tensor(each.get_input_details()[0]["index"], images)
    times = np.full((30, len(loaded)), np.inf)
    for row in times:
        for number, each in enumerate(loaded):
            start = time.process_time()
            each.invoke()
            row[number] = 1000 * (time.process_time() - start)
    outputs = [each.get_tensor(each.get_output_details()[0]["index"]) for each in loaded]
    return times.min(axis=0), outputs


def quantized(kernel):
    scales = np.abs(kernel).max(axis=(1, 2, 3)) / 127
    return np.rint(kernel / scales[:, None, None, None]).astype(np.int8), scales.astype(np.float32)


grey = rng.normal(size=(32, 11, 11, 1)).astype(np.float32)
whole, scales = quantized(grey)
unit = np.eye(11, dtype=np.float32).reshape(11, 1, 11, 1)
times, outputs = measured(
    [
        Network(112, 1).convolve(grey),
        Network(112, 1).convolve(whole, scales),
        Network(112, 1).convolve(unit).convolve(whole.transpose(0, 1, 3, 2).copy(), scales),
    ],
    rng.random((4, 112, 112, 1), np.float32),
)
print("one channel, ms: float32 {:.2f}, int8 {:.2f}, int8 of rows as channels {:.2f}".format(*times))
deep = rng.normal(size=(64, 3, 3, 64)).astype(np.float32)
control, _ = measured(
    [Network(28, 64).convolve(deep), Network(28, 64).convolve(*quantized(deep))], rng.random((4, 28, 28, 64), np.float32)
)
print("64 channels, ms: float32 {:.2f}, int8 {:.2f}".format(*control))
assert np.array_equal(outputs[1], outputs[2])
assert control[1] < 0.8 * control[0]
assert times[1] > 1.2 * times[0] and times[2] < 0.5 * times[1], times
PYTHON
venv/bin/python measure.py 2>/dev/null
