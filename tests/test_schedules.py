"""Learning rates against hand-made NumPy formulas."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from btkeras.config import SCHEDULES, OptimizerConfig, ScheduleConfig
from btkeras.training.schedules import Schedule

EPOCHS, STEPS, PEAK = 20, 7, 0.01
TOTAL = EPOCHS * STEPS


def rates(**settings: object) -> np.ndarray:
    schedule = Schedule(PEAK, ScheduleConfig(**settings), EPOCHS, STEPS)
    return np.array([float(schedule(step)) for step in range(TOTAL)])


def test_step_multiplies_by_the_factor_exactly_at_each_boundary() -> None:
    expected = PEAK * 0.1 ** (np.arange(TOTAL) // (5 * STEPS))
    np.testing.assert_allclose(rates(name="step", step_epochs=5), expected, rtol=1e-6)


def test_the_papers_schedule_drops_after_100_and_200_epochs() -> None:
    schedule = Schedule(OptimizerConfig().learning_rate, ScheduleConfig(), 300, 45)
    seen = [float(schedule(epoch * 45 + step)) for epoch, step in ((0, 0), (99, 44), (100, 0), (200, 0), (299, 44))]
    assert seen == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5, 1e-5], rel=1e-5)


def test_constant_stays() -> None:
    np.testing.assert_allclose(rates(name="constant"), PEAK, rtol=1e-6)


def test_cosine_falls_to_the_final_fraction() -> None:
    progress = np.arange(TOTAL) / TOTAL
    expected = PEAK * (0.1 + 0.9 * (1 + np.cos(np.pi * progress)) / 2)
    np.testing.assert_allclose(rates(name="cosine", final_fraction=0.1), expected, rtol=1e-5)


def test_linear_falls_behind_a_linear_warm_up() -> None:
    step = np.arange(TOTAL)
    warm = 2 * STEPS
    expected = np.where(step < warm, (step + 1) / warm, 1 - (step - warm) / (TOTAL - warm)) * PEAK
    np.testing.assert_allclose(rates(name="linear", warmup_epochs=2), expected, rtol=1e-5)


def test_one_cycle_rises_for_three_tenths_and_then_falls() -> None:
    curve = rates(name="one_cycle")
    top = int(0.3 * TOTAL)
    assert np.all(np.diff(curve[:top]) > 0) and np.all(np.diff(curve[top + 1 :]) < 0)
    assert curve.max() == pytest.approx(PEAK, rel=1e-3) and curve[0] < 0.01 * PEAK and curve[-1] < 0.01 * PEAK


def test_fractional_warm_up_longer_than_the_training_never_exceeds_the_peak() -> None:
    assert rates(name="cosine", warmup_epochs=50).max() <= PEAK * (1 + 1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_rebuilt_from_json(name: str) -> None:
    schedule = Schedule(PEAK, ScheduleConfig(name, warmup_epochs=2, final_fraction=0.1), EPOCHS, STEPS)
    stored = json.dumps(keras.optimizers.schedules.serialize(schedule))
    again = keras.optimizers.schedules.deserialize(json.loads(stored))
    assert again.get_config() == schedule.get_config()
    assert [float(again(step)) for step in (0, 10, 100)] == [float(schedule(step)) for step in (0, 10, 100)]
