#!/usr/bin/env bash
# Keras' BackupAndRestore with save_freq=N (batches) forgets the epoch when a training is interrupted twice in one
# epoch: the third start begins at epoch 0 and trains all epochs again, without a word. The callback restores the epoch
# into the model, but counts its own from 0 until an epoch ends; a backup within the first epoch after a restart so
# says "epoch 0". Ten batches an epoch, six epochs: 102 steps instead of 60. Schedules by epoch (LearningRateScheduler)
# begin anew, while the optimizer's own step counter goes on. Interrupted once, or in two epochs, it repeats the
# batches of each such epoch (66 and 72 steps): the batch, which the backup holds too, is never read. save_freq="epoch"
# is right: 60 steps.
#
# A user expects: "the training state (which includes the Model weights and epoch number) is restored to the most
# recently saved state", however often a job is preempted; backups that are more frequent lose less.
# Versions: keras 3.15.1, tensorflow-cpu 2.21.0, numpy 2.4.6. Source: the run below; `_current_epoch` in
# keras/src/callbacks/backup_and_restore.py. No public issue found.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet keras==3.15.1 tensorflow-cpu==2.21.0 numpy==2.4.6
cd "$work"
TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python - 2>errors.txt <<'PYTHON' || { cat errors.txt >&2; exit 1; }
import keras
import numpy as np


class Preempted(Exception):
    pass


class Preemption(keras.callbacks.Callback):
    """Ends a training after a batch of an epoch, and counts the batches of each epoch."""

    def __init__(self, where):
        super().__init__()
        self.where = where
        self.batches = {}

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self.batches[self.epoch] = self.batches.get(self.epoch, 0) + 1
        if (self.epoch, batch) == self.where:
            raise Preempted


def training(folder, where, save_freq):
    """One process: a new network, a new callback, the same folder."""
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    counter = Preemption(where)
    backup = keras.callbacks.BackupAndRestore(folder, save_freq=save_freq)
    try:
        model.fit(np.ones((80, 1)), np.zeros(80), batch_size=8, epochs=6, verbose=0, callbacks=[backup, counter])
    except Preempted:
        pass
    return list(counter.batches), int(model.optimizer.iterations)


middle = (3, 5)
found = {}
for name, stops, save_freq in (
    ("every 2 batches, interrupted once", [middle], 2),
    ("every 2 batches, interrupted twice in epoch 3", [middle, middle], 2),
    ("every 2 batches, interrupted in epochs 3 and 4", [middle, (4, 5)], 2),
    ("every epoch, interrupted twice in epoch 3", [middle, middle], "epoch"),
):
    for stop in stops:
        training(name, stop, save_freq)
    found[name] = training(name, None, save_freq)
    print(f"{name}: the last start trains epochs {found[name][0]}, {found[name][1]} steps in all")
once, twice, elsewhere, epochs = found.values()
assert once == ([3, 4, 5], 66), once
assert twice[0] == [0, 1, 2, 3, 4, 5] and twice[1] == 102, twice
assert elsewhere == ([4, 5], 72), elsewhere
assert epochs == ([3, 4, 5], 60), epochs
PYTHON
