"""Batches as functions of (seed, epoch, position), whatever the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from btkeras.augmentation.patches import Patches, SlicesToPatch, find_patches
from btkeras.config import AugmentConfig, DataConfig, ExperimentConfig, IntensityConfig, TrainConfig
from btkeras.datasets import load_dataset
from btkeras.errors import DataError
from btkeras.preprocessing.cache import ImageCache
from btkeras.preprocessing.preprocessor import Preprocessor
from btkeras.preprocessing.resize import resize
from btkeras.splitting.splits import make_split
from btkeras.training.pipeline import (
    SplitImages,
    evaluation_batches,
    load_split_images,
    steps_per_epoch,
    stored_size,
    training_batches,
)
from tests.conftest import CLASSES
from tests.images import scene

PLAIN = IntensityConfig()
STILL = AugmentConfig(crop=(1.0, 1.0), horizontal_flip=False, vertical_flip=False, brightness=0.0)
COUNT, SIDE = 23, 32
Batches = list[tuple[NDArray[np.float32], NDArray[np.float32]]]


def cache_of(count: int = COUNT, side: int = SIDE) -> ImageCache:
    """Images that carry their own number in every pixel's last channel."""
    images = np.stack([scene(side, side, seed) for seed in range(count)])
    images[..., 2] = np.arange(count)[:, None, None]
    return ImageCache(images, (side, 3), np.arange(count), {}, np.zeros((3, 256), np.int64), "here")


LABELS = [number % 4 for number in range(COUNT)]


def training(
    epochs: range,
    *,
    seed: int = 0,
    batch_size: int = 5,
    augmentation: AugmentConfig = STILL,
    intensity: IntensityConfig = PLAIN,
    patches: Patches | None = None,
    cache: ImageCache | None = None,
) -> tf.data.Dataset:
    config = ExperimentConfig(
        data=DataConfig(image_size=SIDE),
        augment=augmentation,
        intensity=intensity,
        train=TrainConfig(seed=seed, batch_size=batch_size),
    )
    data = SplitImages(CLASSES, {"train": cache or cache_of()}, {"train": LABELS}, {}, patches)
    return training_batches(data, config, epochs)


def batches(dataset: tf.data.Dataset) -> Batches:
    return [(images.numpy(), labels.numpy()) for images, labels in dataset]


def order(dataset: tf.data.Dataset) -> list[int]:
    return [int(image[0, 0, 2]) for images, _ in batches(dataset) for image in images]


def assert_equal(first: Batches, second: Batches) -> None:
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_training_batches_have_the_declared_types_and_their_own_labels() -> None:
    dataset = training(range(1))
    assert dataset.element_spec[0].dtype == dataset.element_spec[1].dtype == tf.float32
    for images, labels in batches(dataset):
        assert images.shape == (5, SIDE, SIDE, 3)
        assert (labels.sum(axis=1) == 1).all()
        assert labels.argmax(axis=1).tolist() == [int(image[0, 0, 2]) % 4 for image in images]


def test_without_augmentation_training_sees_what_evaluation_sees() -> None:
    evaluated = np.concatenate([images for images, _ in batches(evaluation_batches(cache_of(), LABELS, 4, 6))])
    for images, _ in batches(training(range(2))):
        for image in images:
            np.testing.assert_array_equal(image, evaluated[int(image[0, 0, 2])])


@pytest.mark.parametrize("batch_size", [1, 4, 5, 22, 23])
def test_an_epoch_visits_each_image_at_most_once(batch_size: int) -> None:
    steps = steps_per_epoch(COUNT, batch_size)
    seen = order(training(range(3), batch_size=batch_size))
    epoch = steps * batch_size
    assert len(seen) == 3 * epoch
    for start in range(0, 3 * epoch, epoch):
        assert len(set(seen[start : start + epoch])) == epoch


@pytest.mark.parametrize(("count", "batch", "steps"), [(23, 5, 4), (20, 5, 4), (5, 5, 1), (3, 64, 1), (1, 1, 1)])
def test_the_last_smaller_batch_is_dropped_unless_it_is_the_only_one(count: int, batch: int, steps: int) -> None:
    assert steps_per_epoch(count, batch) == steps


def test_a_batch_larger_than_the_dataset_is_the_dataset() -> None:
    seen = order(training(range(2), batch_size=64))
    assert len(seen) == 2 * COUNT
    assert sorted(seen[:COUNT]) == sorted(seen[COUNT:]) == list(range(COUNT))


def test_a_single_image_can_be_trained_on() -> None:
    assert order(training(range(3), cache=cache_of(1))) == [0, 0, 0]


def test_order_differs_between_epochs_and_between_seeds() -> None:
    first, second = np.split(np.array(order(training(range(2), batch_size=COUNT))), 2)
    other = order(training(range(1), batch_size=COUNT, seed=1))
    assert len({tuple(first), tuple(second), tuple(other), tuple(range(COUNT))}) == 4


