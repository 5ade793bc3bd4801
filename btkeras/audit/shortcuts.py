"""What of the classes is known without looking at a tumour: shortcuts that a network could take.

Where each class comes from its own collection, the size of an image, its border or its brightness may give the
answer, and a high accuracy says little (Geirhos et al., "Shortcut learning in deep neural networks", 2020; DeGrave et
al., "AI for radiographic COVID-19 detection selects shortcuts over signal", 2021). Here simple classifiers answer from
such features alone, under the split that the network is trained and tested with.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from btkeras.audit.shortcut_features import Features, ImageFeatures, boxes_to_hide, extract_features, hide, thumbnail
from btkeras.datasets.boxes import NO_TUMOR, Box, box_in_crop
from btkeras.datasets.dataset import Dataset, Record
from btkeras.errors import DataError, ImageError
from btkeras.metrics.intervals import wilson
from btkeras.splitting.splits import SUBSETS, Split

# Kind of feature -> what it is made of. None of it shows the tumour, except the thumbnail, an image of 16 x 16.
SHORTCUTS: Mapping[str, str] = MappingProxyType(
    {
        "size": "width, height, aspect, colour mode",
        "border": "outer 5 % of the image",
        "file size": "bytes, bytes per pixel",
        "histogram": "share of each of 32 grey levels",
        "outline": "the head's silhouette",
        "thumbnail": "the image in 16 x 16 pixels",
        "box hidden": "thumbnail, tumour's box filled",
        "box alone": "place and size of the tumour's box",
    }
)
# They are no sign of a tumour, whatever they predict.
OUTSIDE = ("size", "border", "file size")
_BOXED = ("box hidden", "box alone")
# Slices that exchanged a tumour, shown to a network -> what they are, and whether they had no tumour before.
EXCHANGED: Mapping[str, tuple[str, bool]] = MappingProxyType(
    {
        "network, tumour put in": ("a tumour-free slice with another's tumour", True),
        "network, tumour taken out": ("a tumour's slice with another's healthy tissue", False),
    }
)

Classifier = Callable[[int], Any]
# Name -> the classifier, not fitted, for a seed.
CLASSIFIERS: Mapping[str, Classifier] = MappingProxyType(
    {
        "logistic regression": lambda seed: make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500)),
        "nearest neighbours": lambda seed: make_pipeline(StandardScaler(), KNeighborsClassifier(5)),
        "random forest": lambda seed: RandomForestClassifier(100, random_state=seed, n_jobs=1),
    }
)
_Progress = Callable[[Iterable[ImageFeatures | ImageError]], Iterable[ImageFeatures | ImageError]]


@dataclass(frozen=True)
class Row:
    """How much of the test part is answered from one kind of feature.

    Attributes:
        name: A key of ``SHORTCUTS``, or what a network was shown.
        shows: What it is made of.
        predicted_by: The classifier that was best on the validation part, or ``network``.
        images: Test images.
        accuracy: Share of right answers, in 0..1.
        balanced_accuracy: Mean over the classes of the share of right answers.
        detection_accuracy: Share of right answers to "tumour or not"; None without both kinds of images.
        chance: Accuracy of always answering the most frequent class of the training part.
        detection_chance: The same of "tumour or not".
    """

    name: str
    shows: str
    predicted_by: str
    images: int
    accuracy: float
    balanced_accuracy: float
    detection_accuracy: float | None
    chance: float
    detection_chance: float | None

    @property
    def beats_chance(self) -> bool:
        """Whether chance lies below the accuracy's 95 % interval (Wilson)."""
        return wilson(self.accuracy * self.images, self.images)[0] > self.chance

    @property
    def detects_tumors(self) -> bool:
        """Whether that holds for "tumour or not"."""
        if self.detection_accuracy is None or self.detection_chance is None:
            return False
        return wilson(self.detection_accuracy * self.images, self.images)[0] > self.detection_chance


@dataclass(frozen=True)
class Shortcuts:
    """What was found.

    Attributes:
        dataset: Its folder.
        group_by: What the split keeps together.
        classes: Their names.
        rows: Simple classifiers first, then, with a run, what its network answers.
        broken: Images that could not be read and were left out.
    """

    dataset: str
    group_by: str
    classes: tuple[str, ...]
    rows: tuple[Row, ...]
    broken: int

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        rows = [asdict(row) | {"beats_chance": row.beats_chance} for row in self.rows]
        return {**asdict(self), "classes": list(self.classes), "rows": rows}

    def row(self, name: str) -> Row:
        """The row of that name."""
        return next(row for row in self.rows if row.name == name)


@dataclass(frozen=True)
class FeatureTable:
    """The dataset's readable images, as the classifiers and the network are shown them.

    Attributes:
        root: The dataset's folder.
        records: The images.
        features: Kind of feature -> a row per image.
        hidden: The part of each image to hide, fractions of the image; None where it is not known.
        heads: Where the heads are, fractions of the images.
    """

    root: Path
    records: tuple[Record, ...]
    features: Mapping[str, Features]
    hidden: Sequence[Box | None]
    heads: Sequence[Box]


