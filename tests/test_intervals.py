"""Intervals against statsmodels, SciPy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference
from statsmodels.stats.proportion import proportion_confint

from btkeras.errors import DataError
from btkeras.metrics import Resampling, bootstrap_weights, clustered_bootstrap, intervals, summarize, wilson
from btkeras.metrics.intervals import mean_interval, recall_metrics

CLASSES = ("glioma", "meningioma", "no_tumor", "pituitary")
FEW = Resampling(samples=30, seed=3)


def answers(seed: int, count: int, rightness: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    """Labels and predictions that are right about as often as told."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    return labels, np.where(rng.random(count) < rightness, labels, rng.integers(0, 4, count))


@settings(max_examples=20, derandomize=True)
@given(n=st.integers(1, 5000), share=st.floats(0, 1), level=st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_equals_statsmodels(n: int, share: float, level: float) -> None:
    correct = round(share * n)
    expected = proportion_confint(correct, n, alpha=1 - level, method="wilson")
    assert wilson(correct, n, level) == pytest.approx(expected)


@settings(max_examples=20, derandomize=True)
@given(n=st.integers(1, 5000), share=st.floats(0, 1))
def test_wilson_contains_the_proportion(n: int, share: float) -> None:
    correct = min(share * n, n)
    low, high = wilson(correct, n)
    assert 0 <= low <= correct / n <= high <= 1


def test_wilson_of_the_paper() -> None:
    """98.82 % of 899 images."""
    assert wilson(0.9882 * 899, 899) == pytest.approx((0.978, 0.993), abs=1e-3)


@pytest.mark.parametrize(("correct", "n"), [(-1, 5), (6, 5), (0, 0), (float("nan"), 5)])
def test_wilson_of_no_proportion_is_refused(correct: float, n: int) -> None:
    with pytest.raises(DataError, match="0 <= correct <= n"):
        wilson(correct, n)


@pytest.mark.parametrize("change", [{"samples": 0}, {"level": 1.0}, {"level": 0.0}])
def test_a_bootstrap_without_samples_or_level_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(DataError, match="at least 1 sample"):
        Resampling(**change)  # type: ignore[arg-type]


def test_a_resample_draws_as_many_groups_as_there_are() -> None:
    weights = np.concatenate(list(bootstrap_weights(40, 5000, seed=1)))
    assert weights.shape == (5000, 40)
    np.testing.assert_array_equal(weights.sum(axis=1), 40)
    # Multinomial: mean 1, variance 1 - 1/40, each within five standard errors.
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=5 / np.sqrt(5000))
    assert weights.var() == pytest.approx(1 - 1 / 40, abs=0.02)


def test_resamples_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(bootstrap_weights(30, 100, seed=1)))
    monkeypatch.setattr(intervals, "_CHUNK", 7 * 30)
    chunks = list(bootstrap_weights(30, 100, seed=1))
    assert [len(chunk) for chunk in chunks] == [7] * 14 + [2]
    np.testing.assert_array_equal(np.concatenate(chunks), whole)


