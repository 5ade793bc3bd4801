"""Prediction in bfloat16 or int8, and in float32 where a decision is close."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from btkeras.decisions.abstention import Abstention
from btkeras.decisions.calibration import Calibration
from btkeras.decisions.ood import CalibrationScores
from btkeras.decisions.selective_classifier import SelectiveClassifier, log_odds
from btkeras.inference.backends import ModelOutputs
from btkeras.inference.mixed_precision import COMPARED, MixedPrecision

CLASSES = ("glioma", "meningioma", "no_tumor", "pituitary")
COUNT, OFF, PART = 2000, 0.05, 0.02

Numbers = NDArray[np.integer]


class Network:
    """Outputs by an image's number; the fast ones are off by up to ``OFF`` (log-odds) and ``PART``."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.exact = ModelOutputs(
            rng.dirichlet([0.3] * 4, COUNT).astype(np.float32), rng.uniform(0, 120, COUNT).astype(np.float32)
        )
        signs = rng.choice([-1, 1], (COUNT, 4)) * rng.uniform(0.6, 1, (COUNT, 4))
        self.fast = ModelOutputs(
            _moved(self.exact.probabilities, OFF * signs),
            (self.exact.ood_scores * (1 + PART * signs[:, 0])).astype(np.float32),
        )
        self.asked = 0

    def predict(self, images: Numbers) -> ModelOutputs:
        self.asked += len(images)
        return ModelOutputs(*(values[images] for values in self.exact))

    def predict_fast(self, images: Numbers) -> ModelOutputs:
        return ModelOutputs(*(values[images] for values in self.fast))


def _moved(probabilities: NDArray[np.floating], by: NDArray[np.floating]) -> NDArray[np.float32]:
    """Probabilities whose log-odds differ by so much; they need not add to 1."""
    odds = probabilities.astype(np.float64) / (1 - probabilities.astype(np.float64)) * np.exp(by)
    return (odds / (1 + odds)).astype(np.float32)


def classifier(*, calibrated: bool) -> SelectiveClassifier:
    tested = {"images": 100, "covered": 80, "wrong": 2, "bound": 0.05, "data": "validation"}
    calibration = Calibration(
        1.0, tuple(np.linspace(0, 0.9, 50)), 1.0, 1.0, abstention=Abstention(0.8, risk=0.1, level=0.9, **tested)
    )
    scores = CalibrationScores(np.linspace(0, 100, 101))
    return SelectiveClassifier(CLASSES, calibration if calibrated else None, scores if calibrated else None)


@pytest.mark.parametrize("calibrated", [True, False])
def test_classes_decisions_and_sets_are_those_of_float32(calibrated: bool) -> None:
    network, selective = Network(), classifier(calibrated=calibrated)
    mixed = MixedPrecision(network.predict_fast, network.predict, selective)
    batches = [mixed.predict(batch) for batch in np.array_split(np.arange(COUNT), 70)]
    outputs = ModelOutputs(*(np.concatenate(values) for values in zip(*batches, strict=True)))
    wanted = network.exact
    assert np.array_equal(outputs.probabilities.argmax(axis=1), wanted.probabilities.argmax(axis=1))
    found, expected = (selective.decisions(*each, [None] * COUNT) for each in (outputs, wanted))
    assert [(each.decision, each.set) for each in found] == [(each.decision, each.set) for each in expected]
    # A log-odds' change moves a probability by at most a quarter of it.
    np.testing.assert_allclose(outputs.probabilities, wanted.probabilities, atol=OFF / 4)
    # Some in both, not all; the fast ones alone would decide otherwise.
    assert COMPARED <= network.asked < COUNT / 2
    alone = selective.decisions(*network.fast, [None] * COUNT)
    assert [each.decision for each in alone] != [each.decision for each in expected]
    assert OFF < mixed.seen.lead <= 2.02 * OFF
    assert 0.6 * OFF < mixed.seen.log_odds <= 1.02 * OFF and 0.6 * PART < mixed.seen.ood_score <= 1.001 * PART


def test_the_first_images_are_predicted_in_both() -> None:
    network = Network()
    mixed = MixedPrecision(network.predict_fast, network.predict, classifier(calibrated=True))
    outputs = mixed.predict(np.arange(COMPARED))
    assert np.array_equal(outputs.probabilities, network.exact.probabilities[:COMPARED])
    assert network.asked == COMPARED


def test_sure_images_alone_do_not_say_how_far_the_precisions_lie_apart() -> None:
    network = Network()
    sure = np.tile(np.array([1, 0, 0, 0], np.float32), (300, 1))
    network.exact, network.fast = (
        ModelOutputs(np.concatenate([sure, each.probabilities]), np.concatenate([np.zeros(300), each.ood_scores]))
        for each in (network.exact, network.fast)
    )
    mixed = MixedPrecision(network.predict_fast, network.predict, classifier(calibrated=False))
    found = np.concatenate([mixed.predict(batch).probabilities for batch in np.array_split(np.arange(300 + COUNT), 90)])
    assert np.array_equal(found.argmax(axis=1), network.exact.probabilities.argmax(axis=1))
    assert network.asked < COUNT / 2


def test_sets_that_hold_every_class_are_never_close() -> None:
    selective = classifier(calibrated=True)
    every = replace(selective, calibration=replace(selective.calibration, scores=(1.0,) * 50, abstention=None))
    probabilities = np.array([[0.97, 0.01, 0.01, 0.01], [1, 0, 0, 0]], np.float32)
    assert not every.close(probabilities, None, distance=0.1, lead=0.2, part=0.0).any()


def test_log_odds_are_finite() -> None:
    found = log_odds(np.array([0, 1e-30, 0.5, 1 - 1e-7, 1], np.float32))
    assert np.isfinite(found).all() and found[2] == 0 and found[0] == pytest.approx(-found[-1])
