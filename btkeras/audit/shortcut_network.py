"""A network's predictions when the tumour, or all but the tumour, is removed from its input, or exchanged."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from scipy import ndimage
from tqdm import tqdm

from btkeras.audit.lesion_exchange import ExchangeBatch, exchange_lesions
from btkeras.audit.shortcut_features import box_pixels, hide, silhouette
from btkeras.audit.shortcuts import EXCHANGED, FeatureTable, ShortcutRow, score
from btkeras.datasets.boxes import Box, box_in_crop, clip_box
from btkeras.datasets.classes import NO_TUMOR
from btkeras.decisions.finite import require_finite
from btkeras.evaluation.evaluate import load_best
from btkeras.machine import map_in_threads
from btkeras.preprocessing.preprocessor import Preprocessor
from btkeras.runs import Run

ImageArray = NDArray[np.uint8]
Labels = NDArray[np.str_]
Predict = Callable[[ImageArray | NDArray[np.float32]], Labels]  # from a batch of network inputs to classes

# Width of the head's rim (skin, bone, and what lies outside), as a fraction of the image's side.
RIM = 0.08
# A pituitary tumour means little off its place.
_IN_PLACE = ("pituitary",)
_BATCH = 32
_EXCHANGE_BATCH = 256


def _box_alone(image: ImageArray, box: Box) -> ImageArray:
    rows, columns = box_pixels(box, *image.shape[:2])
    result = np.zeros_like(image)
    result[rows, columns] = image[rows, columns]
    return result


def _outline(image: ImageArray, box: Box) -> ImageArray:
    inside = ndimage.binary_erosion(silhouette(image[..., 0]), iterations=max(1, round(RIM * len(image))))
    return np.where(inside[..., None], np.uint8(0), image)


class NetworkInput(NamedTuple):
    """One way of showing an image to the network."""

    shows: str  # what is left of the image
    change: Callable[[ImageArray, Box], ImageArray]  # of the network's input and the box, fractions of the input
    boxed: bool = True  # whether only images with a known box count


INPUTS: Mapping[str, NetworkInput] = {
    "network": NetworkInput("the whole image", lambda image, box: image, boxed=False),
    "network, box hidden": NetworkInput("tumour's box filled with its surroundings' mean", hide),
    "network, box alone": NetworkInput("tumour's box, black around it", _box_alone),
    "network, outline": NetworkInput("border and rim of the head, its inside black", _outline, boxed=False),
}


class _TestImages:
    """The test images of a table, as a run's network gets them; boxes are fractions of its input."""

    def __init__(self, run: Run, table: FeatureTable) -> None:
        data = run.config().data
        labels = np.array([record.label for record in table.records])
        positions = np.flatnonzero(table.subsets == "test")
        self.trained_on, self.labels = labels[table.subsets == "train"], labels[positions]
        self._paths = [table.root / table.records[i].path for i in positions]
        self._preprocessor = Preprocessor(data.image_size, data.channels, data.harmonize)

        def in_input(box: Box | None, head: Box) -> Box | None:
            return box_in_crop(box, head) if box and data.harmonize else box

        self.hidden = [in_input(table.hidden[i], table.heads[i]) for i in positions]
        self.tumors = [in_input(table.records[i].box, table.heads[i]) for i in positions]

    def read(self, chosen: NDArray[np.intp]) -> ImageArray:
        """Network inputs ``[n, side, side, channels]`` by their positions among the test images."""
        return np.stack(list(map_in_threads(self._preprocessor.file, [self._paths[i] for i in chosen])))


def network_rows(run: Run, table: FeatureTable) -> list[ShortcutRow]:
    """Rows of a run's network on the test subset: whole images, parts of them, and exchanged tumours.

    The table must be of the run's split. Errors are as of ``evaluation.evaluate.load_best``.
    """
    model, classes, images = load_best(run), np.array(run.classes()), _TestImages(run, table)

    def predict(inputs: ImageArray | NDArray[np.float32]) -> Labels:
        starts = range(0, len(inputs), _BATCH)
        batches = [model.predict_on_batch(inputs[start : start + _BATCH].astype(np.float32)) for start in starts]
        require_finite("outputs", batches, run.best_model)
        return classes[np.concatenate(batches).argmax(axis=1)]

    boxes = np.array([(box and clip_box(box)) or (0, 0, 0, 0) for box in images.tumors], np.float32)
    exchanged = exchange_rows(images.read, images.labels, boxes, predict, classes, trained_on=images.trained_on)
    return [*_input_rows(images, predict), *exchanged]


