"""Local binary patterns: against plain NumPy, turned images, and what the classifiers learn."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from sklearn.metrics import log_loss

from btkeras.errors import DataError, ModelError
from btkeras.models import lbp


def noise(count: int, side: int = 40, channels: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def textures(per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Stripes, a chequerboard and flat images, each under noise and turned at random."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((32, 32)) // 4 % 2
    patterns = (rows, rows ^ columns, np.zeros_like(rows))
    labels = np.repeat(np.arange(3), per_class)
    images = [np.rot90(40 + 120 * patterns[k] + rng.integers(0, 40, (32, 32)), rng.integers(4)) for k in labels]
    return np.array(images, np.uint8)[..., np.newaxis], labels


def numpy_codes(image: np.ndarray) -> np.ndarray:
    """Uniform patterns at radius 1, straight from their definition: one pixel and one neighbour at a time."""
    padded = np.pad(image.astype(float), 2)
    codes = np.empty(image.shape, int)
    for row, column in np.ndindex(image.shape):
        brighter = []
        for k in range(8):
            y, x = row + 2 - np.sin(k * np.pi / 4), column + 2 + np.cos(k * np.pi / 4)
            # The corners lie between four pixels; the rest on one.
            y, x = (round(value) if abs(value - round(value)) < 1e-9 else value for value in (y, x))
            top, left = int(np.floor(y)), int(np.floor(x))
            v, u = y - top, x - left
            upper = (1 - u) * padded[top, left] + u * padded[top, left + 1]
            lower = (1 - u) * padded[top + 1, left] + u * padded[top + 1, left + 1]
            brighter.append((1 - v) * upper + v * lower >= padded[row + 2, column + 2])
        changes = sum(brighter[k] != brighter[k - 1] for k in range(8))
        codes[row, column] = sum(brighter) if changes <= 2 else 9
    return codes


def test_the_codes_of_radius_1_equal_their_definition() -> None:
    image = noise(1, side=17)
    expected = np.bincount(numpy_codes(image[0, ..., 0]).ravel(), minlength=10) / 17**2
    np.testing.assert_allclose(lbp.features(image)[0, :10], expected, atol=1e-12)


def test_features_are_shares_per_radius() -> None:
    found = lbp.features(noise(3))
    assert found.shape == (3, 54) == (3, lbp.FEATURES)
    for part in np.split(found, [10, 28], axis=1):
        np.testing.assert_allclose(part.sum(axis=1), 1)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_features_do_not_change_when_an_image_is_turned(turns: int) -> None:
    """But for the rounding of interpolated neighbours that are as bright as the pixel: 1 pixel of 1,000."""
    images = np.concatenate([noise(2, side=32), textures(1, seed=0)[0]])
    turned = np.rot90(images, turns, axes=(1, 2))
    np.testing.assert_allclose(lbp.features(turned), lbp.features(images), atol=1e-3)


@pytest.mark.parametrize("name", lbp.CLASSIFIERS)
def test_classifiers_learn_textures_and_repeat_themselves(name: str) -> None:
    train, labels = textures(12, seed=1)
    held_out, targets = textures(6, seed=2)
    classifier = lbp.fit_lbp(lbp.CLASSIFIERS[name], train, labels, held_out, targets, seed=3)
    test, truth = textures(8, seed=4)
    probabilities = classifier.probabilities(test)
    assert probabilities.shape == (24, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), truth)
    assert log_loss(truth, probabilities) < 0.2
    assert classifier.validation_accuracy == 1
    again = lbp.fit_lbp(lbp.CLASSIFIERS[name], train, labels, held_out, targets, seed=3)
    np.testing.assert_array_equal(again.probabilities(test), probabilities)
    assert str(again) == str(classifier)


def test_the_first_of_equal_settings_is_taken() -> None:
    train, labels = textures(12, seed=1)
    classifier = lbp.fit_lbp("knn", train, labels, train, labels)
    assert classifier.settings == lbp.GRIDS["knn"][0]
    assert str(classifier) == "knn with n_neighbors=9 (validation accuracy 1.0000)"


def test_votes_are_shares_of_the_neighbours() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    classifier = lbp.fit_lbp("knn", noise(60), labels, noise(20, seed=1), rng.integers(0, 3, 20))
    votes = classifier.probabilities(noise(10, seed=2)) * classifier.settings["n_neighbors"]
    np.testing.assert_allclose(votes, np.round(votes), atol=1e-9)


def test_the_svm_answers_with_the_class_of_the_highest_decision_value() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    classifier = lbp.fit_lbp("svm", noise(60), labels, noise(20, seed=1), rng.integers(0, 3, 20))
    test = noise(30, seed=2)
    plain = lbp.make_classifier("svm", classifier.settings).fit(lbp.features(noise(60)), labels)
    decisions = plain.decision_function(lbp.features(test))
    np.testing.assert_array_equal(classifier.probabilities(test).argmax(axis=1), decisions.argmax(axis=1))


@pytest.mark.parametrize("kind", lbp.GRIDS)
def test_a_tiny_dataset_is_enough(kind: str) -> None:
    train, labels = textures(2, seed=5)
    assert lbp.fit_lbp(kind, train, labels, train, labels).probabilities(train).shape == (6, 3)


def test_a_class_with_one_image_is_refused() -> None:
    train, labels = textures(2, seed=5)
    with pytest.raises(DataError, match="at least 2 training images"):
        lbp.fit_lbp("svm", train[1:], labels[1:], train, labels)


def test_an_unknown_kind_is_refused() -> None:
    train, labels = textures(2, seed=5)
    with pytest.raises(ModelError, match="one of knn, svm"):
        lbp.fit_lbp("forest", train, labels, train, labels)


@pytest.mark.parametrize(
    "images", [noise(1)[0], noise(1, channels=3), noise(1) / 255], ids=["rank", "channels", "type"]
)
def test_other_arrays_are_refused(images: np.ndarray) -> None:
    with pytest.raises(DataError, match="uint8 of the shape"):
        lbp.features(images)


def test_a_missing_scikit_image_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.feature", None)
    with pytest.raises(ModelError, match=r"btkeras\[classical\]"):
        lbp.features(noise(1))