def test_every_image_comes_at_every_place_of_an_epoch() -> None:
    epochs = np.array(order(training(range(400), cache=cache_of(8), batch_size=8))).reshape(400, 8)
    counts = np.stack([np.bincount(epochs[:, place], minlength=8) for place in range(8)])
    # 50 each are expected; five standard deviations are 33.
    assert counts.min() > 17
    assert counts.max() < 83


@pytest.mark.parametrize("cores", [1, 7, None])
def test_batches_do_not_depend_on_the_number_of_cores(monkeypatch: pytest.MonkeyPatch, cores: int | None) -> None:
    here = batches(training(range(2), augmentation=AugmentConfig()))
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert_equal(batches(training(range(2), augmentation=AugmentConfig())), here)


def test_a_later_start_sees_what_the_uninterrupted_run_sees() -> None:
    whole = batches(training(range(4), augmentation=AugmentConfig(), seed=2))
    assert_equal(batches(training(range(2, 4), augmentation=AugmentConfig(), seed=2)), whole[8:])


def test_augmentation_differs_between_epochs() -> None:
    alike = [batches(training(range(e, e + 1), augmentation=AugmentConfig(), batch_size=COUNT))[0][0] for e in (0, 1)]
    assert all((alike[0][i] != alike[1][j]).any() for i in range(COUNT) for j in range(COUNT))


def test_a_cache_of_larger_images_gives_batches_of_the_asked_size() -> None:
    for images, _ in batches(training(range(1), cache=cache_of(side=40), augmentation=AugmentConfig())):
        assert images.shape[1:] == (SIDE, SIDE, 3)
        assert images.min() >= 0
        assert images.max() <= 255


def test_positions_and_not_files_are_what_broken_images_shift() -> None:
    whole = cache_of()
    usable = np.delete(np.arange(COUNT), [0, 7])
    cache = ImageCache(whole.images, whole.shape, usable, {}, whole.histogram, "here")
    assert order(evaluation_batches(cache, [0] * 21, 4, 8)) == usable.tolist()


@pytest.mark.parametrize(("batch_size", "sizes"), [(5, [5, 5, 5, 5, 3]), (23, [23]), (64, [23]), (1, [1] * 23)])
def test_evaluation_sees_every_image_once_and_in_order(batch_size: int, sizes: list[int]) -> None:
    cache = cache_of()
    seen = batches(evaluation_batches(cache, LABELS, 4, batch_size))
    assert [len(images) for images, _ in seen] == sizes
    np.testing.assert_array_equal(np.concatenate([images for images, _ in seen]), cache.take(np.arange(COUNT)))
    assert np.concatenate([labels for _, labels in seen]).argmax(axis=1).tolist() == LABELS


def test_the_same_from_a_store_on_disk(tmp_path: Path) -> None:
    here = cache_of()
    np.save(tmp_path / "images.npy", here.take(np.arange(COUNT)))
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    there = ImageCache(images, here.shape, here.usable, {}, here.histogram, "there")
    paper = AugmentConfig()
    assert_equal(
        batches(training(range(1), cache=there, augmentation=paper)), batches(training(range(1), augmentation=paper))
    )


@pytest.mark.parametrize(
    ("augmentation", "intensity"),
    [
        (AugmentConfig(), PLAIN),
        (
            AugmentConfig(rotation=20, aspect_ratio=0.2, lesion_cutmix=0.5, lesion_removal=0.5),
            IntensityConfig(histogram=1, curve=0.5, noise=0.2, blur=0.5),
        ),
    ],
    ids=["paper", "everything"],
)
def test_grey_images_kept_with_one_channel_give_the_same_batches(
    augmentation: AugmentConfig, intensity: IntensityConfig
) -> None:
    grey = np.stack([scene(40, 40, seed)[..., :1] for seed in range(COUNT)])
    shape, usable, histogram = (40, 3), np.arange(COUNT), np.zeros((3, 256), np.int64)
    boxes = np.tile(np.float32([0.1, 0.1, 0.4, 0.4]), (COUNT, 1)) * (np.array(LABELS) != 2)[:, None]
    # One head for all, so that every slice has patches.
    thumbnails = np.tile(resize(grey[0], 24)[None, ..., 0].astype(np.float32), (COUNT, 1, 1))
    seen = [
        batches(
            training(
                range(1),
                seed=3,
                batch_size=6,
                augmentation=augmentation,
                intensity=intensity,
                patches=find_patches(SlicesToPatch(thumbnails, boxes, np.array(LABELS), 2, (0, 1))),
                cache=cache,
            )
        )
        for cache in (
            ImageCache(grey, shape, usable, {}, histogram, "here"),
            ImageCache(np.repeat(grey, 3, axis=-1), shape, usable, {}, histogram, "here"),
        )
    ]
    assert seen[0][0][0].shape == (6, SIDE, SIDE, 3)
    assert_equal(*seen)
    # Which a training relies on: its first convolutions look at one channel.
    assert all(np.ptp(images, axis=-1).max() == 0 for images, _ in seen[1])


