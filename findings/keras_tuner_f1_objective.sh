#!/usr/bin/env bash
# KerasTuner looks for the worst network if it is told objective="val_f1_score". It infers the direction from the name,
# and takes each metric of Keras for one to minimize that its list of a dozen names does not hold: F1Score, R2Score,
# BinaryIoU, CosineSimilarity, PearsonCorrelation and ConcordanceCorrelation are missing. Nothing warns. The best
# hyperparameters are those of the lowest F1, the best model is from the epoch of its lowest F1, and Hyperband drops
# the good networks early. In search's printed lines "Best val_f1_score So Far" falls. Accuracy, AUC, precision and
# recall are in the list; a name that is not Keras' own ("val_fbeta_score", "val_f1") raises an error that says what to
# do.
#
# A user expects: the direction is right or refused, as the documentation has it: "If a string, the direction of the
# optimization (min or max) will be inferred". What helps: keras_tuner.Objective("val_f1_score", "max").
# Versions: keras-tuner 1.4.8, keras 3.15.1, tensorflow-cpu 2.21.0, tensorboard 2.21.0, numpy 2.4.6. Source: the run
# below; infer_metric_direction in keras_tuner/src/engine/metrics_tracking.py. No public issue found for Keras' own
# metrics.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet keras-tuner==1.4.8 keras==3.15.1 tensorflow-cpu==2.21.0 \
  tensorboard==2.21.0 numpy==2.4.6
cd "$work"
TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python - 2>errors.txt <<'PYTHON' || { cat errors.txt >&2; exit 1; }
import keras
import keras_tuner
import numpy as np

rng = np.random.default_rng(0)
labels = rng.integers(4, size=600)
images = (rng.normal(size=(4, 8, 8, 1))[labels] + rng.normal(size=(600, 8, 8, 1))).astype(np.float32)
truth = keras.utils.to_categorical(labels, 4)
train, test = (images[:400], truth[:400]), (images[400:], truth[400:])


def network(hp):
    keras.utils.set_random_seed(0)
    rate = hp.Choice("learning_rate", [0.01, 0.001, 0.00001])
    model = keras.Sequential([keras.layers.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(4, "softmax")])
    model.compile(keras.optimizers.Adam(rate), "categorical_crossentropy", metrics=[keras.metrics.F1Score("macro")])
    return model


found = {}
for name, objective in {
    'objective="val_f1_score"': "val_f1_score",
    'Objective("val_f1_score", "max")': keras_tuner.Objective("val_f1_score", "max"),
}.items():
    tuner = keras_tuner.GridSearch(network, objective, directory=f"tuner{len(found)}")
    tuner.search(*train, validation_data=test, epochs=10, verbose=0)
    score = tuner.get_best_models()[0].evaluate(*test, verbose=0, return_dict=True)["f1_score"]
    best = tuner.get_best_hyperparameters()[0].get("learning_rate")
    found[name] = best, score
    print(f"{name}: {tuner.oracle.objective.direction}, best learning rate {best}, F1 of the best model {score:.2f}")
metrics = ["f1_score", "r2_score", "binary_io_u", "cosine_similarity", "pearson_correlation"]
directions = {
    name: keras_tuner.engine.metrics_tracking.infer_metric_direction("val_" + name)
    for name in [*metrics, "accuracy", "auc", "recall"]
}
print(", ".join(f"{name} {direction}" for name, direction in directions.items()))
worst, right = found.values()
assert worst[0] == 0.00001 and worst[1] < 0.4, worst
assert right[0] == 0.01 and right[1] > 0.8, right
assert all(directions[name] == ("min" if name in metrics else "max") for name in directions), directions
PYTHON
