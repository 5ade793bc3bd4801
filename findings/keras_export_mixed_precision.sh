#!/usr/bin/env bash
# Keras 3 exports a network of a mixed precision policy without a word into files that their own runtimes refuse:
# with mixed_bfloat16 ONNX Runtime cannot load the ONNX file (Conv of bfloat16, which its operator set does not have), and
# with either policy the LiteRT file needs TensorFlow's operations (FlexConv2D), which the LiteRT package does not have.
# ONNX of mixed_float16, and everything of float32, runs.
#
# A reader expects: a network trained in mixed precision, as Keras recommends, exports to a file that predicts, or the
# export fails. What helps: set the policy to float32, build the network anew, take the weights over, export that.
# Versions: keras 3.15.1, tensorflow 2.21.0, tf2onnx 1.17.0, onnx 1.23.2, onnxruntime 1.32.0, ai-edge-litert 2.3.0.
# Source: the run below.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet keras==3.15.1 tensorflow==2.21.0 tf2onnx==1.17.0 onnx==1.23.2 \
    onnxruntime==1.32.0 ai-edge-litert==2.3.0
cd "$work"
CUDA_VISIBLE_DEVICES= TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python - 2>stderr.txt <<'PYTHON' || { cat stderr.txt; exit 1; }
import keras
import numpy as np
import onnxruntime
from ai_edge_litert.interpreter import Interpreter

images = np.random.default_rng(0).normal(size=(2, 32, 32, 1)).astype(np.float32)


def network():
    inputs = keras.Input((32, 32, 1))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3, activation="relu")(inputs))
    # float32, as Keras' guide to mixed precision has it.
    return keras.Model(inputs, keras.layers.Dense(4, activation="softmax", dtype="float32")(x))


def onnx(file):
    session = onnxruntime.InferenceSession(file)
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def litert(file):
    interpreter = Interpreter(file)
    place = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(place, images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(place, images)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


refused = {
    ("mixed_bfloat16", "onnx"): "tensor(bfloat16)",
    ("mixed_bfloat16", "litert"): "FlexConv2D",
    ("mixed_float16", "litert"): "FlexConv2D",
}
for policy in ("float32", "mixed_float16", "mixed_bfloat16"):
    keras.mixed_precision.set_dtype_policy(policy)
    model = network()
    expected = np.asarray(model(images))
    for kind, runs, file in (("onnx", onnx, f"{policy}.onnx"), ("litert", litert, f"{policy}.tflite")):
        model.export(file, format=kind, verbose=False)
        try:
            difference = np.abs(runs(file) - expected).max()
        except Exception as error:
            reason = str(error).splitlines()[0]
            print(f"{policy}, {kind}: exported; its runtime refuses it: {reason[:110]} ... {reason[-60:]}")
            assert refused.get((policy, kind), "?") in str(error), error
        else:
            print(f"{policy}, {kind}: exported; probabilities within {difference:.0e}")
            assert (policy, kind) not in refused and difference < 1e-3
PYTHON
