"""Figures against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from btkeras import metrics

CLASSES = ("glioma", "meningioma", "no_tumor", "pituitary")


def answers(seed: int, count: int, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, classes, count), rng.dirichlet(np.ones(classes), count)


@settings(max_examples=20, derandomize=True)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 60))
def test_per_class_and_macro_figures_equal_scikit_learn(seed: int, count: int) -> None:
    labels, probabilities = answers(seed, count)
    predictions = probabilities.argmax(axis=1)
    summary = metrics.summarize(labels, probabilities, CLASSES)
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        labels, predictions, labels=range(4), zero_division=0
    )
    for i, name in enumerate(CLASSES):
        row = summary["per_class"][name]
        assert (row["precision"], row["recall"], row["f1"]) == pytest.approx((precision[i], recall[i], f1[i]))
        assert row["images"] == support[i]
    assert summary["macro"]["f1"] == pytest.approx(f1.mean())
    assert summary["accuracy"] == pytest.approx(reference.accuracy_score(labels, predictions))


@settings(max_examples=20, derandomize=True)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 60))
def test_accuracy_and_specificity_of_a_class_are_those_of_one_against_the_rest(seed: int, count: int) -> None:
    labels, probabilities = answers(seed, count)
    predictions = probabilities.argmax(axis=1)
    figures = metrics.class_metrics(metrics.confusion_matrix(labels, predictions, 4))
    for i in range(4):
        assert figures["accuracy"][i] == pytest.approx(reference.accuracy_score(labels == i, predictions == i))
        negatives = reference.recall_score(labels != i, predictions != i, zero_division=0)
        assert figures["specificity"][i] == pytest.approx(negatives)


def test_confusion_matrix_has_true_classes_in_rows() -> None:
    labels, probabilities = answers(3, 50)
    predictions = probabilities.argmax(axis=1)
    expected = reference.confusion_matrix(labels, predictions, labels=range(4))
    np.testing.assert_array_equal(metrics.confusion_matrix(labels, predictions, 4), expected)


def test_negative_log_likelihood_equals_log_loss() -> None:
    labels, probabilities = answers(5, 200)
    expected = reference.log_loss(labels, probabilities, labels=range(4))
    assert metrics.negative_log_likelihood(labels, probabilities) == pytest.approx(expected)


def test_negative_log_likelihood_of_a_certain_mistake_is_finite() -> None:
    certain = np.array([[0.0, 1.0]])
    assert metrics.negative_log_likelihood(np.array([0]), certain) == pytest.approx(-np.log(1e-7))
