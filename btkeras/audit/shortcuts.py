"""Shortcuts: how well the class can be predicted without looking at a tumour.

Where each class comes from its own collection, the size of an image, its border or its brightness may predict the
class, and a high accuracy says little (Geirhos et al., "Shortcut learning in deep neural networks", 2020). Here simple
classifiers predict from such features alone, under the split that the network is trained and tested with.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, recall_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from btkeras.audit.shortcut_features import Features, ImageFeatures, boxes_to_hide, extract_features, hide, thumbnail
from btkeras.datasets.boxes import Box, box_in_crop
from btkeras.datasets.classes import NO_TUMOR
from btkeras.datasets.dataset import Dataset, Record
from btkeras.errors import DataError
from btkeras.metrics.intervals import wilson
from btkeras.splitting.splits import SUBSETS, Split

# Kind of feature -> what it is made of. None of it shows the tumour, except the thumbnail, an image of 16 x 16.
SHORTCUTS: Mapping[str, str] = {
    "size": "width, height, aspect, colour mode",
    "border": "outer 5 % of the image",
    "file size": "bytes, bytes per pixel",
    "histogram": "share of each of 32 grey levels",
    "outline": "the head's silhouette",
    "thumbnail": "the image in 16 x 16 pixels",
    "box hidden": "thumbnail, tumour's box filled",
    "box alone": "place and size of the tumour's box",
}
# Slices that exchanged a tumour, shown to a network -> what they are, and whether they had no tumour before.
EXCHANGED: Mapping[str, tuple[str, bool]] = {
    "network, tumour put in": ("a tumour-free slice with another's tumour", True),
    "network, tumour taken out": ("a tumour's slice with another's healthy tissue", False),
}
# Name -> the classifier, not fitted, for a seed.
CLASSIFIERS: Mapping[str, Callable[[int], Any]] = {
    "logistic regression": lambda seed: make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500)),
    "nearest neighbours": lambda seed: make_pipeline(StandardScaler(), KNeighborsClassifier(5)),
    "random forest": lambda seed: RandomForestClassifier(100, random_state=seed, n_jobs=1),
}


@dataclass(frozen=True)
class ShortcutRow:
    """Accuracy on the test subset from one kind of feature."""

    name: str  # A key of ``SHORTCUTS``, or what a network was shown
    shows: str  # what it is made of
    predicted_by: str  # the classifier that was best on the validation subset, or ``network``
    images: int  # test images
    accuracy: float  # in 0..1
    balanced_accuracy: float  # mean recall of the classes
    detection_accuracy: float | None  # accuracy of "tumour or not"; None without both kinds of images
    chance: float  # accuracy of always predicting the most frequent class of the training subset
    detection_chance: float | None  # the same of "tumour or not"

    @property
    def beats_chance(self) -> bool:
        """Whether chance lies below the accuracy's 95 % interval (Wilson)."""
        return self._above(self.accuracy, self.chance)

    @property
    def detects_tumors(self) -> bool:
        """Whether ``detection_chance`` lies below the interval of ``detection_accuracy``."""
        return self._above(self.detection_accuracy, self.detection_chance)

    def _above(self, share: float | None, chance: float | None) -> bool:
        return share is not None and chance is not None and wilson(share * self.images, self.images)[0] > chance


@dataclass(frozen=True)
class Shortcuts:
    """What was found."""

    dataset: str  # its folder
    group_by: str  # of the split
    classes: tuple[str, ...]  # their names
    rows: tuple[ShortcutRow, ...]  # simple classifiers first, then, with a run, its network
    broken: int  # images that could not be read and were left out

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        rows = [asdict(row) | {"beats_chance": row.beats_chance} for row in self.rows]
        return {**asdict(self), "classes": list(self.classes), "rows": rows}


@dataclass(frozen=True)
class FeatureTable:
    """A dataset's readable images and their features."""

    root: Path  # the dataset's folder
    records: tuple[Record, ...]  # the images
    subsets: NDArray[np.str_]  # the subset of each
    features: Mapping[str, Features]  # kind of feature -> a row per image
    hidden: list[Box | None]  # the box of each image to hide, fractions of the image; None where it is not known
    heads: list[Box]  # boxes of the heads, fractions of the images


