#!/usr/bin/env bash
# imbalanced-learn's SMOTE makes noise of images in uint8, without a word: it takes the difference of an image and its
# neighbour in the images' own type, so that 100 - 120 is 236, and each pixel that is darker in the neighbour comes out
# too bright or wraps once more. Where the same call in float32 makes images between two tumours, the new ones in uint8
# are 31 grey levels off on the average, and a classifier that is trained on them has a balanced accuracy of 0.87 for
# 1.00. BorderlineSMOTE and ADASYN do the same. The originals come back unchanged, and type and range look right.
#
# A user expects: SMOTE of images of 0 to 255 gives what it gives of the same numbers in float32, rounded (in int16 it
# does). What helps: images.astype("float32") before, or scaling to 0 to 1.
# Versions: imbalanced-learn 0.14.2, scikit-learn 1.9.1, numpy 2.4.6. Source: the run below; `_generate_samples` in
# imblearn/over_sampling/_smote/base.py. https://github.com/scikit-learn-contrib/imbalanced-learn/pull/450 brought the
# cast back to the images' type. No public issue found for unsigned types.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet imbalanced-learn==0.14.2 scikit-learn==1.9.1 numpy==2.4.6
cd "$work"
venv/bin/python -W error - <<'PYTHON'
import numpy as np
from imblearn.over_sampling import ADASYN, SMOTE, BorderlineSMOTE
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

random = np.random.default_rng(0)
rows, columns = np.mgrid[:16, :16]


def images(count, tumour):
    """Grey slices of 16 x 16 pixels: tissue of 100 with noise, and a brighter blob at a random place if tumour."""
    made = random.normal(100, 8, (count, 16, 16))
    if tumour:
        place = random.uniform(5, 10, (2, count, 1, 1))
        made += 14 * np.exp(-((rows - place[0]) ** 2 + (columns - place[1]) ** 2) / 12)
    return made.round().clip(0, 255).astype(np.uint8).reshape(count, -1)


x = np.concatenate([images(300, False), images(40, True)])
y = np.repeat([0, 1], [300, 40])
test = np.concatenate([images(500, False), images(500, True)])
truth = np.repeat([0, 1], 500)
samplers = {sampler.__name__: sampler for sampler in (SMOTE, BorderlineSMOTE, ADASYN)}
for name, sampler in samplers.items():
    new = {}
    for dtype in ("uint8", "int16", "float32"):
        balanced, labels = sampler(random_state=0).fit_resample(x.astype(dtype), y)
        assert balanced.dtype == dtype and np.array_equal(balanced[: len(x)], x) and (labels[len(x) :] == 1).all()
        new[dtype] = balanced[len(x) :].astype(float)
    off = {dtype: np.abs(new[dtype] - new["float32"]).mean() for dtype in ("uint8", "int16")}
    spread = {dtype: np.abs(np.diff(made.reshape(-1, 16, 16), axis=2)).mean() for dtype, made in new.items()}
    print(
        f"{name}, new images: uint8 off by {off['uint8']:.1f} grey levels, int16 by {off['int16']:.1f}; "
        f"between pixels side by side: uint8 {spread['uint8']:.0f}, float32 {spread['float32']:.0f}"
    )
    assert off["uint8"] > 20 and off["int16"] < 1, off
    assert spread["uint8"] > 4 * spread["float32"], spread
score = {}
for dtype in ("uint8", "float32"):
    balanced, labels = SMOTE(random_state=0).fit_resample(x.astype(dtype), y)
    model = LogisticRegression(max_iter=5000).fit(balanced.astype(float) / 255, labels)
    score[dtype] = balanced_accuracy_score(truth, model.predict(test / 255))
    print(f"classifier trained on SMOTE of {dtype}: balanced accuracy {score[dtype]:.3f}")
assert score["uint8"] < 0.92 < 0.98 < score["float32"], score
PYTHON
