"""The paper's figures that are known here: Li et al., "Research on Brain Tumor Classification Method Based on Improved
ResNet34 Network", arXiv 2512.03751.

Its full text could not be obtained: these come from its abstract and from what is known of its tables at second hand
(README, "Limits"), and no other is made up. Add one here and it appears in the reports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

PAPER = "Li et al., Research on Brain Tumor Classification Method Based on Improved ResNet34 Network (arXiv 2512.03751)"
NOT_OBTAINED = (
    "The paper's full text could not be obtained. Columns “paper” hold the figures of it that are known here and — "
    "for every other; btkeras/reporting/published.py lists them with their sources."
)


@dataclass(frozen=True)
class Published:
    """A published figure.

    Attributes:
        value: As btkeras counts it: a fraction, or a number.
        text: As it is shown.
        source: Where it stands.
    """

    value: float
    text: str
    source: str


_AVERAGE = "average of the five folds; the abstract says “approximately 98.8%”"
_TABLE_3 = "table 3"
_SIZES = "the text; the abstract says “only 80% of the number of parameters”"

# (network, figure), or (network, class, figure).
FIGURES: Mapping[tuple[str, ...], Published] = MappingProxyType(
    {
        ("improved_resnet34", "accuracy"): Published(0.9882, "98.82", _AVERAGE),
        ("improved_resnet34", "f1"): Published(0.9916, "99.16", f"{_TABLE_3} (above its own precision and recall)"),
        ("improved_resnet34", "parameters"): Published(17.3e6, "17.3", _SIZES),
        ("improved_resnet34", "no_tumor", "precision"): Published(1.0, "100", "100 even for the baseline"),
        ("resnet34", "accuracy"): Published(0.978, "≈ 97.8", "abstract: the improved network is “1% higher”"),
        ("resnet34", "parameters"): Published(21.3e6, "21.3", _SIZES),
    }
)

# Table 1: images of a class by part.
IMAGES: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "glioma": {"all": 1426, "train": 913, "validation": 228, "test": 285},
        "meningioma": {"all": 708, "train": 454, "validation": 113, "test": 141},
        "no_tumor": {"all": 1436, "train": 920, "validation": 229, "test": 287},
        "pituitary": {"all": 930, "train": 596, "validation": 148, "test": 186},
    }
)


@dataclass(frozen=True)
class Variant:
    """A network of the ablation.

    Attributes:
        inception: Module A, Inception-v2 downsampling.
        multi_scale: Module B, the multi-scale stem.
        attention: Module C, squeeze-and-excitation.
    """

    inception: bool = False
    multi_scale: bool = False
    attention: bool = False


# The paper's own network, and the one it is built on.
IMPROVED, BASELINE = "improved_resnet34", "resnet34"
# Here and not read from the networks, which cannot be imported without Keras; a test compares the two.
ABLATION: Mapping[str, Variant] = MappingProxyType(
    {
        "resnet34": Variant(),
        "resnet34_inception": Variant(inception=True),
        "resnet34_multiscale": Variant(multi_scale=True),
        "resnet34_se": Variant(attention=True),
        "improved_resnet34": Variant(inception=True, multi_scale=True, attention=True),
    }
)
NETWORKS = ("vgg16", "resnet50", "resnext101", "googlenet", "efficientnetv2", "densenet", IMPROVED)
METHODS = ("vgg19", "resnet50_gap", "lbp_knn", "lbp_svm", IMPROVED)

# Known faults of the published protocol.
FAULTS = (
    "The published split is made image by image, so slices of one patient lie on both sides of it: the test part "
    "holds near-copies of what the network has learnt. An accuracy on such a split says little about a new patient.",
    "The published averages fit one fixed test fifth that all five folds share: five trainings were tested, not five "
    "test parts, and the spread between them leaves out what other test images would have changed.",
    "The published table 3 gives model 5 an F1 (99.16) above both its precision and its recall. F1 is at most the mean "
    "of the two, for a class and for an average over classes alike, so one of these numbers is wrong.",
    "The class “no tumor” comes from another source than the tumours, and its published precision is 100 even for the "
    "baseline: it may be told apart by the scanner's style alone.",
    "With n = 899 test images, 98.82 % has a 95 % interval of about 97.8 to 99.3, even if they were independent.",
)
