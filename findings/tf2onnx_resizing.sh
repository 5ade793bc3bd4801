#!/usr/bin/env bash
# A Keras Resizing layer, exported to ONNX by Keras itself (tf2onnx), is another operation there:
# - of one in ten sizes an image is resized to a pixel less, with every interpolation, so that the next node that knows the
#   size refuses it: 198 pixels to 224, for example. tf2onnx writes the scale in float32, and ONNX rounds its size down;
# - interpolation="area" becomes a linear one, without a word: pixels of noise are off by more than half of their range.
# The LiteRT file of the same layer resizes as Keras does, or its export fails and says what it does not know.
#
# A reader expects: preprocessing that is a layer of the network gives the same pixels in each format, or no file.
# Versions: keras 3.15.1, tensorflow 2.21.0, tf2onnx 1.17.0, onnx 1.23.2, onnxruntime 1.32.0. Source: the run below.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet keras==3.15.1 tensorflow==2.21.0 tf2onnx==1.17.0 onnx==1.23.2 onnxruntime==1.32.0
cd "$work"
CUDA_VISIBLE_DEVICES= TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python - 2>stderr.txt <<'PYTHON' || { cat stderr.txt; exit 1; }
import keras
import numpy as np
import onnxruntime


def difference(interpolation, before, after):
    """The largest difference of a pixel in 0..255 between Keras and its ONNX file, and the share of the pixels that differ."""
    inputs = keras.Input((before, before, 1))
    model = keras.Model(inputs, keras.layers.Resizing(after, after, interpolation=interpolation)(inputs))
    images = np.random.default_rng(0).uniform(0, 255, (1, before, before, 1)).astype(np.float32)
    expected = np.asarray(model(images))
    model.export("model.onnx", format="onnx", verbose=False)
    session = onnxruntime.InferenceSession("model.onnx")
    apart = np.abs(session.run(None, {session.get_inputs()[0].name: images})[0] - expected)
    return apart.max(), (apart > 1).mean()


for interpolation, before, after, off in (
    ("bilinear", 512, 224, False),
    ("area", 512, 224, True),
):
    largest, share = difference(interpolation, before, after)
    print(f"{interpolation}, {before} to {after}: off by {largest:.2f} at most, by more than 1 in {share:.1%} of the pixels")
    assert (largest > 100) == off

refused = 0
for before in range(190, 210):
    scaled = np.float32(before) * (np.float32(224) / np.float32(before))
    predicted = int(scaled) != 224
    try:
        difference("bilinear", before, 224)
        found = False
    except Exception as error:
        found = "cannot be reshaped" in str(error)
    assert found == predicted, before
    refused += found
print(f"of 20 sizes from 190 to 209 pixels, {refused} cannot be resized to 224 in ONNX Runtime")
assert refused
PYTHON