def test_accuracy_interval_of_single_images_equals_scipy() -> None:
    labels, predictions = answers(0, 500)
    found = clustered_bootstrap(labels, predictions, np.arange(500), CLASSES, Resampling(samples=5000))
    expected = stats.bootstrap(
        [labels == predictions], np.mean, n_resamples=5000, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    # Two images of 500: the ends are percentiles of 5,000 draws of a standard deviation of 0.016.
    assert found["accuracy"] == pytest.approx(list(expected), abs=0.006)


def test_every_interval_equals_the_percentiles_of_scikit_learn_on_drawn_images() -> None:
    labels, predictions = answers(1, 300)
    groups = np.arange(300) // 3
    drawn = [resample_figures(labels, predictions, weights[groups]) for weights in resamples(100)]
    found = clustered_bootstrap(labels, predictions, groups, CLASSES, FEW)
    assert found["accuracy"] == pytest.approx(ends([row["accuracy"] for row in drawn]))
    for name in intervals.INTERVAL_METRICS:
        assert found[name] == pytest.approx(ends([row[name].mean() for row in drawn]))
        for i, label in enumerate(CLASSES):
            assert found["per_class"][label][name] == pytest.approx(ends([row[name][i] for row in drawn]))


def resamples(groups: int) -> np.ndarray:
    return np.concatenate(list(bootstrap_weights(groups, FEW.samples, FEW.seed))).astype(int)


def ends(values: list[float]) -> list[float]:
    return list(np.nanpercentile(values, (2.5, 97.5)))


def resample_figures(labels: np.ndarray, predictions: np.ndarray, times: np.ndarray) -> dict[str, np.ndarray]:
    """scikit-learn's figures of images repeated as often as they were drawn; NaN where undefined."""
    true, answered = np.repeat(labels, times), np.repeat(predictions, times)
    precision, recall, f1, _ = reference.precision_recall_fscore_support(
        true, answered, labels=range(4), zero_division=np.nan
    )
    negatives = [reference.recall_score(true != i, answered != i, zero_division=np.nan) for i in range(4)]
    return {
        "accuracy": reference.accuracy_score(true, answered),
        "precision": precision,
        "recall": recall,
        "specificity": np.array(negatives),
        "f1": f1,
    }


def test_a_resample_without_a_class_is_left_out_of_its_intervals() -> None:
    labels, predictions = answers(2, 40)
    rare = np.flatnonzero(labels == 3)[:2]
    labels, predictions = (np.concatenate([x[labels != 3], x[rare]]) for x in (labels, predictions))
    groups = np.arange(len(labels))
    drawn = [resample_figures(labels, predictions, weights[groups]) for weights in resamples(len(labels))]
    recalls = [row["recall"][3] for row in drawn]
    assert np.isnan(recalls).any()
    found = clustered_bootstrap(labels, predictions, groups, CLASSES, FEW)
    assert found["per_class"]["pituitary"]["recall"] == pytest.approx(ends(recalls))
    assert found["recall"] == pytest.approx(ends([row["recall"].mean() for row in drawn]))


def test_a_figure_without_a_denominator_in_the_images_is_0_throughout() -> None:
    labels, predictions = answers(3, 60)
    predictions = np.where(predictions == 2, 1, predictions)
    found = clustered_bootstrap(labels, predictions, np.arange(60), CLASSES, FEW)
    assert found["per_class"]["no_tumor"]["precision"] is None
    low, high = found["precision"]
    assert low < summarize(labels, np.eye(4)[predictions], CLASSES)["macro"]["precision"] < high


def test_where_all_resamples_agree_the_interval_is_wilsons_over_the_groups() -> None:
    labels = np.repeat([0, 1], (8, 6))
    # Two images a group: 4 groups of the first class, 3 of the second, which is never predicted.
    predictions, groups = np.zeros(14, int), np.arange(14) // 2
    found = recall_metrics(labels, predictions, groups, CLASSES, FEW)
    lower = [proportion_confint(k, n, method="wilson") for k, n in ((4, 4), (0, 3))]
    half = [np.hypot(1 - lower[0][0], 0) / 2, np.hypot(0, lower[1][1]) / 2]
    assert found["intervals"]["macro_recall"] == pytest.approx([0.5 - half[0], 0.5 + half[1]])
    assert found["intervals"]["accuracy"][0] < found["accuracy"] < found["intervals"]["accuracy"][1]
    right = clustered_bootstrap(labels, labels, groups, CLASSES[:2], FEW)
    assert right["accuracy"] == pytest.approx(proportion_confint(7, 7, method="wilson"))
    assert recall_metrics(labels, labels, groups, CLASSES, FEW)["intervals"]["accuracy"] == right["accuracy"]
    assert right["per_class"]["glioma"]["recall"] == pytest.approx(lower[0])
    # F1 is 2 J / (1 + J) of the share J.
    assert right["per_class"]["glioma"]["f1"] == pytest.approx([2 * lower[0][0] / (1 + lower[0][0]), 1])
    assert all(right[name][0] < right[name][1] == 1 for name in intervals.INTERVAL_METRICS)


def test_the_interval_of_a_mean_of_two_equal_proportions_is_narrower_by_the_root_of_two() -> None:
    low, high = mean_interval(np.array([0.5, 0.5]), [(0.3, 0.7)] * 2)
    assert (low, high) == pytest.approx((0.5 - 0.2 / np.sqrt(2), 0.5 + 0.2 / np.sqrt(2)))
    assert mean_interval(np.array([0.9]), [(0.6, 1.0)]) == pytest.approx([0.6, 1.0])


def test_where_no_resample_has_a_value_the_interval_is_wilsons_too() -> None:
    labels = np.array([0, 1])
    # The only draw of this seed is the first image twice: nothing of the second's class.
    one = Resampling(samples=1, seed=next(s for s in range(99) if next(bootstrap_weights(2, 1, s))[0, 0] == 2))
    found = clustered_bootstrap(labels, labels, np.arange(2), CLASSES[:2], one)
    expected = proportion_confint(1, 1, method="wilson")
    for label in CLASSES[:2]:
        assert found["per_class"][label]["recall"] == pytest.approx(expected)
    assert found["recall"] == pytest.approx([1 - (1 - expected[0]) / np.sqrt(2), 1])


def test_copies_within_a_group_change_nothing_and_copies_as_groups_make_it_too_narrow() -> None:
    labels, predictions = answers(4, 200)
    resampling, copied = Resampling(), np.repeat(np.arange(200), 5)
    alone = clustered_bootstrap(labels, predictions, np.arange(200), CLASSES, resampling)
    together = clustered_bootstrap(labels[copied], predictions[copied], copied, CLASSES, resampling)
    apart = clustered_bootstrap(labels[copied], predictions[copied], np.arange(1000), CLASSES, resampling)
    assert together == alone
    widths = [found["accuracy"][1] - found["accuracy"][0] for found in (alone, apart)]
    assert widths[0] / widths[1] == pytest.approx(np.sqrt(5), rel=0.1)


def test_intervals_contain_the_estimates_and_repeat_themselves() -> None:
    labels, predictions = answers(6, 400, rightness=0.9)
    groups = np.arange(400) // 7
    found = clustered_bootstrap(labels, predictions, groups, CLASSES, Resampling())
    summary = summarize(labels, np.eye(4)[predictions], CLASSES)
    assert found["accuracy"][0] < summary["accuracy"] < found["accuracy"][1]
    for name in intervals.INTERVAL_METRICS:
        assert found[name][0] < summary["macro"][name] < found[name][1]
        for label in CLASSES:
            low, high = found["per_class"][label][name]
            assert low < summary["per_class"][label][name] < high
    assert clustered_bootstrap(labels, predictions, groups, CLASSES, Resampling()) == found
    assert clustered_bootstrap(labels, predictions, groups, CLASSES, Resampling(seed=1)) != found