def build_feature_table(
    dataset: Dataset, split: Split, *, seed: int = 0, progress: _Progress = lambda looks: looks
) -> tuple[FeatureTable, int]:
    """Reads the images of a split.

    Returns:
        What they show, and the number of images that could not be read.
    """
    records = [record for subset in SUBSETS for record in split.subset(subset)]
    looks = extract_features([dataset.root / record.path for record in records], progress)
    read = [(record, seen) for record, seen in zip(records, looks, strict=True) if isinstance(seen, ImageFeatures)]
    if not read:
        raise DataError("A dataset must hold images that can be read", received=f"none in {dataset.root}")
    kept, images = zip(*read, strict=True)
    heads = [image.head for image in images]
    subset_of = _subset_of(split)
    hidden = boxes_to_hide(kept, heads, [subset_of[record.path] for record in kept], seed)
    features = {name: np.stack([image.values[name] for image in images]) for name in images[0].values}
    if any(hidden):
        whole = Box(0, 0, 1, 1)
        boxes = [box or whole for box in hidden]
        features["box hidden"] = np.stack([thumbnail(hide(p.square, b)) for p, b in zip(images, boxes, strict=True)])
        features["box alone"] = np.array([box_in_crop(box, head) for box, head in zip(boxes, heads, strict=True)])
    return FeatureTable(dataset.root, kept, features, hidden, heads), len(records) - len(kept)


def simple_rows(
    seen: FeatureTable, split: Split, *, seed: int = 0, told: Callable[[str], None] = lambda name: None
) -> list[Row]:
    """Fits the classifiers on each kind of feature and answers the test part.

    Args:
        seen: What ``see`` gives.
        split: Says what is trained on, chosen by, and tested on.
        seed: Of the random forest.
        told: Gets each kind of feature before it is worked on.
    """
    subset_of = _subset_of(split)
    subsets = np.array([subset_of[record.path] for record in seen.records])
    boxed = np.array([box is not None for box in seen.hidden])
    labels = np.array([record.label for record in seen.records])
    rows = []
    for name in SHORTCUTS:
        if name not in seen.features:
            continue
        told(name)
        usable = boxed if name in _BOXED else np.ones(len(labels), bool)
        train, validation, test = ((subsets == subset) & usable for subset in SUBSETS)
        values = seen.features[name]
        best, classifier = _best(values[train], labels[train], values[validation], labels[validation], seed)
        answers = classifier.predict(values[test])
        rows.append(score(name, SHORTCUTS[name], best, labels[test], answers, trained_on=labels[train]))
    return rows


def _subset_of(split: Split) -> dict[str, str]:
    return {record.path: subset for subset in SUBSETS for record in split.subset(subset)}


def _best(
    train: Features, labels: NDArray[np.str_], validation: Features, held_out: NDArray[np.str_], seed: int
) -> tuple[str, Any]:
    """The classifier with the highest balanced accuracy on the validation part; among equals the first."""
    fitted, scores = {}, {}
    for name, make in CLASSIFIERS.items():
        with warnings.catch_warnings():
            # Classes that can be parted without a mistake let the weights grow for ever; the answers are long settled.
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted[name] = make(seed).fit(train, labels)
        scores[name] = balanced_accuracy_score(held_out, fitted[name].predict(validation))
    best = max(scores, key=lambda name: scores[name])
    return best, fitted[best]


def score(
    name: str,
    shows: str,
    predicted_by: str,
    labels: NDArray[np.str_],
    answers: NDArray[np.str_],
    *,
    trained_on: NDArray[np.str_],
) -> Row:
    """The row for some answers.

    Args:
        name: Of the row.
        shows: What the answers are made from.
        predicted_by: Who answered.
        labels: True classes.
        answers: Classes answered.
        trained_on: Classes of the training part, whose most frequent one is what chance answers.
    """
    recalls = [(answers[labels == label] == label).mean() for label in np.unique(labels)]
    no_tumor = labels == NO_TUMOR
    binary = no_tumor.any() and not no_tumor.all()
    return Row(
        name=name,
        shows=shows,
        predicted_by=predicted_by,
        images=len(labels),
        accuracy=float((answers == labels).mean()),
        balanced_accuracy=float(np.mean(recalls)),
        detection_accuracy=float(((answers == NO_TUMOR) == no_tumor).mean()) if binary else None,
        chance=_chance(labels, trained_on),
        detection_chance=_chance(no_tumor, trained_on == NO_TUMOR) if binary else None,
    )


def _chance(labels: NDArray[Any], trained_on: NDArray[Any]) -> float:
    values, counts = np.unique(trained_on, return_counts=True)
    return float((labels == values[counts.argmax()]).mean())