def find_shortcuts(
    dataset: Dataset,
    split: Split,
    network_rows: Callable[[FeatureTable], list[ShortcutRow]] | None = None,
    *,
    seed: int = 0,
) -> Shortcuts:
    """Measures how well the class can be predicted without looking at a tumour; shows progress on standard error.

    ``network_rows`` adds rows of a network, see ``btkeras.audit.shortcut_network``; ``seed`` is that of the random
    forest, and of the boxes hidden where there is no tumour. Raises ``DataError`` if no image can be read.
    """
    records = [record for subset in SUBSETS for record in split.subset(subset)]
    extracted = extract_features([dataset.root / record.path for record in records])
    bar = tqdm(extracted, "reading", len(records), file=sys.stderr, leave=False, disable=None)
    readable = [(record, image) for record, image in zip(records, bar, strict=True) if isinstance(image, ImageFeatures)]
    if not readable:
        raise DataError("A dataset must hold images that can be read", received=f"none in {dataset.root}")
    table = _feature_table(dataset.root, readable, split.subset_of(), seed)
    rows = [*_simple_rows(table, seed), *(network_rows(table) if network_rows else ())]
    return Shortcuts(str(dataset.root), split.group_by, dataset.classes, tuple(rows), len(records) - len(readable))


def _feature_table(
    root: Path, readable: Sequence[tuple[Record, ImageFeatures]], subset_of: Mapping[str, str], seed: int
) -> FeatureTable:
    records, images = zip(*readable, strict=True)
    subsets, heads = np.array([subset_of[record.path] for record in records]), [image.head for image in images]
    hidden = boxes_to_hide(records, heads, subsets.tolist(), seed)
    features = {name: np.stack([image.values[name] for image in images]) for name in images[0].values}
    if any(hidden):
        boxes = [box or Box(0, 0, 1, 1) for box in hidden]
        squares = [hide(image.square, box) for image, box in zip(images, boxes, strict=True)]
        features["box hidden"] = np.stack([thumbnail(square) for square in squares])
        features["box alone"] = np.array([box_in_crop(box, head) for box, head in zip(boxes, heads, strict=True)])
    return FeatureTable(root, records, subsets, features, hidden, heads)


def _simple_rows(table: FeatureTable, seed: int) -> list[ShortcutRow]:
    boxed = np.array([box is not None for box in table.hidden])
    labels = np.array([record.label for record in table.records])
    rows = []
    names = [name for name in SHORTCUTS if name in table.features]
    for name in tqdm(names, "fitting", file=sys.stderr, leave=False, disable=None):
        usable = boxed if name.startswith("box") else np.ones(len(labels), bool)
        train, validation, test = ((table.subsets == subset) & usable for subset in SUBSETS)
        values = table.features[name]
        best, classifier = _best(values[train], labels[train], values[validation], labels[validation], seed)
        predictions = classifier.predict(values[test])
        rows.append(score(name, SHORTCUTS[name], best, labels[test], predictions, trained_on=labels[train]))
    return rows


def _best(
    train: Features, labels: NDArray[np.str_], validation: Features, held_out: NDArray[np.str_], seed: int
) -> tuple[str, Any]:
    """The classifier with the highest balanced accuracy on the validation subset; among equals the first."""
    with warnings.catch_warnings():
        # The weights of separable classes grow for ever; the predictions have long converged.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = {name: make(seed).fit(train, labels) for name, make in CLASSIFIERS.items()}
    return max(fitted.items(), key=lambda each: balanced_accuracy_score(held_out, each[1].predict(validation)))


def score(
    name: str,
    shows: str,
    predicted_by: str,
    labels: NDArray[np.str_],
    predictions: NDArray[np.str_],
    *,
    trained_on: NDArray[np.str_],
) -> ShortcutRow:
    """The row of some predictions; ``trained_on`` are the classes of the training subset."""
    no_tumor = labels == NO_TUMOR
    binary = no_tumor.any() and not no_tumor.all()
    return ShortcutRow(
        name=name,
        shows=shows,
        predicted_by=predicted_by,
        images=len(labels),
        accuracy=float((predictions == labels).mean()),
        balanced_accuracy=float(recall_score(labels, predictions, labels=np.unique(labels), average="macro")),
        detection_accuracy=float(((predictions == NO_TUMOR) == no_tumor).mean()) if binary else None,
        chance=_chance(labels, trained_on),
        detection_chance=_chance(no_tumor, trained_on == NO_TUMOR) if binary else None,
    )


def _chance(labels: NDArray[Any], trained_on: NDArray[Any]) -> float:
    values, counts = np.unique(trained_on, return_counts=True)
    return float((labels == values[counts.argmax()]).mean())
