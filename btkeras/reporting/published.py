"""The published figures: Li, Zhao, Dang and Wang, arXiv 2512.03751, as its tables print them, misprints included.

Figures are fractions, as btkeras counts them. Model names are btkeras'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from btkeras.metrics import METRICS

PAPER = "Li et al., Research on Brain Tumor Classification Method Based on Improved ResNet34 Network (arXiv 2512.03751)"
# The paper's own model, and the one it is built on.
IMPROVED, BASELINE = "improved_resnet34", "resnet34"
AVERAGE = "average"
CLASS_METRICS = METRICS[1:]

# Table 1: images per class: training, validation, test.
SUBSETS = ("train", "validation", "test")
IMAGES: Mapping[str, Mapping[str, int]] = {
    "glioma": {"train": 913, "validation": 228, "test": 285},
    "meningioma": {"train": 454, "validation": 113, "test": 141},
    "no_tumor": {"train": 920, "validation": 229, "test": 287},
    "pituitary": {"train": 596, "validation": 148, "test": 186},
}


class Variant(NamedTuple):
    """Modules of a model of the ablation: A, Inception-v2 downsampling; B, the multi-scale stem; C, attention (SE)."""

    inception: bool = False
    multi_scale: bool = False
    attention: bool = False


# Here and not read from the models, which cannot be imported without Keras; a test compares the two.
ABLATION: Mapping[str, Variant] = {
    "resnet34": Variant(),
    "resnet34_inception": Variant(inception=True),
    "resnet34_multiscale": Variant(multi_scale=True),
    "resnet34_se": Variant(attention=True),
    "improved_resnet34": Variant(inception=True, multi_scale=True, attention=True),
}
PARAMETERS: Mapping[str, float] = {"improved_resnet34": 17.3e6, "resnet34": 21.3e6}


def _fractions(names: Iterable[str], percents: Iterable[float]) -> dict[str, float]:
    return {name: round(percent / 100, 4) for name, percent in zip(names, percents, strict=True)}


# Table 2: accuracy of the ablation, averaged over the folds.
ABLATION_ACCURACY = _fractions(ABLATION, (97.71, 98.33, 98.22, 98.28, 98.82))

# Table 3: precision, recall, specificity and F1 of each class and on average; a line per model of the ablation.
_CLASSES = ("glioma", "meningioma", "no_tumor", "pituitary", AVERAGE)
_TABLE_3 = """
98.18 98.25 99.15 98.21  94.06 93.90 98.89 93.97  100 99.30 100 99.65  96.28 97.31 99.02 96.79  97.13 97.19 99.27 97.16
97.92 99.12 99.02 98.52  96.08 95.74 99.27 95.91  100 99.48 100 99.74  98.10 97.31 99.51 97.71  98.03 97.91 99.45 97.97
98.94 98.42 99.51 98.68  94.41 95.75 98.95 95.07  100 99.83 100 99.91  97.31 97.31 99.30 97.31  97.67 97.83 99.44 97.74
98.44 99.12 99.10 98.60  96.09 95.75 99.27 95.92  100 98.95 100 99.47  97.59 97.85 99.37 97.72  98.03 97.92 99.44 97.93
97.93 98.88 99.74 99.16  96.12 97.87 99.26 96.98  100 99.79 100 99.90  97.95 97.74 99.47 97.85  98.33 98.57 99.62 98.47
"""
PER_CLASS: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    model: {
        label: _fractions(CLASS_METRICS, map(float, cells.split()))
        for label, cells in zip(_CLASSES, line.split("  "), strict=True)
    }
    for model, line in zip(ABLATION, _TABLE_3.strip().splitlines(), strict=True)
}

# Table 4: the improved model's folds, then their average.
FOLDS: tuple[Mapping[str, float], ...] = tuple(
    _fractions(METRICS, row)
    for row in (
        (99.00, 98.64, 98.84, 99.67, 98.74),
        (98.67, 98.15, 98.58, 99.59, 98.35),
        (98.89, 98.58, 98.62, 99.65, 98.60),
        (98.67, 98.17, 98.44, 99.59, 98.30),
        (98.89, 98.54, 98.62, 99.65, 98.58),
        (98.82, 98.42, 98.62, 99.63, 98.51),
    )
)

# Table 5: other networks.
NETWORKS: Mapping[str, Mapping[str, float]] = {
    "vgg16": _fractions(METRICS, (95.77, 95.59, 94.41, 98.55, 94.93)),
    "resnet50": _fractions(METRICS, (97.88, 97.96, 96.99, 99.27, 97.40)),
    "resnext101": _fractions(METRICS, (98.22, 97.79, 97.83, 99.43, 97.80)),
    "googlenet": _fractions(METRICS, (97.66, 97.24, 96.66, 99.23, 97.10)),
    "efficientnetv2": _fractions(METRICS, (98.22, 97.90, 97.56, 99.41, 97.72)),
    "densenet": _fractions(METRICS, (98.22, 98.06, 97.69, 99.40, 97.87)),
    IMPROVED: FOLDS[-1],
}

# Table 6: accuracy of related work, by the model here that is most like it.
METHODS: Mapping[str, Mapping[str, float]] = {
    "vgg19": {"accuracy": 0.9482},  # Swati 2019: fine-tuned
    "lbp_knn": {"accuracy": 0.9556},  # Kaplan 2020: local binary patterns
    "lbp_svm": {"accuracy": 0.9556},
    "resnet50_gap": {"accuracy": 0.9748},  # Kumar 2021: with global average pooling
    IMPROVED: {"accuracy": 0.9882},
}
HUANG = "The paper also lists a multiscale residual network (Huang 2022, 98.58), which btkeras does not have."


def ablation_metrics(model: str) -> dict[str, float]:
    """Table 2's accuracy with table 3's averages of a model; empty if it is not in them."""
    if model not in ABLATION:
        return {}
    return {"accuracy": ABLATION_ACCURACY[model], **PER_CLASS[model][AVERAGE]}


# Known faults of the published protocol.
FAULTS = (
    "The published split is made image by image, so slices of one patient lie in several subsets: the test subset "
    "holds near-duplicates of training images. An accuracy on such a split says little about a new patient.",
    "All five published folds were tested on the same 899 slices: table 3's average recalls, weighted by table 1's "
    "test images, give table 2's accuracies. The spread between the folds leaves out what other test images would "
    "have changed.",
    "Table 5 compares the improved model's mean over five folds with what are most likely single runs: every other "
    "accuracy in it is a whole number of 899 slices. The worst of the five folds is 4 slices better than three of "
    "the other networks.",
    "Table 3 has misprints. Model 5's glioma precision (97.93) fits neither its F1 (99.16) nor its specificity "
    "(99.74), which ask for 99.44; model 4's (98.44) fits neither 98.60 nor 99.10, which ask for 98.09. Model 5's "
    "average precision (98.33) is not the mean of its cells (98.00), and its averages differ from table 4's.",
    "The class “no tumor” comes from another source than the tumours, and its published precision is 100 even for the "
    "baseline: it may be told apart by the scanner's style alone.",
    "With n = 899 test images, 98.82 % has a 95 % interval of about 97.8 to 99.3, even if they were independent.",
)
