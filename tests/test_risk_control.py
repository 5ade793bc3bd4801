"""Learn then Test: thresholds by hand and by a plain loop with SciPy's tests, and the promise on drawn data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from btkeras.metrics.risk_control import LEAST_COVERAGE, control_risk


def looped(confidences: np.ndarray, right: np.ndarray, risk: float, level: float) -> float | None:
    """The threshold by a loop over numbers of covered images, each tested by SciPy's exact test."""
    found, ordered = None, sorted(confidences, reverse=True)
    least = next(n for n in range(1, 10_000) if binomtest(0, n, risk, "less").pvalue <= 1 - level)
    first = max(least, math.ceil(LEAST_COVERAGE * len(ordered)))
    for count in np.linspace(first, len(ordered), 70):
        threshold = ordered[round(count) - 1]
        chosen = confidences >= threshold
        if binomtest(int((~right[chosen]).sum()), int(chosen.sum()), risk, "less").pvalue > 1 - level:
            return found
        found = threshold
    return found


def drawn(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and predictions that are wrong more often the less sure they are: 2 % to 40 %."""
    confidences = rng.random(count)
    return confidences, rng.random(count) >= 0.02 + 0.38 * (1 - confidences) ** 2


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("risk", "level"), [(0.1, 0.9), (0.2, 0.5), (0.05, 0.95)])
def test_the_threshold_is_that_of_a_plain_loop(seed: int, risk: float, level: float) -> None:
    confidences, right = drawn(300, np.random.default_rng(seed))
    found = control_risk(confidences, right, risk, level)
    assert found.threshold == looped(confidences, right, risk, level)
    if found.threshold is not None:
        chosen = confidences >= found.threshold
        assert (found.covered, found.wrong) == (chosen.sum(), (~right[chosen]).sum())
        exact = binomtest(found.wrong, found.covered, alternative="less").proportion_ci(level, "exact")
        assert found.bound == pytest.approx(exact.high) and found.bound <= risk


def test_too_few_images_and_too_many_errors_have_no_threshold() -> None:
    # 22 right ones are the fewest with which 10 % is rejected at 90 %: 0.9 to the power of 22 is 0.098.
    confidences = np.linspace(1, 0.5, 73)
    assert control_risk(confidences[:22], np.ones(22, bool), 0.1, 0.9).threshold == confidences[21]
    assert control_risk(confidences[:21], np.ones(21, bool), 0.1, 0.9).threshold is None
    nothing = control_risk(confidences, np.zeros(73, bool), 0.1, 0.9)
    assert (nothing.threshold, nothing.covered, nothing.wrong, nothing.bound) == (None, 22, 22, 1.0)


def test_equally_confident_images_are_covered_together() -> None:
    confidences = np.repeat([0.9, 0.6], 100)
    right = np.repeat([True, False], 100)
    found = control_risk(confidences, right, 0.1, 0.9)
    assert (found.threshold, found.covered, found.wrong) == (0.9, 100, 0)


def test_the_risk_is_above_the_wanted_one_as_seldom_as_promised() -> None:
    rng, risk, level = np.random.default_rng(0), 0.1, 0.9
    population = drawn(200_000, rng)
    order = np.argsort(-population[0])
    true = np.cumsum(~population[1][order]) / np.arange(1, len(order) + 1)
    found = [control_risk(*drawn(250, rng), risk, level).threshold for _ in range(400)]
    thresholds = [each for each in found if each is not None]
    exceeded = sum(true[np.searchsorted(-population[0][order], -each, side="right") - 1] > risk for each in thresholds)
    assert len(thresholds) > 200
    # Were the promise just kept, more would be seen in one of a thousand such tests.
    assert exceeded <= binom.ppf(0.999, 400, 1 - level)
