#!/usr/bin/env bash
# A LiteRT file with float16 weights that takes uint8 images, written as the converter writes it (all DEQUANTIZE, CAST,
# convolutions), holds its weights once in batches of the size that it was first allocated for. When its input is
# resized to a larger batch it holds them twice from then on, in smaller batches too. It does not if it was allocated for
# the largest batch first, if CAST comes before the DEQUANTIZE operations, if the weights are float32, or if the images
# are. So: resize to the largest batch before the first allocate_tensors().
#
# A reader expects: resizing an input makes room for activations. Weights do not depend on the batch, and neither their
# number of copies nor the result depends on the order of operations that do not depend on each other.
# Versions: ai-edge-litert 2.3.0, flatbuffers 25.12.19, numpy 2.4.6, Linux. Source: the run below.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet ai-edge-litert==2.3.0 flatbuffers==25.12.19 numpy==2.4.6
cd "$work"
cat >model.py <<'PYTHON'
"""Writes twelve convolutions of 256 channels, of float32 or uint8 images, in float32 or float16, CAST first or not."""
import sys

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

images, weights, order = sys.argv[1:]
rng = np.random.default_rng(0)
T, B = schema.TensorType, schema.BuiltinOperator
TYPES = {"float32": T.FLOAT32, "float16": T.FLOAT16, "uint8": T.UINT8}
CODES = {B.CONV_2D: 1, B.DEQUANTIZE: 3, B.CAST: 1}  # and the versions
buffers, tensors, operators = [schema.BufferT()], [], []


def tensor(name, shape, values=None, dtype="float32", signature=None):
    each, number = schema.TensorT(), 0
    if values is not None:
        data, dtype = schema.BufferT(), values.dtype.name
        data.data, number = np.frombuffer(values.tobytes(), np.uint8), len(buffers)
        buffers.append(data)
    each.name, each.shape, each.type, each.buffer = name, shape, TYPES[dtype], number
    each.shapeSignature = signature
    tensors.append(each)
    return len(tensors) - 1


def operation(code, inputs, output):
    each = schema.OperatorT()
    each.opcodeIndex, each.inputs, each.outputs = list(CODES).index(code), inputs, [output]
    operators.append((each, code))
    return each


first = last = tensor("images", [1, 4, 4, 256], dtype=images, signature=[-1, 4, 4, 256])
if images == "uint8":
    last = tensor("cast", [1, 4, 4, 256], signature=[-1, 4, 4, 256])
    operation(B.CAST, [first], last)
for layer in range(12):
    kernel = tensor(f"kernel{layer}", [256, 3, 3, 256], rng.normal(0, 0.02, (256, 3, 3, 256)).astype(weights))
    if weights == "float16":
        stored, kernel = kernel, tensor(f"whole{layer}", [256, 3, 3, 256])
        operation(B.DEQUANTIZE, [stored], kernel)
    bias = tensor(f"bias{layer}", [256], np.zeros(256, np.float32))
    result = tensor(f"result{layer}", [1, 4, 4, 256], signature=[-1, 4, 4, 256])
    convolution, options = operation(B.CONV_2D, [last, kernel, bias], result), schema.Conv2DOptionsT()
    options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
    convolution.builtinOptionsType, convolution.builtinOptions = schema.BuiltinOptions.Conv2DOptions, options
    last = result
if order == "converter":
    operators.sort(key=lambda each: each[1] != B.DEQUANTIZE)
codes = []
for code, version in CODES.items():
    each = schema.OperatorCodeT()
    each.builtinCode = each.deprecatedBuiltinCode = code
    each.version = version
    codes.append(each)
graph, model = schema.SubGraphT(), schema.ModelT()
graph.tensors, graph.operators, graph.inputs, graph.outputs = tensors, [each for each, _ in operators], [first], [last]
model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, codes, [graph], buffers
builder = flatbuffers.Builder(1024)
builder.Finish(model.Pack(builder), b"TFL3")
open("model.tflite", "wb").write(bytes(builder.Output()))
PYTHON
cat >taken.py <<'PYTHON'
"""Anonymous memory that a process takes, MiB, after each batch of the given sizes."""
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def taken():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) / 1024


interpreter = Interpreter(model_path="model.tflite", num_threads=1)
images = interpreter.get_input_details()[0]
before = taken()
for size in map(int, sys.argv[1:]):
    interpreter.resize_tensor_input(images["index"], [size, 4, 4, 256])
    interpreter.allocate_tensors()
    interpreter.set_tensor(images["index"], np.ones((size, 4, 4, 256), images["dtype"]))
    interpreter.invoke()
    print(round(taken() - before), end=" ")
PYTHON
for kind in "float32 float32 converter" "float32 float16 converter" "uint8 float32 converter" \
  "uint8 float16 cast-first" "uint8 float16 converter"; do
  venv/bin/python model.py $kind
  for sizes in "1" "8" "1 8" "1 8 1" "8 1 8"; do
    taken=$(venv/bin/python taken.py $sizes 2>/dev/null)
    echo "$kind, batches of $sizes: $taken MiB"
    echo "$kind;$sizes;$taken" >>taken.txt
  done
done
venv/bin/python - <<'PYTHON'
weights = 12 * 9 * 256 * 256 * 4 / 2**20  # in float32
print(f"the weights: {weights:.0f} MiB")
for kind, sizes, taken in (line.split(";") for line in open("taken.txt")):
    last = int(taken.split()[-1])
    twice = kind == "uint8 float16 converter" and sizes.startswith("1 8")
    assert (1.8 if twice else 0.9) * weights < last < (2.5 if twice else 1.5) * weights, (kind, sizes, taken)
PYTHON
