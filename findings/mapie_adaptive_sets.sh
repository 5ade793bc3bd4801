#!/usr/bin/env bash
# Adaptive prediction sets (APS) as MAPIE makes them by default are not of the level that was asked for: at 90 % they hold
# the true class of 98.7 % of the images. Conformalizing draws lots whether the last class counts, and `predict_set` does
# not, unless it is told `include_last_label="randomized"`; then 90 % are right, and one set in thirteen is empty. RAPS is
# alike. The plain score (LAC) is right by default. So a coverage or mean size of "90 % sets" compares between two papers
# only if both say which of these they took.
#
# A reader expects: each score's sets cover about the level, 90 %, and differ in their sizes (the guess before the run).
# Versions: MAPIE 1.6.0, scikit-learn 1.9.1, numpy 2.4.6. Source: the run below (means over 20 splits of scikit-learn's
# digits):
#   lac, default: covered 90.3 %, classes a set 0.95, empty 5.5 %
#   aps, default: covered 98.7 %, classes a set 1.54, empty 0.0 %
#   aps, randomized: covered 90.1 %, classes a set 1.30, empty 7.7 %
#   raps, default: covered 97.7 %, classes a set 1.51, empty 0.0 %
#   raps, randomized: covered 90.5 %, classes a set 1.02, empty 3.6 %
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet mapie==1.6.0 scikit-learn==1.9.1 numpy==2.4.6
cd "$work"
venv/bin/python - <<'PYTHON'
import numpy as np
from mapie.classification import SplitConformalClassifier
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

images, labels = load_digits(return_X_y=True)
cases = (("lac", None), ("aps", None), ("aps", "randomized"), ("raps", None), ("raps", "randomized"))
rows = {case: [] for case in cases}
for seed in range(20):
    x, rest, y, others = train_test_split(images, labels, train_size=200, stratify=labels, random_state=seed)
    known, tested, right, truth = train_test_split(rest, others, train_size=0.5, stratify=others, random_state=seed)
    network = LogisticRegression(C=0.01, max_iter=1000).fit(x, y)
    for score, last in cases:
        conformal = SplitConformalClassifier(
            network, confidence_level=0.9, conformity_score=score, prefit=True, random_state=seed
        ).conformalize(known, right)
        settings = {} if last is None else {"conformity_score_params": {"include_last_label": last}}
        sets = conformal.predict_set(tested, **settings)[1][:, :, 0]
        covered, sizes = sets[np.arange(len(truth)), truth], sets.sum(axis=1)
        rows[score, last].append((covered.mean(), sizes.mean(), (sizes == 0).mean()))
found = {case: 100 * np.mean(values, axis=0) for case, values in rows.items()}
for (score, last), (covered, size, empty) in found.items():
    print(f"{score}, {last or 'default'}: covered {covered:.1f} %, classes a set {size / 100:.2f}, empty {empty:.1f} %")
for case in (("lac", None), ("aps", "randomized"), ("raps", "randomized")):
    assert abs(found[case][0] - 90) < 1.5, found[case]
for case in (("aps", None), ("raps", None)):
    assert found[case][0] > 96 and found[case][2] == 0, found[case]
assert found["aps", "randomized"][2] > 4
PYTHON
