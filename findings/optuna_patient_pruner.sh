#!/usr/bin/env bash
# Optuna's PatientPruner, made to end a training "if the objective doesn't improve for patience consecutive steps",
# does not end those that it is there for, without a word:
# - one whose accuracy stays where it is (a collapsed network with 0.25 in each epoch) runs to its end, since only
#   getting worse counts. So does one that stays at its best value;
# - min_delta has the reverse meaning of Keras' and PyTorch Ignite's EarlyStopping, whose convention its authors
#   followed: it is what the objective may lose, not what it must gain. With min_delta=0.01, one that loses 0.001 an
#   epoch runs on for more than ten epochs;
# - one whose loss became NaN runs to its end; NumPy warns. MedianPruner alone ends it at once, but not inside of a
#   PatientPruner.
#
# A user expects: with wrapped_pruner=None it "is equivalent to early-stopping", and a wrapper does not hide NaN.
# Versions: optuna 5.0.0, numpy 2.4.6. Source: the run below; https://github.com/optuna/optuna/issues/3835 (min_delta;
# closed as stale) and https://github.com/optuna/optuna/pull/2636 (the convention). No public issue found for NaN.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet optuna==5.0.0 numpy==2.4.6
cd "$work"
venv/bin/python - 2>errors.txt <<'PYTHON' || { cat errors.txt >&2; exit 1; }
import math

import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)
EPOCHS = 40


def epochs(values, pruner):
    """The number of epochs after which a pruner ends a training with these accuracies, after five ordinary ones."""
    study = optuna.create_study(direction="maximize", pruner=pruner)
    for number in range(5):
        trial = study.ask()
        for epoch in range(EPOCHS):
            trial.report(0.5 + 0.01 * number + 0.01 * epoch, epoch)
        study.tell(trial, 0.9)
    trial = study.ask()
    for epoch, value in enumerate(values):
        trial.report(value, epoch)
        if trial.should_prune():
            return epoch + 1
    return EPOCHS


def keras_rule(values, patience, min_delta):
    """EarlyStopping of Keras."""
    best, wait = -math.inf, 0
    for epoch, value in enumerate(values):
        wait += 1
        if value > best + min_delta:
            best, wait = value, 0
        if wait >= patience:
            return epoch + 1
    return EPOCHS


trainings = {
    "0.25 in each epoch": [0.25] * EPOCHS,
    "0.9 from epoch 3 on": [0.5, 0.7] + [0.9] * (EPOCHS - 2),
    "loses 0.001 an epoch": [0.9 - 0.001 * epoch for epoch in range(EPOCHS)],
    "NaN from epoch 3 on": [0.5, 0.7] + [math.nan] * (EPOCHS - 2),
}
found = {}
for name, values in trainings.items():
    found[name] = {
        "PatientPruner": epochs(values, optuna.pruners.PatientPruner(None, patience=3)),
        "min_delta=0.01": epochs(values, optuna.pruners.PatientPruner(None, patience=3, min_delta=0.01)),
        "around MedianPruner": epochs(values, optuna.pruners.PatientPruner(optuna.pruners.MedianPruner(), patience=3)),
        "MedianPruner": epochs(values, optuna.pruners.MedianPruner()),
        "Keras' rule": keras_rule(values, 3, 0),
        "Keras' rule, min_delta=0.01": keras_rule(values, 3, 0.01),
    }
    print(f"{name}, epochs: " + ", ".join(f"{pruner} {count}" for pruner, count in found[name].items()))
for name in ("0.25 in each epoch", "0.9 from epoch 3 on", "NaN from epoch 3 on"):
    assert found[name]["PatientPruner"] == found[name]["min_delta=0.01"] == EPOCHS, found[name]
    assert found[name]["Keras' rule"] <= 6, found[name]
falling = found["loses 0.001 an epoch"]
assert falling["PatientPruner"] == 5 and falling["min_delta=0.01"] > 14, falling
assert falling["Keras' rule, min_delta=0.01"] == 4, falling
nan = found["NaN from epoch 3 on"]
assert nan["around MedianPruner"] == EPOCHS and nan["MedianPruner"] < 40, nan
PYTHON
