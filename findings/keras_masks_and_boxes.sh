#!/usr/bin/env bash
# Three of Keras' augmentation layers give masks or boxes that do not fit the image beside them, without a word:
#   RandomElasticTransform deforms the mask by another random field than the image, since both draw from one generator;
#   RandomRotation takes boxes of every bounding_box_format for xyxy;
#   RandomShear shears boxes in coordinates relative to each side, so in an image that is not square by another angle.
# RandomFlip, RandomZoom and RandomTranslation, measured by the same means, fit within a pixel.
#
# A user expects: a layer that is given {"images", "segmentation_masks", "bounding_boxes"} moves all three alike.
# Versions: Keras 3.15.1, TensorFlow 2.21.0.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet tensorflow==2.21.0 keras==3.15.1
cd "$work"
TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python - 2>errors.txt <<'PYTHON' || { cat errors.txt >&2; exit 1; }
import keras
import numpy as np
from keras import layers

HEIGHT, WIDTH = 96, 128
LEFT, TOP, RIGHT, BOTTOM = 50, 36, 74, 58
BOX = {"xyxy": [LEFT, TOP, RIGHT, BOTTOM], "xywh": [LEFT, TOP, RIGHT - LEFT, BOTTOM - TOP]}
image = np.zeros((1, HEIGHT, WIDTH, 1), "float32")
image[:, TOP:BOTTOM, LEFT:RIGHT] = 255


def shown_and_given(layer):
    """The box of what is white in the augmented image, and the augmented box, both xyxy."""
    given = np.float32([[BOX[layer.bounding_box_format]]])
    boxes = {"boxes": given, "labels": np.zeros((1, 1), "float32")}
    out = layer({"images": image, "bounding_boxes": boxes}, training=True)
    rows, columns = np.nonzero(np.asarray(out["images"])[0, ..., 0] > 127)
    x, y, a, b = np.asarray(out["bounding_boxes"]["boxes"])[0, 0]
    found = [x, y, a, b] if layer.bounding_box_format == "xyxy" else [x, y, x + a, y + b]
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]), np.array(found)


def distance(name, layer):
    shown, given = shown_and_given(layer)
    print(f"{name}: white in {shown.tolist()}, box {np.round(given).astype(int).tolist()}")
    return np.abs(shown - given).max()


print("Keras", keras.__version__)
same = {"fill_mode": "constant", "seed": 1}
for name, layer, fits in (
    ("flip, xywh", layers.RandomFlip("horizontal", seed=1, bounding_box_format="xywh"), True),
    ("zoom, xywh", layers.RandomZoom((-0.2, -0.2), bounding_box_format="xywh", **same), True),
    ("translation, xywh", layers.RandomTranslation(0.1, 0.1, bounding_box_format="xywh", **same), True),
    ("rotation, xyxy", layers.RandomRotation((0.08, 0.08), bounding_box_format="xyxy", **same), True),
    ("rotation, xywh", layers.RandomRotation((0.08, 0.08), bounding_box_format="xywh", **same), False),
    ("shear of x, xyxy", layers.RandomShear((0.4, 0.4), 0.0, bounding_box_format="xyxy", **same), False),
):
    far = distance(name, layer)
    assert (far < 1.5) == fits, (name, far)

for name, layer in (
    ("rotation", layers.RandomRotation((0.08, 0.08), **same)),
    ("elastic", layers.RandomElasticTransform(factor=1.0, scale=(1.0, 1.0), **same)),
):
    out = layer({"images": image, "segmentation_masks": image / 255}, training=True)
    white, mask = (np.asarray(out[key])[0, ..., 0] for key in ("images", "segmentation_masks"))
    differ, size = int(((white > 127) != (mask > 0.5)).sum()), int((white > 127).sum())
    print(f"{name}: {size} white pixels, of which the mask differs in {differ}")
    assert (differ < 20) == (name == "rotation"), (name, differ)
PYTHON
