#!/usr/bin/env bash
# A Keras Resizing layer, exported to ONNX by Keras itself (tf2onnx), is another operation there:
# - of one in ten sizes an image comes out a pixel smaller than in Keras, without a word: 198 pixels become 223, not 224;
# - of one in three more, a grey image (one channel) is refused at run time: 190 pixels. Both with every interpolation.
#   tf2onnx writes a scale in float32; ONNX Runtime and tf2onnx's own shapes round its product with the size down,
#   one in float32, the other in float64;
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


def sizes(channels, before):
    """The side that comes out where 224 is meant; None if the file is refused."""
    inputs = keras.Input((before, before, channels))
    model = keras.Model(inputs, keras.layers.Resizing(224, 224)(inputs))
    images = np.zeros((1, before, before, channels), np.float32)
    assert model(images).shape[1] == 224
    model.export("model.onnx", format="onnx", verbose=False)
    session = onnxruntime.InferenceSession("model.onnx")
    try:
        return session.run(None, {session.get_inputs()[0].name: images})[0].shape[1]
    except Exception as error:
        assert "cannot be reshaped" in str(error)
        return None


for channels in (1, 3):
    found = {before: sizes(channels, before) for before in range(188, 208)}
    for before, after in found.items():
        scale = np.float32(224 / before)
        smaller, differs = int(np.float32(before) * scale) != 224, int(float(scale) * before) != 224
        assert after == (223 if smaller else None if differs and channels == 1 else 224), (channels, before, after)
    wrong, refused = ([before for before in found if found[before] == side] for side in (223, None))
    print(f"{channels} channels, 20 sizes to 224: {wrong} become 223, {refused} are refused")
    assert wrong and bool(refused) == (channels == 1)
PYTHON
