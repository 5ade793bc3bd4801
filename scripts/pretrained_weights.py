"""Writes the weights of ``btkeras.models.ImprovedResNet34(weights="pretrained")``.

    python scripts/pretrained_weights.py RUN saved_models/brain_tumour_mri/1/pretrained_weights.h5

They are the run's, with its temperature merged into the head. Says how far they predict as the run did.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import keras
import numpy as np

from btkeras.evaluation.evaluate import load_best
from btkeras.files import atomic_file
from btkeras.models.build import build_model
from btkeras.models.head import logits_network, temperature_of
from btkeras.models.pretrained import PretrainedWeights, load_pretrained_weights, write_pretrained_weights
from btkeras.preprocessing.preprocessor import Preprocessor
from btkeras.runs import Run, open_run


def facts_of(run: Run, model: keras.Model, file: Path) -> PretrainedWeights:
    """What is known of a run's network besides its weights."""
    data, standardize = run.config().data, model.get_layer("standardize")
    (mean,), (variance,) = ({float(v) for v in np.ravel(values)} for values in (standardize.mean, standardize.variance))
    inputs = {name: getattr(data, name) for name in ("image_size", "channels", "harmonize")}
    return PretrainedWeights(file, model.name, run.classes(), **inputs, mean=mean, variance=variance)


def weights_of(model: keras.Model) -> dict[str, list[Any]]:
    """Weights by layer name; the head as ``btkeras.models`` names it, with the temperature."""
    temperature = temperature_of(model)
    *others, head = logits_network(model).layers
    weights = {layer.name: layer.get_weights() for layer in others}
    return weights | {"probabilities": [value / temperature for value in head.get_weights()]}


def compare(run: Run, known: PretrainedWeights) -> str:
    """How far the weights' probabilities are from those of the run, on its test subset."""
    with run.predictions_file.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    shape = (known.image_size, known.image_size, known.channels)
    network = build_model(
        known.network, input_shape=shape, classes=len(known.classes), mean=known.mean, variance=known.variance
    )
    load_pretrained_weights(network, known.file)
    files = [run.dataset().root / row["path"] for row in rows]
    images = np.stack(list(Preprocessor(*shape[1:], known.harmonize).files(files)))
    found = network.predict(images.astype(np.float32), verbose=0)
    expected = np.array([[float(row[name]) for name in known.classes] for row in rows])
    changed = int((found.argmax(axis=1) != expected.argmax(axis=1)).sum())
    largest = np.abs(found - expected).max()
    return f"{changed} of {len(rows)} test slices in another class, probabilities within {largest:.3f}"


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    run = open_run(arguments.run)
    model = load_best(run)
    with atomic_file(arguments.target) as temporary:
        known = facts_of(run, model, temporary)
        write_pretrained_weights(weights_of(model), known)
        compared = compare(run, known)
    print(f"{arguments.target}: {arguments.target.stat().st_size / 1e6:.1f} MB; {compared}")


if __name__ == "__main__":
    main()
