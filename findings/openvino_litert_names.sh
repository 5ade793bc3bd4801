#!/usr/bin/env bash
# OpenVINO takes two tensors of a LiteRT file for one if they have the same name, and computes with the first one's
# values, without a word: 0 + 1 + 10 becomes 2. Where their shapes differ it refuses the file. LiteRT goes by numbers; by
# its schema a name is for debugging and for the way back into TensorFlow. Converters give each tensor another name; a tool
# that changes a file (splits a kernel, adds a bias) must, too.
#
# A reader expects: names do not count, since operations refer to tensors by number (the guess before the run).
# Versions: openvino 2026.4.1, ai-edge-litert 2.3.0, flatbuffers 25.12.19, numpy 2.4.6. Source: the run below.
#   constants one and ten: LiteRT [11.0, 11.0, 11.0], OpenVINO [11.0, 11.0, 11.0]
#   constants bias and bias: LiteRT [11.0, 11.0, 11.0], OpenVINO [2.0, 2.0, 2.0]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet openvino==2026.4.1 ai-edge-litert==2.3.0 flatbuffers==25.12.19 numpy==2.4.6
cd "$work"
venv/bin/python - 2>stderr.txt <<'PYTHON' || { cat stderr.txt; exit 1; }
import flatbuffers
import numpy as np
import openvino
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter


def network(names):
    """A LiteRT model that adds 1 and 10 to three numbers, two constants with these names."""
    model, graph, code = schema.ModelT(), schema.SubGraphT(), schema.OperatorCodeT()
    code.builtinCode = schema.BuiltinOperator.ADD
    code.version = 1
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers, graph.tensors, graph.operators = [schema.BufferT()], [], []
    for name, value in (("input", None), (names[0], 1), ("sum", None), (names[1], 10), ("output", None)):
        tensor, tensor.buffer = schema.TensorT(), 0
        tensor.name, tensor.shape, tensor.type = name, [1, 3], schema.TensorType.FLOAT32
        if value is not None:
            data, tensor.buffer = schema.BufferT(), len(model.buffers)
            data.data = np.frombuffer(np.full((1, 3), value, np.float32).tobytes(), np.uint8)
            model.buffers.append(data)
        graph.tensors.append(tensor)
    for inputs, output in (([0, 1], 2), ([2, 3], 4)):
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = 0, inputs, [output]
        operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.AddOptions, schema.AddOptionsT()
        graph.operators.append(operator)
    graph.inputs, graph.outputs = [0], [4]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def by_litert(file, images):
    interpreter = Interpreter(file)
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, images)
    interpreter.invoke()
    return interpreter.get_tensor(4)


def by_openvino(file, images):
    return openvino.Core().compile_model(file, "CPU")([images])[0]


zeros, found = np.zeros((1, 3), np.float32), {}
for names in (("one", "ten"), ("bias", "bias")):
    with open("model.tflite", "wb") as out:
        out.write(network(names))
    found[names] = [run("model.tflite", zeros)[0].tolist() for run in (by_litert, by_openvino)]
    print("constants {} and {}: LiteRT {}, OpenVINO {}".format(*names, *found[names]))
assert found["one", "ten"] == [[11] * 3] * 2
assert found["bias", "bias"] == [[11] * 3, [2] * 3]
PYTHON
