"""What a trained network answers when the tumour, or all but the tumour, is taken out of its input, or exchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from scipy import ndimage

from btkeras.audit.shortcut_features import hide, pixels_of, silhouette
from btkeras.audit.shortcuts import EXCHANGED, FeatureTable, Row, score
from btkeras.augmentation.lesion_cutmix import CutMixBatch, lesion_cutmix
from btkeras.config import AugmentConfig
from btkeras.datasets.boxes import NO_TUMOR, Box, box_in_crop, clip_box
from btkeras.errors import ImageError
from btkeras.evaluation.evaluate import load_best
from btkeras.preprocessing.preprocessor import Preprocessor
from btkeras.runs import Run
from btkeras.splitting.splits import Split

_CLASSES = AugmentConfig().cutmix_classes
_AT_ONCE = 256


@dataclass(frozen=True)
class NetworkAnswers:
    """Attributes:
    classes: Names of the network's outputs.
    probabilities: From float32 inputs to a row of probabilities each.
    """

    classes: NDArray[np.str_]
    probabilities: Callable[[NDArray[np.float32]], NDArray[np.float32]]

    def answers(self, images: NDArray[np.float32]) -> NDArray[np.str_]:
        """The most probable classes."""
        return self.classes[self.probabilities(images).argmax(axis=1)]


def exchange_rows(
    images: Callable[[NDArray[np.intp]], NDArray[np.uint8]],
    labels: NDArray[np.str_],
    boxes: NDArray[np.float32],
    network: NetworkAnswers,
    *,
    trained_on: NDArray[np.str_],
) -> list[Row]:
    """What a network answers for slices that exchanged a tumour; each slice is in at most one pair.

    Args:
        images: Gives network inputs, ``[n, side, side, channels]``, for positions in ``labels``.
        labels: Classes of the test images.
        boxes: ``[n, 4]``: top, left, bottom, right of the tumour as fractions of the input; all 0 where not known.
        network: Who answers.
        trained_on: Classes of the training part.

    Returns:
        A row per direction; none where there are no pairs. Its ``detection_accuracy`` is the part that is told rightly
        whether there is a tumour.
    """
    tumor = np.isin(labels, _CLASSES) & boxes.any(axis=1)
    order = np.random.default_rng(0).permutation(np.flatnonzero(tumor | (labels == NO_TUMOR)))
    wanted: dict[str, list[NDArray[np.str_]]] = {name: [] for name in EXCHANGED}
    given: dict[str, list[NDArray[np.str_]]] = {name: [] for name in EXCHANGED}
    for start in range(0, len(order), _AT_ONCE):
        some = order[start : start + _AT_ONCE]
        changed, new = _exchanged(images(some), labels[some], boxes[some], network.classes)
        for name, (_, was_healthy) in EXCHANGED.items():
            these = np.flatnonzero((new != labels[some]) & ((labels[some] == NO_TUMOR) == was_healthy))
            if these.size:
                wanted[name].append(new[these])
                given[name].append(network.answers(changed[these]))
    rows = []
    for name, (shows, was_healthy) in EXCHANGED.items():
        if wanted[name]:
            right, said = np.concatenate(wanted[name]), np.concatenate(given[name])
            row = score(name, shows, "network", right, said, trained_on=trained_on)
            rows.append(replace(row, detection_accuracy=float(((said == NO_TUMOR) != was_healthy).mean())))
    return rows


def _exchanged(
    images: NDArray[np.uint8], labels: NDArray[np.str_], boxes: NDArray[np.float32], classes: NDArray[np.str_]
) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
    """Images whose pairs all exchanged their tumour, and what they show then."""
    targets = (labels[:, None] == classes).astype(np.float32)
    batch = CutMixBatch(tf.constant(images), tf.constant(targets), tf.constant(boxes), tf.constant(labels == NO_TUMOR))
    changed, now = lesion_cutmix(batch, tf.constant([0, 0], tf.int64), 1.0)
    return np.rint(changed.numpy()), classes[now.numpy().argmax(axis=1)]


ImageArray = NDArray[np.uint8]

# What is taken from the head's rim, as a fraction of the image's side: skin, bone, and what lies outside.
RIM = 0.08
_BATCH = 32


def _alone(image: ImageArray, box: Box) -> ImageArray:
    rows, columns = pixels_of(box, *image.shape[:2])
    kept = np.zeros_like(image)
    kept[rows, columns] = image[rows, columns]
    return kept


def _outline(image: ImageArray, box: Box) -> ImageArray:
    inside = ndimage.binary_erosion(silhouette(image[..., 0]), iterations=max(1, round(RIM * len(image))))
    return np.where(inside[..., None], np.uint8(0), image)


@dataclass(frozen=True)
class Input:
    """One way of showing an image to the network.

    Attributes:
        shows: What is left of it.
        change: From the network's input and the part to hide, fractions of the input, to what is shown.
        boxed: Whether only images count whose part to hide is known.
    """

    shows: str
    change: Callable[[ImageArray, Box], ImageArray]
    boxed: bool = True


INPUTS: Mapping[str, Input] = MappingProxyType(
    {
        "network": Input("the whole image", lambda image, box: image, boxed=False),
        "network, box hidden": Input("tumour's box filled with its surroundings' mean", hide),
        "network, box alone": Input("tumour's box, black around it", _alone),
        "network, outline": Input("border and rim of the head, its inside black", _outline, boxed=False),
    }
)


def network_rows(
    run: Run, seen: FeatureTable, split: Split, progress: Callable[[range], Iterable[int]] = lambda batches: batches
) -> list[Row]:
    """What the run's network answers for the test part, shown whole and in parts.

    Args:
        run: The run; the split must be its own.
        seen: What ``btkeras.audit.shortcuts.see`` gives.
        split: The run's split.
        progress: Wraps the batches, to show how far it is.

    Raises:
        RunError, ModelError: If the run has no network to load.
    """
    model, classes, config = load_best(run), np.array(run.classes()), run.config()
    decoder = Preprocessor(config.data.image_size, config.data.channels, config.data.harmonize)
    tested = {record.path for record in split.test}
    positions = [i for i, record in enumerate(seen.records) if record.path in tested]
    labels = np.array([seen.records[i].label for i in positions])
    trained_on = np.array([record.label for record in split.train])
    inputs = {name: one for name, one in INPUTS.items() if any(seen.hidden) or not one.boxed}
    answers: dict[str, list[NDArray[np.str_]]] = {name: [] for name in inputs}
    for start in progress(range(0, len(positions), _BATCH)):
        batch = positions[start : start + _BATCH]
        images = list(decoder.files([seen.root / seen.records[i].path for i in batch]))
        boxes = [_box(seen, i, config.data.harmonize) for i in batch]
        for name, one in inputs.items():
            shown = [one.change(_readable(p), box) for p, box in zip(images, boxes, strict=True)]
            scores = model.predict_on_batch(np.stack(shown).astype(np.float32))
            answers[name].append(classes[np.asarray(scores).argmax(axis=1)])
    boxed = np.array([seen.hidden[i] is not None for i in positions])
    rows = []
    for name, one in inputs.items():
        usable = boxed if one.boxed else np.ones(len(labels), bool)
        given = np.concatenate(answers[name])[usable]
        rows.append(score(name, one.shows, "network", labels[usable], given, trained_on=trained_on))
    return [*rows, *_exchange_rows(model, classes, seen, positions, decoder, trained_on)]


def _exchange_rows(
    model: keras.Model,
    classes: NDArray[np.str_],
    seen: FeatureTable,
    positions: list[int],
    decoder: Preprocessor,
    trained_on: NDArray[np.str_],
) -> list[Row]:
    records = [seen.records[i] for i in positions]
    boxes = np.zeros((len(records), 4), np.float32)
    for row, (record, i) in enumerate(zip(records, positions, strict=True)):
        if box := record.box:
            boxes[row] = (clip_box(box_in_crop(box, seen.heads[i])) if decoder.harmonize else box) or (0, 0, 0, 0)

    def images(chosen: NDArray[np.intp]) -> NDArray[np.uint8]:
        return np.stack([_readable(p) for p in decoder.files([seen.root / records[i].path for i in chosen])])

    def probabilities(readable: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(model.predict(readable, batch_size=_BATCH, verbose=0))

    network = NetworkAnswers(classes, probabilities)
    labels = np.array([record.label for record in records])
    return exchange_rows(images, labels, boxes, network, trained_on=trained_on)


def _box(seen: FeatureTable, position: int, harmonized: bool) -> Box:
    """The part to hide as fractions of the network's input."""
    box = seen.hidden[position] or Box(0, 0, 1, 1)
    return box_in_crop(box, seen.heads[position]) if harmonized else box


def _readable(image: ImageArray | ImageError) -> ImageArray:
    if isinstance(image, ImageError):
        raise image
    return image
