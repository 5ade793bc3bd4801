"""The paper's figures as fractions; ``published.yaml`` has them as its tables print them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from btkeras.metrics import METRICS
from btkeras.splitting.splits import SUBSETS

_PRINTED: Mapping[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
# The paper's own model, and the one it is built on.
IMPROVED, BASELINE = "improved_resnet34", "resnet34"
AVERAGE = "average"
CLASS_METRICS = METRICS[1:]
PAPER: str = _PRINTED["paper"]
FAULTS: Sequence[str] = _PRINTED["faults"]
PARAMETERS: Mapping[str, float] = _PRINTED["parameters"]
# What each model of the ablation has of A (Inception-v2 downsampling), B (multi-scale stem) and C (attention). Not
# read from the models, which cannot be imported without Keras; a test compares the two.
MODULES = {"resnet34_inception": "A", "resnet34_multiscale": "B", "resnet34_se": "C", IMPROVED: "ABC", BASELINE: ""}


def _fractions(names: Sequence[str], percents: Sequence[float]) -> dict[str, Any]:
    return {name: round(percent / 100, 4) for name, percent in zip(names, percents, strict=True)}


# Table 1: images by class and subset.
IMAGES: Mapping[str, Mapping[str, int]] = {
    label: dict(zip(SUBSETS, images, strict=True)) for label, images in _PRINTED["table_1"].items()
}


def compares_with(classes: Collection[str]) -> bool:
    """Whether a dataset has no class that the paper's has not: else figures of both say nothing of each other."""
    return set(classes) <= set(IMAGES)


# Table 3: by model and class.
PER_CLASS: Mapping[str, Mapping[str, dict[str, float]]] = {
    model: dict(zip((*IMAGES, AVERAGE), (_fractions(CLASS_METRICS, row) for row in rows), strict=True))
    for model, rows in _PRINTED["table_3"].items()
}
# Precisions of table 3 that contradict its other cells: what those ask for, by model and class.
MISPRINTS: Mapping[str, Mapping[str, float]] = {
    model: {label: round(percent / 100, 4) for label, percent in row.items()}
    for model, row in _PRINTED["misprints"].items()
}
# Table 2, which has the accuracy, with the averages of table 3.
ABLATION = {
    model: {"accuracy": round(accuracy / 100, 4), **PER_CLASS[model][AVERAGE]}
    for model, accuracy in _PRINTED["table_2"].items()
}
# Table 4: the folds and their average; table 5: other networks; table 6: other methods.
FOLDS = tuple(_fractions(METRICS, row) for row in _PRINTED["table_4"])
NETWORKS = {model: _fractions(METRICS, row) for model, row in _PRINTED["table_5"].items()} | {IMPROVED: FOLDS[-1]}
METHODS = {
    model: {**dict.fromkeys(METRICS), "accuracy": round(accuracy / 100, 4)}
    for model, accuracy in _PRINTED["table_6"].items()
}
