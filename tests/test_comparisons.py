"""Comparisons of models against statsmodels and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from btkeras.errors import DataError
from btkeras.metrics import Resampling, holm, mcnemar, paired_bootstrap

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=30)


def correctness(seed: int, count: int, *shares: float) -> np.ndarray:
    """Whether models are right: columns that are right about as often as told."""
    return np.random.default_rng(seed).random((count, len(shares))) < shares


@settings(max_examples=20, derandomize=True)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 200), share=st.sampled_from([0.3, 0.9, 0.99]))
def test_mcnemar_equals_statsmodels(seed: int, count: int, share: float) -> None:
    a, b = correctness(seed, count, 0.9, share).T
    table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
    found = mcnemar(a, b)
    assert [found.only_a, found.only_b] == [table[0][1], table[1][0]]
    if found.only_a + found.only_b:
        assert found.p == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue)
    assert mcnemar(b, a).p == pytest.approx(found.p)


def test_models_with_equal_answers_have_no_discordant_image() -> None:
    right = np.array([True, False, True])
    found = mcnemar(right, right)
    assert (found.only_a, found.only_b, found.p) == (0, 0, 1.0)


def test_answers_to_different_images_are_refused() -> None:
    with pytest.raises(DataError, match="same images"):
        mcnemar(np.ones(3, bool), np.ones(4, bool))


def test_holm_equals_statsmodels() -> None:
    # One call only: it collects Python's garbage each time.
    p_values = [*np.random.default_rng(0).random(20), 0.0, 1.0, 0.01, 0.01]
    assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))


@settings(max_examples=20, derandomize=True)
@given(p_values=P_VALUES)
def test_holm_keeps_the_order_and_never_lowers(p_values: list[float]) -> None:
    adjusted = np.array(holm(p_values))
    assert (adjusted >= p_values).all() and (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(p_values, kind="stable")]) >= 0).all()


def test_holm_of_nothing_is_nothing() -> None:
    assert holm([]) == []


def test_difference_of_single_images_equals_scipy() -> None:
    right = correctness(0, 600, 0.85, 0.8).astype(float)
    (found,) = paired_bootstrap(right, np.arange(600), Resampling(samples=5000))
    expected = stats.bootstrap(
        [right[:, 0] - right[:, 1]], np.mean, n_resamples=5000, method="percentile", rng=np.random.default_rng(1)
    )
    assert found.value == pytest.approx((right[:, 0] - right[:, 1]).mean())
    # The ends are percentiles of 5,000 draws of a standard deviation of 0.02.
    assert found.interval == pytest.approx(list(expected.confidence_interval), abs=0.005)
    share = np.mean(expected.bootstrap_distribution <= 0)
    assert found.p == pytest.approx(2 * min(share, 1 - share), rel=0.4, abs=0.004)


def test_p_equals_that_of_the_paired_z_test_where_that_holds() -> None:
    right = correctness(3, 3000, 0.9, 0.885).astype(float)
    difference = right[:, 0] - right[:, 1]
    z = difference.mean() / (difference.std(ddof=1) / np.sqrt(len(difference)))
    (found,) = paired_bootstrap(right, np.arange(3000), Resampling(samples=5000))
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(z)), abs=0.03)


def test_p_is_never_0_and_that_of_equal_models_is_1() -> None:
    right = np.array([[1.0, 0.0, 1.0]] * 50)
    first, second, third = paired_bootstrap(right, np.arange(50), Resampling(samples=999))
    assert (first.value, first.interval, first.p) == (1.0, [1.0, 1.0], 2 / 1000)
    assert (second.first, second.second, second.value, second.interval, second.p) == (0, 2, 0.0, [0.0, 0.0], 1.0)
    assert (third.value, third.p) == (-1.0, 2 / 1000)


def test_a_tie_of_fractions_is_a_tie() -> None:
    """One model has each image right in one of ten repetitions, another every tenth image in all of them."""
    right = np.array([[1 / 10, i % 10 == 0] for i in range(200)])
    assert right[:10, 0].cumsum()[-1] < 1
    (found,) = paired_bootstrap(right, np.arange(200) // 10, Resampling(samples=500))
    assert (found.value, found.interval, found.p) == (0.0, [0.0, 0.0], 1.0)


def test_copies_within_a_group_change_nothing() -> None:
    right, copied = correctness(5, 150, 0.9, 0.85, 0.8).astype(float), np.repeat(np.arange(150), 4)
    alone = paired_bootstrap(right, np.arange(150), Resampling())
    assert paired_bootstrap(right[copied], copied, Resampling()) == alone
    apart = paired_bootstrap(right[copied], np.arange(600), Resampling())
    widths = [found[0].interval[1] - found[0].interval[0] for found in (alone, apart)]
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.1)


def test_pairs_come_in_order_and_swapping_models_turns_the_sign() -> None:
    right = correctness(6, 200, 0.9, 0.8, 0.7).astype(float)
    found = paired_bootstrap(right, np.arange(200), Resampling())
    assert [(pair.first, pair.second) for pair in found] == [(0, 1), (0, 2), (1, 2)]
    swapped = paired_bootstrap(right[:, ::-1], np.arange(200), Resampling())[1]
    assert swapped.value == -found[1].value
    assert swapped.interval == pytest.approx([-end for end in reversed(found[1].interval)])
    assert swapped.p == found[1].p
