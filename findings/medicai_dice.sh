#!/usr/bin/env bash
# medicai's Dice metrics are too low for probabilities and too high for false alarms, without a word:
# - With from_logits=False, for models that end in sigmoid or softmax, predictions are not made binary: neither
#   BinaryDiceMetric's `threshold` nor CategoricalDiceMetric's argmax is applied, of which their documentation speaks. So
#   a mask that is right in each pixel has less than 1, and less the fewer pixels the tumour has.
# - A slice whose true mask is empty never counts, also with ignore_empty=False: an image without tumour of which half is
#   marked as tumour leaves Dice at 1.
#
# A user expects: logits and their probabilities have one Dice, and ignore_empty=False counts false alarms.
# Versions: medicai 0.0.4, Keras 3.15.1, TensorFlow 2.21.0.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet medicai==0.0.4 tensorflow==2.21.0 keras==3.15.1
cd "$work"
TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python - 2>errors.txt <<'PYTHON' || { cat errors.txt >&2; exit 1; }
import numpy as np
from medicai.metrics import BinaryDiceMetric, CategoricalDiceMetric

# Two slices, of which the second has no tumour.
truth = np.zeros((2, 32, 32, 1), "float32")
truth[0, 8:16, 8:16] = 1
right = np.where(truth > 0, 0.9, 0.1).astype("float32")
alarm = right.copy()
alarm[1, :16] = 0.9


def logits(probabilities):
    return np.log(probabilities / (1 - probabilities))


def dice(metric, true, predicted):
    metric.update_state(true, predicted)
    return float(metric.result())


def reference(predicted):
    marked = predicted > 0.5
    return 2 * (marked * truth).sum() / (marked.sum() + truth.sum())


def two(probabilities):
    return np.concatenate([1 - probabilities, probabilities], axis=-1)


found = {
    "right, logits": dice(BinaryDiceMetric(from_logits=True, num_classes=1), truth, logits(right)),
    "right, probabilities": dice(BinaryDiceMetric(from_logits=False, num_classes=1), truth, right),
    "right, softmax, tumour": dice(
        CategoricalDiceMetric(from_logits=False, num_classes=2, target_class_ids=1), two(truth), two(right)
    ),
    "false alarm, ignore_empty=False": dice(
        BinaryDiceMetric(from_logits=True, num_classes=1, ignore_empty=False), truth, logits(alarm)
    ),
}
print(f"Dice by its definition: right {reference(right):.3f}, false alarm {reference(alarm):.3f}")
for name, value in found.items():
    print(f"medicai: {name} {value:.3f}")
np.testing.assert_allclose([reference(right), reference(alarm)], [1, 128 / 640])
np.testing.assert_allclose(list(found.values()), [1, 0.529, 0.529, 1], atol=0.001)
PYTHON