def test_evaluation_of_grey_images_sees_all_channels() -> None:
    grey = np.stack([scene(SIDE, SIDE, seed)[..., :1] for seed in range(COUNT)])
    cache = ImageCache(grey, (SIDE, 3), np.arange(COUNT), {}, np.zeros((3, 256), np.int64), "here")
    images = np.concatenate([images for images, _ in batches(evaluation_batches(cache, LABELS, 4, 5))])
    np.testing.assert_array_equal(images, np.repeat(grey, 3, axis=-1))


def test_nothing_waits_for_a_tuner_and_order_is_kept() -> None:
    for dataset in (training(range(1)), evaluation_batches(cache_of(), LABELS, 4, 5)):
        assert dataset.options().autotune.enabled is False
        assert dataset.options().deterministic is True


def test_a_process_ends_while_an_iterator_that_nobody_ends_reads_ahead() -> None:
    code = """
import sys, time
from btkeras.preprocessing.cache import ImageCache
from tests.test_pipeline import training
taken = ImageCache.take_stored
def slow(cache, positions):
    time.sleep(0.3)
    return taken(cache, positions)
ImageCache.take_stored = slow
kept = [iter(training(range(9)))]
next(kept[0])
kept.append(kept)
del kept
sys.exit(7)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], timeout=300).returncode == 7


@pytest.mark.parametrize(
    ("low", "size", "stored"), [(0.8, 224, 280), (1.0, 224, 224), (0.5, 224, 336), (0.1, 224, 336), (0.9, 32, 36)]
)
def test_images_are_stored_so_large_that_crops_are_not_enlarged(low: float, size: int, stored: int) -> None:
    assert stored_size(size, AugmentConfig(crop=(low, 1.0))) == stored


# --- From a dataset and a split ---


@pytest.fixture
def load(image_folder: Path, tiny_config: Callable[..., ExperimentConfig]) -> Callable[..., SplitImages]:
    def load(*overrides: str, skip_broken: bool = False) -> SplitImages:
        config, dataset = tiny_config(*overrides), load_dataset(image_folder)
        return load_split_images(dataset, make_split(dataset, config.data), config, skip_broken=skip_broken)

    return load


def test_training_images_are_kept_larger_than_the_others(load: Callable[..., SplitImages]) -> None:
    images = load("augment.crop=[0.8, 1.0]")
    assert {subset: cache.shape for subset, cache in images.caches.items()} == {
        "train": (40, 1),
        "validation": (32, 1),
        "test": (32, 1),
    }
    assert {subset: len(labels) for subset, labels in images.labels.items()} == {
        "train": 32,
        "validation": 8,
        "test": 8,
    }
    assert images.labels["test"] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_the_test_subset_is_read_but_takes_no_memory(
    image_folder: Path, tiny_config: Callable[..., ExperimentConfig], load: Callable[..., SplitImages]
) -> None:
    assert {subset: "in memory" in cache.location for subset, cache in load("data.cache=memory").caches.items()} == {
        "train": True,
        "validation": True,
        "test": False,
    }
    config, dataset = tiny_config("data.cache=memory"), load_dataset(image_folder)
    split = make_split(dataset, config.data)
    kept = load_split_images(dataset, split, config, cache_test=True).caches["test"]
    assert "in memory" in kept.location
    np.testing.assert_array_equal(
        kept.take(np.arange(len(kept))), [Preprocessor(32, 1).file(dataset.root / record.path) for record in split.test]
    )


def test_broken_images_of_a_dataset_are_named_unless_they_are_skipped(
    image_folder: Path, load: Callable[..., SplitImages]
) -> None:
    (image_folder / "glioma" / "003.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 broken:\n  .*glioma/003\.png.*again\. Mend.*--skip-broken"):
        load()
    images = load(skip_broken=True)
    assert list(images.broken) == ["glioma/003.png"]
    for subset, cache in images.caches.items():
        assert len(cache) == len(images.labels[subset])
    assert sum(labels.count(0) for labels in images.labels.values()) == 11


def test_many_broken_images_are_counted(image_folder: Path, load: Callable[..., SplitImages]) -> None:
    for path in sorted(image_folder.glob("*/*.png"))[:25]:
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"25 broken:(?s:.*)and 5 more"):
        load()


def test_a_class_that_is_lost_to_broken_images_is_an_error(
    image_folder: Path, load: Callable[..., SplitImages]
) -> None:
    for path in (image_folder / "no_tumor").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="no readable no_tumor in train"):
        load(skip_broken=True)