def _input_rows(images: _TestImages, predict: Predict) -> list[ShortcutRow]:
    labels, hidden = images.labels, images.hidden
    boxed = np.array([box is not None for box in hidden])
    inputs = {name: each for name, each in INPUTS.items() if boxed.any() or not each.boxed}
    predictions: dict[str, list[Labels]] = {name: [] for name in inputs}
    for start in tqdm(range(0, len(labels), _BATCH), "network", file=sys.stderr, leave=False, disable=None):
        batch = np.arange(start, min(start + _BATCH, len(labels)))
        read = images.read(batch)
        for name, each in inputs.items():
            shown = [each.change(image, hidden[i] or Box(0, 0, 1, 1)) for image, i in zip(read, batch, strict=True)]
            predictions[name].append(predict(np.stack(shown)))
    rows = []
    for name, each in inputs.items():
        usable = boxed if each.boxed else np.ones(len(labels), bool)
        found = np.concatenate(predictions[name])[usable]
        rows.append(score(name, each.shows, "network", labels[usable], found, trained_on=images.trained_on))
    return rows


def exchange_rows(
    read: Callable[[NDArray[np.intp]], ImageArray],
    labels: Labels,
    boxes: NDArray[np.float32],
    predict: Predict,
    classes: Labels,
    *,
    trained_on: Labels,
) -> list[ShortcutRow]:
    """Rows of a network on slices that exchanged a tumour; each slice is in at most one pair.

    Args:
        read: Gives network inputs, ``[n, side, side, channels]``, for positions in ``labels``.
        labels: Classes of the test images.
        boxes: ``[n, 4]``: top, left, bottom, right of the tumour as fractions of the input; all 0 where not known.
        predict: Predicts the classes of network inputs.
        classes: Names of the network's outputs.
        trained_on: Classes of the training subset.

    Returns:
        A row per direction that has pairs; ``detection_accuracy`` is the share that is detected rightly.
    """
    tumor = ~np.isin(labels, (*_IN_PLACE, NO_TUMOR)) & boxes.any(axis=1)
    order = np.random.default_rng(0).permutation(np.flatnonzero(tumor | (labels == NO_TUMOR)))
    found: dict[str, list[tuple[Labels, Labels]]] = {name: [] for name in EXCHANGED}
    for start in range(0, len(order), _EXCHANGE_BATCH):
        batch = order[start : start + _EXCHANGE_BATCH]
        images, new = _exchanged(read(batch), labels[batch], boxes[batch], classes)
        for name, (_, without_tumor) in EXCHANGED.items():
            chosen = np.flatnonzero((new != labels[batch]) & ((labels[batch] == NO_TUMOR) == without_tumor))
            if chosen.size:
                found[name].append((new[chosen], predict(images[chosen])))
    rows = []
    for name, (shows, without_tumor) in EXCHANGED.items():
        if found[name]:
            true, predicted = (np.concatenate(each) for each in zip(*found[name], strict=True))
            row = score(name, shows, "network", true, predicted, trained_on=trained_on)
            detected = (predicted == NO_TUMOR) != without_tumor
            rows.append(replace(row, detection_accuracy=float(detected.mean())))
    return rows


def _exchanged(
    images: ImageArray, labels: Labels, boxes: NDArray[np.float32], classes: Labels
) -> tuple[NDArray[np.float32], Labels]:
    """Images whose pairs all exchanged their tumour, and their new classes."""
    targets = (labels[:, None] == classes).astype(np.float32)
    batch = ExchangeBatch(*map(tf.constant, (images, targets, boxes, labels == NO_TUMOR)))
    changed, now = exchange_lesions(batch, tf.constant([0, 0], tf.int64))
    return np.rint(changed.numpy()), classes[now.numpy().argmax(axis=1)]
