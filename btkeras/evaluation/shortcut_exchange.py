"""Whether a network goes by the tumour or by the slice around it: tumours moved between slices of the test part.

A glioma's or meningioma's box and the same place of a tumour-free slice are exchanged, as ``augment.tumour_exchange``
does in training. Where the classes come from different collections, the tumour and the slice then say different
things, and the answer shows which of the two was learnt (a counterfactual test, after Kaushik et al. 2020,
arXiv:1909.12434; for scanners DeGrave et al. 2021).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from btkeras.config import AugmentConfig
from btkeras.data.boxes import HEALTHY
from btkeras.data.tumour_exchange import Batch, exchange_tumours
from btkeras.evaluation.shortcuts import EXCHANGED, Row, score

_CLASSES = AugmentConfig().exchanged_classes
_AT_ONCE = 256


@dataclass(frozen=True)
class Answering:
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
    network: Answering,
    *,
    trained_on: NDArray[np.str_],
) -> list[Row]:
    """What a network answers for slices that exchanged a tumour; each slice is in at most one pair.

    Args:
        images: Gives network inputs, ``[n, side, side, channels]``, for positions in ``labels``.
        labels: Classes of the test pictures.
        boxes: ``[n, 4]``: top, left, bottom, right of the tumour as fractions of the input; all 0 where not known.
        network: Who answers.
        trained_on: Classes of the training part.

    Returns:
        A row per direction; none where there are no pairs. Its ``healthy_accuracy`` is the part that is told rightly
        whether there is a tumour.
    """
    tumour = np.isin(labels, _CLASSES) & boxes.any(axis=1)
    order = np.random.default_rng(0).permutation(np.flatnonzero(tumour | (labels == HEALTHY)))
    wanted: dict[str, list[NDArray[np.str_]]] = {name: [] for name in EXCHANGED}
    given: dict[str, list[NDArray[np.str_]]] = {name: [] for name in EXCHANGED}
    for start in range(0, len(order), _AT_ONCE):
        some = order[start : start + _AT_ONCE]
        changed, new = _exchanged(images(some), labels[some], boxes[some], network.classes)
        for name, (_, was_healthy) in EXCHANGED.items():
            these = np.flatnonzero((new != labels[some]) & ((labels[some] == HEALTHY) == was_healthy))
            if these.size:
                wanted[name].append(new[these])
                given[name].append(network.answers(changed[these]))
    rows = []
    for name, (shows, was_healthy) in EXCHANGED.items():
        if wanted[name]:
            right, said = np.concatenate(wanted[name]), np.concatenate(given[name])
            row = score(name, shows, "network", right, said, trained_on=trained_on)
            rows.append(replace(row, healthy_accuracy=float(((said == HEALTHY) != was_healthy).mean())))
    return rows


def _exchanged(
    images: NDArray[np.uint8], labels: NDArray[np.str_], boxes: NDArray[np.float32], classes: NDArray[np.str_]
) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
    """Pictures whose pairs all exchanged their tumour, and what they show then."""
    targets = (labels[:, None] == classes).astype(np.float32)
    batch = Batch(tf.constant(images), tf.constant(targets), tf.constant(boxes), tf.constant(labels == HEALTHY))
    changed, now = exchange_tumours(batch, tf.constant([0, 0], tf.int64), 1.0)
    return np.rint(changed.numpy()), classes[now.numpy().argmax(axis=1)]
