#!/usr/bin/env bash
# torchcp's ClusteredPredictor, as it is called by default, returns all classes for every image: of four classes at any
# number of calibration images that was tried, of ten and of a hundred if there are many (500 of each). It takes
# n * K / (75 + K) / 2 clusters (n images of the smallest class, K classes). If these are as many as the classes, or if
# the share of images that it clusters has fewer than nine of a class, classes go to the "null cluster", whose threshold
# is infinity: the line with the threshold of all classes together is commented out. With num_clusters and
# ratio_clustering given, it works.
# And the score Margin(score_type="identity") writes -1 over the true class in the caller's own array: a network's
# probabilities that were calibrated with it have an accuracy of 0 afterwards.
#
# A reader expects: each predictor covers about 90 %, with sizes that are alike; more images make the sets better; what
# is not clustered has the ordinary threshold. Calibrating changes no input.
# Versions: torchcp 1.2.1, torch 2.13.0 (CPU), scikit-learn 1.9.1, numpy 2.4.6. Source: the run below; Ding et al. 2023,
# arXiv 2306.09335. torchcp's parts for graphs and language models, and a training loss whose package must be compiled,
# are left out here; the predictors do not use them.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 scikit-learn==1.9.1 numpy==2.4.6 tqdm==4.70.1
"$work/venv/bin/pip" install --quiet --no-deps torchcp==1.2.1
cd "$work"
venv/bin/python - 2>errors.txt <<'PYTHON' || { cat errors.txt >&2; exit 1; }
import sys
import types

import numpy as np
import torch

sys.modules["torchcp.graph"], sys.modules["torchcp.llm"] = types.ModuleType("graph"), types.ModuleType("llm")
sys.modules["torchsort"] = types.SimpleNamespace(soft_rank=None, soft_sort=None)
from torchcp.classification.predictor import (  # noqa: E402
    ClassConditionalPredictor,
    ClusteredPredictor,
    SplitPredictor,
)
from torchcp.classification.score import LAC, Margin  # noqa: E402

ALPHA, TEST = 0.1, 20000
torch.set_num_threads(1)
torch.manual_seed(0)
generator = np.random.default_rng(0)


def draw(labels, classes):
    """Logits of a network for images of these classes; each fourth class is harder than the others."""
    logits = generator.normal(size=(len(labels), classes))
    logits[np.arange(len(labels)), labels] += np.where(labels % 4 == 1, 1.5, 3)
    return torch.from_numpy(logits).float(), torch.from_numpy(labels)


def by_hand(logits, labels, test):
    """Split conformal sets with the threshold of all classes together."""
    scores = 1 - torch.softmax(logits, 1)[torch.arange(len(labels)), labels]
    rank = int(np.ceil((len(labels) + 1) * (1 - ALPHA)))
    return 1 - torch.softmax(test, 1) <= scores.sort().values[rank - 1]


def measure(sets, labels):
    return float(sets[torch.arange(TEST), labels].float().mean()), float(sets.sum(1).float().mean())


found = {}
for classes, images in ((4, 50), (4, 150), (4, 500), (4, 5000), (10, 120), (10, 500), (100, 100), (100, 500)):
    test, truth = draw(generator.integers(0, classes, TEST), classes)
    logits, labels = draw(np.repeat(np.arange(classes), images), classes)
    predictors = {
        "split": SplitPredictor(LAC()),
        "by class": ClassConditionalPredictor(LAC()),
        "clustered": ClusteredPredictor(LAC()),
        "clustered, two given": ClusteredPredictor(LAC(), num_clusters=2, ratio_clustering=0.3),
    }
    sets = {"by hand": by_hand(logits, labels, test)}
    for name, predictor in predictors.items():
        predictor.calculate_threshold(logits, labels, ALPHA)
        sets[name] = predictor.predict_with_logits(test).bool()
    found[classes, images] = {name: measure(made, truth) for name, made in sets.items()}
    print(f"{classes} classes, {images} calibration images of each, coverage and classes a set:", end=" ")
    print(", ".join(f"{name} {100 * row[0]:.1f} % {row[1]:.2f}" for name, row in found[classes, images].items()))

logits, labels = draw(np.repeat(np.arange(4), 100), 4)
probabilities = torch.softmax(logits, 1)
before = float((probabilities.argmax(1) == labels).float().mean())
SplitPredictor(Margin(score_type="identity")).calculate_threshold(probabilities, labels, ALPHA)
after = float((probabilities.argmax(1) == labels).float().mean())
print(f"accuracy of the calibration images before Margin {before:.2f}, after {after:.2f}; a row:", probabilities[0])

for (classes, images), row in found.items():
    assert row["by hand"] == row["split"]
    assert 0.8 < row["by class"][0] < 0.97
    if classes == 4 or images == 500:
        assert row["clustered"] == (1, classes), (classes, images, row)
for case in ((4, 500), (4, 5000), (10, 500), (100, 500)):
    assert 0.85 < found[case]["clustered, two given"][0] < 0.95
assert 0.85 < found[100, 100]["clustered"][0] < 0.95
assert before > 0.7 and after == 0 and (probabilities[torch.arange(400), labels] == -1).all()
PYTHON
