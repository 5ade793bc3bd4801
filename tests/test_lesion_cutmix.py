"""Lesion CutMix: what is exchanged, what stays, and what the labels are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from btkeras.augmentation.intensity import match_histograms
from btkeras.augmentation.lesion_cutmix import CutMixBatch, lesion_cutmix
from btkeras.config_io import load_config
from btkeras.datasets import load_dataset
from btkeras.datasets.boxes import Box, boxes_in_heads, lesion_boxes
from btkeras.datasets.dataset import Record
from btkeras.errors import DataError
from btkeras.splitting.splits import make_split
from btkeras.training.pipeline import load_split_images

SIDE = 32
BOX = (0.25, 0.5, 0.5, 0.75)
CLASSES = ("glioma", "meningioma", "no_tumor", "pituitary")


def batch(tumors: int = 6, no_tumor: int = 4, others: int = 2) -> CutMixBatch:
    """Dark slices with a bright box, bright ones without tumour, and some of another class."""
    rng = np.random.default_rng(0)
    count = tumors + no_tumor + others
    images = rng.integers(20, 60, (count, SIDE, SIDE, 1)).astype(np.uint8)
    images[:tumors, 8:16, 16:24] += 150
    images[tumors : tumors + no_tumor] += 60
    boxes = np.zeros((count, 4), np.float32)
    boxes[:tumors] = BOX
    labels = np.array([i % 2 for i in range(tumors)] + [2] * no_tumor + [3] * others)
    return CutMixBatch(tf.constant(images), tf.one_hot(labels, 4), tf.constant(boxes), tf.constant(labels == 2))


def run(given: CutMixBatch, probability: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    images, targets = lesion_cutmix(given, tf.constant([0, seed], tf.int64), probability)
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
def test_without_partners_nothing_changes(given: CutMixBatch) -> None:
    images, targets = run(given)
    np.testing.assert_allclose(images, given.images.numpy(), atol=1e-3)
    np.testing.assert_array_equal(targets, given.targets.numpy())


def test_the_probability_is_that_of_a_pair() -> None:
    given = batch(tumors=50, no_tumor=50, others=0)
    counts = [(run(given, 0.3, seed)[1].argmax(1) != given.targets.numpy().argmax(1)).sum() / 2 for seed in range(8)]
    assert 11 < np.mean(counts) < 19
    assert (run(given, 0.0)[1] == given.targets.numpy()).all()


def test_it_depends_on_its_key_alone() -> None:
    given = batch()
    np.testing.assert_array_equal(run(given)[0], run(given)[0])
    assert any((run(given)[0] != run(given, seed=seed)[0]).any() for seed in range(1, 5))


def test_background_cutmix_changes_tissue_beside_the_tumor_and_no_class() -> None:
    # On the midline, so that the place beside it is that of rows 20 to 28.
    given = batch()._replace(boxes=tf.constant([[0.125, 0.375, 0.375, 0.625]] * 6 + [[0.0] * 4] * 6))
    images, targets = (result.numpy() for result in lesion_cutmix(given, tf.constant([0, 0], tf.int64), 0.0, 1.0))
    np.testing.assert_array_equal(targets, given.targets.numpy())
    change = np.abs(images - given.images.numpy()).max(axis=3) > 0.5
    changed = change.any(axis=(1, 2))
    assert changed[:6].sum() == changed[6:10].sum() == 4 and not changed[10:].any()
    assert change[:, 22:26, 14:18][changed].mean() > 0.9
    assert not change[:, :18].any()


def test_a_tumor_without_room_beside_it_gets_no_background_cutmix() -> None:
    given = batch()._replace(boxes=tf.constant([[0.3, 0.3, 0.7, 0.7]] * 6 + [[0.0] * 4] * 6))
    images, _ = lesion_cutmix(given, tf.constant([0, 0], tf.int64), 0.0, 1.0)
    np.testing.assert_allclose(images, given.images.numpy(), atol=1e-3)


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


def test_only_boxes_of_the_given_classes_count() -> None:
    records = [Record(f"{label}.png", label) for label in CLASSES]
    tumors = lesion_boxes(
        [record.label for record in records], [Box(*BOX), Box(*BOX), None, Box(*BOX)], ("glioma", "meningioma")
    )
    assert tumors.boxes.any(axis=1).tolist() == [True, True, False, False]
    assert tumors.no_tumor.tolist() == [False, False, True, False]


def test_a_dataset_without_boxes_is_rejected(shared_images) -> None:  # type: ignore[no-untyped-def]
    config = load_config(None, ("data.image_size=32", "data.channels=1", "augment.lesion_cutmix=0.5"))
    dataset = load_dataset(shared_images)
    with pytest.raises(DataError, match=r"lesion_cutmix needs .* without a tumour's box.*lesion_cutmix=0"):
        load_split_images(dataset, make_split(dataset, config.data), config)


def test_a_misspelt_class_is_rejected(shared_images) -> None:  # type: ignore[no-untyped-def]
    changes = ("data.image_size=32", "augment.lesion_cutmix=0.5", "augment.cutmix_classes=[glioma,meningoma]")
    config = load_config(None, changes)
    dataset = load_dataset(shared_images)
    with pytest.raises(DataError, match=r"cutmix_classes must be classes.*meningioma.*meningoma"):
        load_split_images(dataset, make_split(dataset, config.data), config)
