#!/usr/bin/env bash
# The calibration error of many pixels, by torchmetrics and by MONAI, is wrong without a word. Both count the pixels of
# a bin by adding ones in float32, and such a count stops at 2**24, 16.8 million: a brain of 256 voxels a side, or 256
# slices of 256 x 256 that update() collected. From there on the error grows with the number of pixels: of 42 million,
# probabilities of tumour whose error is 1.2 % get 2.2 %, and perfect ones get 0.2 % instead of less than 0.01 %. In
# torchmetrics, probabilities in float64 are right; MONAI makes float32 of them first.
#
# A reader expects: both give what the definition gives, and more pixels make the estimate better.
# Versions: torchmetrics 1.9.0, MONAI 1.6.1, torch 2.13.0 (CPU), numpy 2.4.6. Source: the run below; the cause in torch
# is https://github.com/pytorch/pytorch/issues/124783 (neither library is named there).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torchmetrics==1.9.0 monai==1.6.1 torch==2.13.0 numpy==2.4.6
cd "$work"
venv/bin/python - <<'PYTHON'
import numpy as np
import torch
from monai.metrics import CalibrationErrorMetric
from torchmetrics.classification import BinaryCalibrationError

BINS, SLICE = 15, 256 * 256
torch.set_num_threads(1)


def reference(probabilities, labels):
    """Expected calibration error by its definition, in float64 and whole numbers."""
    bins = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)
    sums = np.bincount(bins, probabilities.astype(np.float64), BINS) - np.bincount(bins, labels, BINS)
    return float(np.abs(sums).sum() / len(bins))


def by_torchmetrics(probabilities, labels):
    metric = BinaryCalibrationError(n_bins=BINS, norm="l1")
    for part in range(0, len(labels), 16 * SLICE):
        chosen = slice(part, part + 16 * SLICE)
        metric.update(torch.from_numpy(probabilities[chosen]), torch.from_numpy(labels[chosen]))
    return float(metric.compute())


def by_monai(probabilities, labels):
    metric = CalibrationErrorMetric(num_bins=BINS, calibration_reduction="expected")
    metric(torch.from_numpy(probabilities)[None, None], torch.from_numpy(labels)[None, None])
    return float(metric.aggregate())


found = {}
for name, share in (("perfect", 1), ("too high", 0.5)):
    for slices in (32, 384, 640):
        generator = np.random.default_rng(0)
        probabilities = generator.beta(0.5, 20, slices * SLICE).astype(np.float32)
        labels = (generator.random(slices * SLICE) < share * probabilities).astype(np.int32)
        row = reference(probabilities, labels), by_torchmetrics(probabilities, labels), by_monai(probabilities, labels)
        found[name, slices] = row
        print(
            "{}, {:.1f} million pixels: by the definition {:.4f}, torchmetrics {:.4f}, MONAI {:.4f}".format(
                name, slices * SLICE / 1e6, *row
            ),
            flush=True,
        )
double = by_torchmetrics(probabilities.astype(np.float64), labels)
print(f"the last in float64: torchmetrics {double:.4f}, MONAI {by_monai(probabilities.astype(np.float64), labels):.4f}")
for name in ("perfect", "too high"):
    np.testing.assert_allclose(found[name, 32], found[name, 32][0], atol=2e-4)
assert found["perfect", 640][0] < 1e-4 and min(found["perfect", 640][1:]) > 0.0015
assert min(found["too high", 640][1:]) > 1.5 * found["too high", 640][0]
assert abs(double - found["too high", 640][0]) < 1e-5
PYTHON
