"""Tumours moved between slices: a network that sees them and one that sees the slice around them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from btkeras.audit.shortcut_network import Predict, exchange_rows
from btkeras.audit.shortcuts import EXCHANGED

CLASSES = np.array(["glioma", "meningioma", "no_tumor", "pituitary"])
PUT_IN, TAKEN_OUT = EXCHANGED
SIDE = 32


def slices() -> tuple[NDArray[np.uint8], NDArray[np.str_], NDArray[np.float32]]:
    """Gliomas as bright boxes on dark noise, tumour-free slices of another scanner, and a class that takes no part."""
    rng = np.random.default_rng(0)
    labels = np.array(["glioma"] * 30 + ["no_tumor"] * 20 + ["pituitary"] * 5)
    images = rng.integers(20, 60, (len(labels), SIDE, SIDE, 1)).astype(np.uint8)
    # The other scanner leaves a bright rim.
    images[labels == "no_tumor", :2] = 200
    images[labels == "glioma", 8:16, 16:24] += 150
    boxes = np.zeros((len(labels), 4), np.float32)
    boxes[labels == "glioma"] = (0.25, 0.5, 0.5, 0.75)
    return images, labels, boxes


def one_hot(no_tumor: NDArray[np.bool_]) -> NDArray[np.float32]:
    return np.eye(4, dtype=np.float32)[np.where(no_tumor, 2, 0)]


def by_tumor(images: NDArray[np.float32]) -> NDArray[np.float32]:
    inside = images[:, 10:14, 18:22].mean(axis=(1, 2, 3))
    return one_hot(inside < images[:, 20:].mean(axis=(1, 2, 3)) + 25)


def by_scanner(images: NDArray[np.float32]) -> NDArray[np.float32]:
    return one_hot(images[:, :2].mean(axis=(1, 2, 3)) > 100)


def predictor(network: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Predict:
    return lambda images: CLASSES[network(images.astype(np.float32)).argmax(axis=1)]


@pytest.mark.parametrize(("network", "right"), [(by_tumor, 1.0), (by_scanner, 0.0)])
def test_it_tells_who_sees_the_tumor(network, right: float) -> None:  # type: ignore[no-untyped-def]
    images, labels, boxes = slices()
    assert (CLASSES[network(images[:50].astype(np.float32)).argmax(1)] == labels[:50]).all()
    rows = exchange_rows(lambda chosen: images[chosen], labels, boxes, predictor(network), CLASSES, trained_on=labels)
    assert [row.name for row in rows] == [PUT_IN, TAKEN_OUT]
    for row in rows:
        # As many pairs as there are slices of the rarer kind.
        assert row.images == 20
        assert row.accuracy == row.detection_accuracy == pytest.approx(right, abs=0.1)


def test_without_boxes_or_tumor_free_slices_there_are_no_rows() -> None:
    images, labels, boxes = slices()
    predict = predictor(by_tumor)
    assert exchange_rows(lambda chosen: images[chosen], labels, 0 * boxes, predict, CLASSES, trained_on=labels) == []
    some = labels != "no_tumor"
    given = images[some]
    rows = exchange_rows(lambda chosen: given[chosen], labels[some], boxes[some], predict, CLASSES, trained_on=labels)
    assert rows == []
