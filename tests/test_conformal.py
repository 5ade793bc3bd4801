"""Conformal sets: thresholds by hand, and coverage on exchangeable data within its interval."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import betabinom

from btkeras.decisions.calibration import (
    Calibration,
    conformal_threshold,
    nonconformity_scores,
    prediction_sets,
    set_metrics,
)
from btkeras.errors import ConfigError


def exchangeable(n: int, rng: np.random.Generator, sharpness: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities of a network that is far too sure of itself: coverage must not depend on that."""
    labels = rng.integers(0, 4, n)
    logits = rng.normal(0, 1, (n, 4)) + 1.5 * np.eye(4)[labels]
    return labels, softmax(sharpness * logits, axis=1)


@pytest.mark.parametrize(
    ("n", "coverage", "expected"),
    # Of scores 1/n, 2/n ... 1 less a little; 19 images are just enough for 95 %, and 18 too few.
    [(19, 0.95, 18), (18, 0.95, None), (99, 0.99, 98), (98, 0.99, None), (9, 0.9, 8), (999, 0.9, 899), (1, 0.5, 0)],
)
def test_the_threshold_is_the_score_of_the_finite_sample_rank(n: int, coverage: float, expected: int | None) -> None:
    scores = np.linspace(0.1, 0.9, n)
    assert conformal_threshold(scores, coverage) == (1 if expected is None else scores[expected])


def test_too_few_images_give_every_class() -> None:
    calibration = Calibration(1.0, (0.1, 0.2, 0.3), 1.0, 1.0)
    probabilities = np.array([[1.0, 0.0, 0.0]], np.float32)
    assert calibration.sets(probabilities, 0.95).all()
    assert calibration.sets(probabilities, 0.75).tolist() == [[True, False, False]]


@pytest.mark.parametrize("coverage", [0.0, 1.0, -1.0, 95.0, float("nan")])
def test_a_coverage_out_of_range_is_refused(coverage: float) -> None:
    with pytest.raises(ConfigError, match="above 0 and below 1"):
        Calibration(1.0, (0.1,), 1.0, 1.0).threshold(coverage)


def test_sets_hold_what_is_within_the_threshold_and_may_be_empty() -> None:
    probabilities = np.array([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.4, 0.3, 0.3]])
    assert prediction_sets(probabilities, 0.5).tolist() == [[True, False, False], [True, True, False], [False] * 3]
    assert prediction_sets(probabilities, 0.1).tolist() == [[True, False, False], [False] * 3, [False] * 3]


def test_float32_answers_get_the_sets_of_the_scores_made_from_them() -> None:
    rng = np.random.default_rng(5)
    labels, probabilities = exchangeable(200, rng, sharpness=20)
    probabilities = probabilities.astype(np.float32)
    scores = nonconformity_scores(labels, probabilities)
    for rank in (150, 160, 170):
        hit = prediction_sets(probabilities, scores[rank])[np.arange(200), labels]
        # Those that are equal to the threshold are within it.
        assert hit.sum() == np.searchsorted(scores, scores[rank], side="right")


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_coverage_on_exchangeable_data_is_within_its_interval(coverage: float) -> None:
    n, m, repeats = 199, 300, 30
    rng = np.random.default_rng(11)
    rank = int(np.ceil((n + 1) * coverage - 1e-9))
    expected = betabinom(m, rank, n + 1 - rank)
    hits = []
    for _ in range(repeats):
        labels, probabilities = exchangeable(n + m, rng)
        calibration = Calibration(1.0, tuple(nonconformity_scores(labels[:n], probabilities[:n]).tolist()), 1.0, 1.0)
        sets = calibration.sets(probabilities[n:], coverage)
        hits.append(int(sets[np.arange(m), labels[n:]].sum()))
    low, high = expected.ppf([0.005, 0.995])
    # Half a hit's worth is expected outside; 5 have a chance below one in a thousand.
    assert sum(not low <= hit <= high for hit in hits) < 5
    assert np.mean(hits) == pytest.approx(expected.mean(), abs=4 * expected.std() / np.sqrt(repeats))


@given(st.integers(1, 60), st.floats(0.01, 0.99), st.integers(0, 2**32 - 1))
def test_a_higher_coverage_never_takes_a_class_away(n: int, coverage: float, seed: int) -> None:
    labels, probabilities = exchangeable(n, np.random.default_rng(seed))
    calibration = Calibration(1.0, tuple(nonconformity_scores(labels, probabilities).tolist()), 1.0, 1.0)
    narrow = calibration.sets(probabilities, coverage)
    wide = calibration.sets(probabilities, min(0.999, coverage + 0.01))
    assert (wide >= narrow).all()
    # On the calibration's own images, at least the wanted share is covered.
    assert narrow[np.arange(n), labels].mean() >= coverage - 1e-9


def test_figures_of_sets_by_hand() -> None:
    labels = np.array([0, 0, 1, 1])
    sets = np.array([[1, 0, 0], [0, 0, 0], [1, 0, 0], [1, 1, 0]], bool)
    assert set_metrics(labels, sets) == {
        "covered": 0.5,
        "covered_by_class": [0.5, 0.5, None],
        "mean_size": 1.0,
        "empty": 0.25,
        "single": 0.5,
        "single_right": 0.5,
    }
    assert set_metrics(labels, np.zeros((4, 3), bool))["single_right"] is None
