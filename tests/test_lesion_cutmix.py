"""Lesion CutMix: which patches fit, what they change, and what the labels are."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from btkeras.augmentation.lesion_cutmix import draw_patches, paste
from btkeras.augmentation.patches import SIDE, Patches, PatchKind, SlicesToPatch, find_patches
from btkeras.config import AugmentConfig
from btkeras.config_io import load_config
from btkeras.datasets import load_dataset
from btkeras.errors import DataError
from btkeras.splitting.splits import make_split
from btkeras.training.pipeline import load_split_images

GLIOMA, MENINGIOMA, NO_TUMOR, PITUITARY = range(4)
LEFT, RIGHT, BELOW = (0.2, 0.1, 0.5, 0.4), (0.2, 0.6, 0.5, 0.9), (0.6, 0.3, 0.9, 0.6)
NONE = (0.0, 0.0, 0.0, 0.0)


def head(plane: int) -> np.ndarray:
    """The same noise for all slices of a plane, and darker to one side, so that a mirrored head is another."""
    noise = np.random.default_rng(plane).uniform(0, 60, (SIDE, SIDE))
    across = np.tile(np.linspace(150, 20, SIDE), (SIDE, 1))
    return (noise + np.rot90(across, -plane)).astype(np.float32)


def slices(*rows: tuple[int, tuple[float, ...], np.ndarray]) -> SlicesToPatch:
    labels, boxes, heads = zip(*rows, strict=True)
    return SlicesToPatch(np.stack(heads), np.array(boxes, np.float32), np.array(labels), NO_TUMOR, (GLIOMA, MENINGIOMA))


def found(patches: Patches, kind: PatchKind, image: int) -> list[tuple[int, bool, tuple[float, ...], int]]:
    """Source, whether it is mirrored, box and label of each patch."""
    first, count = patches.starts[kind, image], patches.counts[kind, image]
    columns = patches.sources, patches.mirrored, np.round(patches.boxes, 6).tolist(), patches.labels
    rows = [tuple(column[row] for column in columns) for row in range(first, first + count)]
    return [(int(source), bool(mirrored), tuple(box), int(label)) for source, mirrored, box, label in rows]


def test_a_tumor_is_covered_by_tissue_of_a_slice_that_looks_alike_and_has_none_there() -> None:
    patches = find_patches(
        slices(
            (GLIOMA, LEFT, head(0)),
            (GLIOMA, LEFT, head(0)),  # its own tumour is there
            (MENINGIOMA, BELOW, head(0)),
            (NO_TUMOR, NONE, head(1)),  # another plane
            (PITUITARY, NONE, head(0)),  # where its tumour is, is not known
        )
    )
    assert found(patches, PatchKind.REMOVAL, 0) == [(2, False, pytest.approx(LEFT), NO_TUMOR)]


def test_a_tumor_goes_into_slices_without_one_and_over_one_of_another_class() -> None:
    small = (0.25, 0.15, 0.45, 0.35)
    patches = find_patches(
        slices(
            (GLIOMA, LEFT, head(0)),
            (NO_TUMOR, NONE, head(0)),
            (MENINGIOMA, small, head(0)),  # is covered
            (GLIOMA, small, head(0)),  # would only be another glioma
            (MENINGIOMA, RIGHT, head(0)),  # would stay beside it
            (PITUITARY, small, head(0)),  # its place means its class
        )
    )
    assert (0, False, pytest.approx(LEFT), GLIOMA) in found(patches, PatchKind.LESION, 1)
    assert found(patches, PatchKind.LESION, 2)[0] == (0, False, pytest.approx(LEFT), GLIOMA)
    assert all(source != 0 for image in (3, 4, 5) for source, *_ in found(patches, PatchKind.LESION, image))


def test_a_mirrored_head_gets_the_mirrored_patch_at_the_mirrored_place() -> None:
    patches = find_patches(slices((GLIOMA, LEFT, head(0)), (NO_TUMOR, NONE, head(0)[:, ::-1])))
    assert found(patches, PatchKind.LESION, 1) == [(0, True, pytest.approx(RIGHT), GLIOMA)]
    assert found(patches, PatchKind.REMOVAL, 0) == [(1, True, pytest.approx(LEFT), NO_TUMOR)]


@settings(max_examples=20)
@given(st.integers(0, 2**31 - 1))
def test_no_patch_lies_about_its_class(seed: int) -> None:
    """By the boxes: tissue comes from where no tumour is, and what is left of a tumour decides the class."""
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, 0.7, (30, 2)), rng.uniform(0.1, 0.3, (30, 2))
    labels = rng.integers(0, 4, 30)
    boxes = np.where(labels[:, None] == NO_TUMOR, 0, np.concatenate([corner, corner + size], axis=1))
    heads = [head(plane)[:, :: 1 - 2 * flip] for plane, flip in rng.integers(0, 2, (30, 2))]
    known = slices(*zip(labels.tolist(), boxes.tolist(), heads, strict=True))
    patches = find_patches(known)

    def touches(image: int, box: tuple[float, ...], *, mirrored: bool) -> bool:
        top, left, bottom, right = known.boxes[image]
        left, right = (1 - right, 1 - left) if mirrored and known.boxes[image].any() else (left, right)
        return bool(top < box[2] and bottom > box[0] and left < box[3] and right > box[1])

    for image in range(30):
        for kind in PatchKind:
            for source, mirrored, box, label in found(patches, kind, image):
                lends_tumor = touches(source, box, mirrored=mirrored)
                assert lends_tumor == (kind == PatchKind.LESION)
                assert (
                    label
                    == {
                        PatchKind.BACKGROUND: labels[image],
                        PatchKind.REMOVAL: NO_TUMOR,
                        PatchKind.LESION: labels[source],
                    }[kind]
                )
                if kind == PatchKind.BACKGROUND:
                    assert not touches(image, box, mirrored=False)


def test_a_patch_gets_the_brightness_of_the_place_and_nothing_changes_beyond() -> None:
    rng = np.random.default_rng(0)
    images, sources = rng.uniform(90, 110, (2, 48, 48, 1)), rng.uniform(20, 40, (2, 48, 48, 1))
    sources[:, 16:20, 8:12] += 60  # a bright tumour, three deviations of the noise and more above its head
    pasted = paste(tf.constant(images), tf.constant(sources), tf.constant([LEFT, LEFT])).numpy()
    np.testing.assert_allclose(pasted[:, :, 25:], images[:, :, 25:], rtol=1e-6)
    np.testing.assert_allclose(pasted[:, 30:], images[:, 30:], rtol=1e-6)
    assert pasted[:, 16:20, 8:12].mean() == pytest.approx(160, abs=5)
    assert pasted[:, 11:15, 13:17].mean() == pytest.approx(100, abs=5)


def test_the_drawn_patches_have_the_shares_that_were_asked_for() -> None:
    rows = [(GLIOMA, LEFT, head(0)), (MENINGIOMA, BELOW, head(0)), (NO_TUMOR, NONE, head(0))]
    patches = find_patches(slices(*rows, (PITUITARY, NONE, head(1))))
    config = AugmentConfig(lesion_cutmix=0.3, lesion_removal=0.2, background_cutmix=0.1)
    indices = tf.constant([0, 2, 3] * 3000)
    drawn = draw_patches(patches, indices, tf.constant([0, 1], tf.int64), config).numpy().reshape(-1, 3)
    assert (drawn[:, 2] == -1).all()
    shares = [
        Counter("none" if row < 0 else "removal" if patches.labels[row] == NO_TUMOR else "tumor" for row in column)
        for column in drawn.T
    ]
    assert shares[0]["removal"] / 3000 == pytest.approx(0.2, abs=0.03)
    assert shares[1]["tumor"] / 3000 == pytest.approx(0.3, abs=0.03)
    again = draw_patches(patches, indices, tf.constant([0, 1], tf.int64), config).numpy().reshape(-1, 3)
    np.testing.assert_array_equal(drawn, again)


def test_a_dataset_without_boxes_is_rejected(shared_images) -> None:  # type: ignore[no-untyped-def]
    config = load_config(None, ("data.image_size=32", "data.channels=1", "augment.lesion_removal=0.5"))
    dataset = load_dataset(shared_images)
    with pytest.raises(DataError, match=r"lesion_removal .* need .* without a tumour's box.*the three to 0"):
        load_split_images(dataset, make_split(dataset, config.data), config)


def test_a_misspelt_class_is_rejected(shared_images) -> None:  # type: ignore[no-untyped-def]
    changes = ("data.image_size=32", "augment.lesion_cutmix=0.5", "augment.cutmix_classes=[glioma,meningoma]")
    config = load_config(None, changes)
    dataset = load_dataset(shared_images)
    with pytest.raises(DataError, match=r"cutmix_classes must be classes.*meningioma.*meningoma"):
        load_split_images(dataset, make_split(dataset, config.data), config)
