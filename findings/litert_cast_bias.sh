#!/usr/bin/env bash
# A LiteRT convolution with an int8 kernel (dynamic range) whose bias is stored as float16 behind DEQUANTIZE, as the
# converter stores every constant of a float16 model, cannot be prepared: allocate_tensors() raises "failed to delegate
# CONV_2D node #1 ... failed to prepare". Without the default delegate the same file runs, and with a float32 bias it
# runs in both ways.
#
# A reader expects: XNNPACK takes the node, as it takes the same cast before the bias of a float16 convolution, or leaves
# it to the built-in kernel, which computes it. So a float16 file cannot be made int8 kernel by kernel: the biases beside
# them have to become float32 too.
# Versions: ai-edge-litert 2.3.0, flatbuffers 25.12.19, numpy 2.4.6. Source: the run below.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet ai-edge-litert==2.3.0 flatbuffers==25.12.19 numpy==2.4.6
cd "$work"
venv/bin/python - 2>stderr.txt <<'PYTHON' || { cat stderr.txt; exit 1; }
import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

rng = np.random.default_rng(0)
kernel = rng.integers(-127, 128, (32, 1, 1, 64)).astype(np.int8)  # output, height, width, input
bias = rng.normal(size=32).astype(np.float16)
T = schema.TensorType


def model(bias_is_cast):
    """One convolution (dynamic range: float32 image, int8 kernel with a scale per channel) and its bias."""
    buffers, tensors = [schema.BufferT()], []

    def tensor(name, shape, kind, values=None):
        each, number = schema.TensorT(), 0
        if values is not None:
            data = schema.BufferT()
            data.data, number = np.frombuffer(values.tobytes(), np.uint8), len(buffers)
            buffers.append(data)
        each.name, each.shape, each.type, each.buffer = name, shape, kind, number
        tensors.append(each)
        return len(tensors) - 1

    image = tensor("image", [1, 8, 8, 64], T.FLOAT32)
    kernel_tensor = tensor("kernel", [32, 1, 1, 64], T.INT8, kernel)
    scales = schema.QuantizationParametersT()
    scales.scale, scales.zeroPoint = np.full(32, 0.01, np.float32), np.zeros(32, np.int64)
    tensors[kernel_tensor].quantization = scales
    operators = []
    if bias_is_cast:
        stored = tensor("stored", [32], T.FLOAT16, bias)
        bias_tensor = tensor("bias", [32], T.FLOAT32)
        cast = schema.OperatorT()
        cast.opcodeIndex, cast.inputs, cast.outputs = 1, [stored], [bias_tensor]
        operators.append(cast)
    else:
        bias_tensor = tensor("bias", [32], T.FLOAT32, bias.astype(np.float32))
    output = tensor("output", [1, 8, 8, 32], T.FLOAT32)
    convolution, options = schema.OperatorT(), schema.Conv2DOptionsT()
    options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
    convolution.opcodeIndex, convolution.inputs, convolution.outputs = 0, [image, kernel_tensor, bias_tensor], [output]
    convolution.builtinOptionsType, convolution.builtinOptions = schema.BuiltinOptions.Conv2DOptions, options
    operators.append(convolution)

    codes = []
    for code, version in ((schema.BuiltinOperator.CONV_2D, 5), (schema.BuiltinOperator.DEQUANTIZE, 3)):
        each = schema.OperatorCodeT()
        each.builtinCode = each.deprecatedBuiltinCode = code
        each.version = version
        codes.append(each)
    graph, whole = schema.SubGraphT(), schema.ModelT()
    graph.tensors, graph.operators, graph.inputs, graph.outputs = tensors, operators, [image], [output]
    whole.version, whole.operatorCodes, whole.subgraphs, whole.buffers = 3, codes, [graph], buffers
    builder = flatbuffers.Builder(1024)
    builder.Finish(whole.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def run(content, **options):
    try:
        interpreter = Interpreter(model_content=content, **options)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    except (RuntimeError, ValueError) as error:
        return str(error)


image = rng.normal(size=(1, 8, 8, 64)).astype(np.float32)
expected = image.reshape(-1, 64) @ (kernel.reshape(32, 64).T * 0.01) + bias.astype(np.float32)
ways = {
    "with XNNPACK": {},
    "without": {"experimental_op_resolver_type": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES},
}
for name, cast in (("bias in float32", False), ("bias in float16 behind DEQUANTIZE", True)):
    for how, options in ways.items():
        found = run(model(cast), **options)
        if isinstance(found, str):
            print(f"{name}, {how}: {found}")
            assert cast and how == "with XNNPACK" and "failed to prepare" in found
        else:
            difference = abs(found.reshape(-1, 32) - expected).max() / abs(expected).max()
            print(f"{name}, {how}: within {difference:.1%} of float32")
            assert difference < 0.02 and not (cast and how == "with XNNPACK")
PYTHON
