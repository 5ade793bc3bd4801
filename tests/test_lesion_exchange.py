"""Slices that exchange a tumour: what is exchanged, what stays, and what the labels are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from btkeras.audit.lesion_exchange import ExchangeBatch, exchange_lesions
from btkeras.augmentation.intensity import match_histograms
from btkeras.datasets.boxes import boxes_in_heads
from btkeras.datasets.dataset import Record
from btkeras.errors import DataError

SIDE = 32
BOX = (0.25, 0.5, 0.5, 0.75)


def batch(tumors: int = 6, no_tumor: int = 4, others: int = 2) -> ExchangeBatch:
    """Dark slices with a bright box, bright ones without tumour, and some of another class."""
    rng = np.random.default_rng(0)
    count = tumors + no_tumor + others
    images = rng.integers(20, 60, (count, SIDE, SIDE, 1)).astype(np.uint8)
    images[:tumors, 8:16, 16:24] += 150
    images[tumors : tumors + no_tumor] += 60
    boxes = np.zeros((count, 4), np.float32)
    boxes[:tumors] = BOX
    labels = np.array([i % 2 for i in range(tumors)] + [2] * no_tumor + [3] * others)
    return ExchangeBatch(tf.constant(images), tf.one_hot(labels, 4), tf.constant(boxes), tf.constant(labels == 2))


def run(given: ExchangeBatch, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    images, targets = exchange_lesions(given, tf.constant([0, seed], tf.int64))
    return images.numpy(), targets.numpy()


def test_every_pair_exchanges_box_and_class() -> None:
    given = batch()
    images, targets = run(given)
    before, labels, now = given.images.numpy().astype(float), given.targets.numpy().argmax(1), targets.argmax(1)
    changed = np.flatnonzero(labels != now)
    with_tumor, without = changed[labels[changed] != 2], changed[labels[changed] == 2]
    # Four slices without tumour, so four pairs; each class is there as often as before.
    assert len(with_tumor) == len(without) == 4
    np.testing.assert_array_equal(np.sort(labels), np.sort(now))
    assert set(now[with_tumor]) == {2} and set(now[without]) <= {0, 1}
    center = np.s_[:, 10:14, 18:22]
    # Its level is the other slice's: as bright as the brightest there.
    assert (images[without][center].mean(axis=(1, 2, 3)) > before[without].mean(axis=(1, 2, 3)) + 10).all()
    assert (images[with_tumor][center] < 205).all() and images[with_tumor][center].mean() < before[with_tumor][
        center
    ].mean() - 20
    outside = np.ones((SIDE, SIDE), bool)
    outside[6:18, 14:26] = False
    np.testing.assert_allclose(images[:, outside], before[:, outside], atol=1e-3)


def test_images_outside_of_pairs_stay_as_they_are() -> None:
    given = batch()
    images, targets = run(given)
    kept = given.targets.numpy().argmax(1) == targets.argmax(1)
    assert kept[-2:].all() and kept.sum() == 4
    np.testing.assert_allclose(images[kept], given.images.numpy()[kept], atol=1e-3)


@pytest.mark.parametrize("given", [batch(no_tumor=0), batch(tumors=0)], ids=["no slice without", "no tumour"])
def test_without_partners_nothing_changes(given: ExchangeBatch) -> None:
    images, targets = run(given)
    np.testing.assert_allclose(images, given.images.numpy(), atol=1e-3)
    np.testing.assert_array_equal(targets, given.targets.numpy())


def test_it_depends_on_its_key_alone() -> None:
    given = batch()
    np.testing.assert_array_equal(run(given)[0], run(given)[0])
    assert any((run(given)[0] != run(given, seed=seed)[0]).any() for seed in range(1, 5))


def test_matched_histograms_have_the_others_quantiles() -> None:
    rng = np.random.default_rng(0)
    images, others = rng.uniform(0, 1, (2, 64, 64, 1)), rng.beta(2, 5, (2, 64, 64, 1))
    matched = match_histograms(tf.constant(images, tf.float32), tf.constant(others, tf.float32)).numpy()
    levels = np.linspace(0, 0.95, 20)
    for result, wanted, own in zip(matched, others, images, strict=True):
        np.testing.assert_allclose(np.quantile(result, levels), np.quantile(wanted, levels), atol=0.02)
        # Ranks stay.
        order = np.argsort(own.ravel())
        assert (np.diff(result.ravel()[order]) >= 0).all()


def test_boxes_of_records() -> None:
    record = Record("a.png", "glioma", extra={"box": "0.5 0.25 0.2 0.1"})
    assert record.box == pytest.approx((0.2, 0.4, 0.3, 0.6))
    assert Record("b.png", "no_tumor").box is None
    with pytest.raises(DataError, match=r"four fractions.*'0.5' for c.png"):
        _ = Record("c.png", "glioma", extra={"box": "0.5"}).box


def test_boxes_move_with_the_crop_to_the_head(tmp_path: Path) -> None:
    pixels = np.zeros((100, 200), np.uint8)
    pixels[10:60, 40:140] = np.random.default_rng(0).integers(80, 200, (50, 100))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    # The tumour fills rows 20 to 30 and columns 60 to 80.
    records = [Record("a.png", "glioma", extra={"box": "0.35 0.25 0.1 0.1"}), Record("a.png", "no_tumor")]
    assert boxes_in_heads([tmp_path / record.path for record in records], [record.box for record in records]) == [
        pytest.approx((0.2, 0.2, 0.4, 0.4), abs=0.02),
        None,
    ]
