"""Metrics of calibration and selective classification: calibration errors, proper scores, temperature, risk-coverage.

Labels are class indices, ``[n]`` integers; probabilities ``[n, classes]``, whose largest is the confidence.

The expected calibration error (ECE; Naeini, Cooper and Hauskrecht 2015; Guo et al. 2017) is the top label's, in 15 bins
of about equal numbers of images (Nixon et al., "Measuring Calibration in Deep Learning", 2019), because nearly all
confidences of a good network lie in the last of 15 bins of equal width. It is biased upwards: even a perfectly
calibrated network gets more than 0, the fewer the images the more; ``calibrated_error`` says how much.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from btkeras.metrics.classification import FloatArray, IntArray, negative_log_likelihood

BINS = 15
ESTIMATOR = f"top-label ECE, {BINS} bins of equal mass"
# Beyond these, a network's logits carry no information, or its loss is a step.
_TEMPERATURES = (0.05, 20.0)
_SIMULATIONS = 1000


@dataclass(frozen=True)
class Reliability:
    """Attributes:
    confidence: ``[bins]`` mean probability of the images in each bin that has some.
    frequency: ``[bins]`` share of them for which the event came true.
    images: ``[bins]`` their number.
    """

    confidence: NDArray[np.float64]
    frequency: NDArray[np.float64]
    images: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Mean gap between confidence and frequency, weighted by the images: 0..1."""
        return float(np.average(np.abs(self.confidence - self.frequency), weights=self.images))


def reliability(probabilities: FloatArray, events: NDArray[np.bool_], bins: int = BINS) -> Reliability:
    """Bins of about equal numbers of images; equal probabilities share a bin, so there may be fewer than ``bins``.

    Args:
        probabilities: ``[n]``, of an event each.
        events: ``[n]``, whether it came true.
        bins: How many at most.
    """
    numbers = bin_numbers(probabilities, bins)
    images = np.bincount(numbers)
    means = [np.bincount(numbers, weights) / images for weights in (probabilities, events)]
    return Reliability(means[0], means[1], images)


def bin_numbers(probabilities: FloatArray, bins: int = BINS) -> NDArray[np.int64]:
    """Bin of each probability, counted from 0 without gaps."""
    values = np.asarray(probabilities, np.float64)
    edges = np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1])
    return np.unique(np.searchsorted(edges, values), return_inverse=True)[1]


def top_label(labels: IntArray, probabilities: FloatArray) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Confidences ``[n]``, and whether the most probable class is the true one ``[n]``."""
    return np.asarray(probabilities.max(axis=1), np.float64), probabilities.argmax(axis=1) == labels


def expected_calibration_error(labels: IntArray, probabilities: FloatArray, bins: int = BINS) -> float:
    """Top-label ECE, 0..1, in bins of equal mass."""
    return reliability(*top_label(labels, probabilities), bins).error


def classwise_calibration_error(labels: IntArray, probabilities: FloatArray, bins: int = BINS) -> float:
    """Mean over the classes of the ECE of a class's probability (Kull et al. 2019), 0..1, in bins of equal mass."""
    columns = range(probabilities.shape[1])
    return float(np.mean([reliability(probabilities[:, i], labels == i, bins).error for i in columns]))


def calibrated_error(probabilities: FloatArray, bins: int = BINS, seed: int = 0) -> tuple[float, float]:
    """The ECE of a perfectly calibrated network with these confidences, by simulation.

    Predictions are drawn that are right as often as the confidences say (Vaicenavicius et al., "Evaluating Model
    Calibration in Classification", 2019).

    Returns:
        Mean, and the 95th percentile of the draws: an ECE above that is more than the estimator's bias.
    """
    confidence, rng = np.asarray(probabilities.max(axis=1), np.float64), np.random.default_rng(seed)
    numbers = bin_numbers(confidence, bins)
    errors = []
    for _ in range(_SIMULATIONS):
        surplus = (rng.random(len(confidence)) < confidence) - confidence
        errors.append(np.abs(np.bincount(numbers, surplus)).sum() / len(confidence))
    return float(np.mean(errors)), float(np.quantile(errors, 0.95))


def brier_score(labels: IntArray, probabilities: FloatArray) -> float:
    """Mean over the images of the squared error summed over the classes (Brier 1950): 0 is best, 2 worst."""
    truth = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - truth) ** 2).sum(axis=1).mean())


def calibration_scores(labels: IntArray, probabilities: FloatArray) -> dict[str, float]:
    """``ece``, ``classwise_ece``, ``brier`` and ``nll`` (nats) as JSON-ready numbers."""
    return {
        "ece": expected_calibration_error(labels, probabilities),
        "classwise_ece": classwise_calibration_error(labels, probabilities),
        "brier": brier_score(labels, probabilities),
        "nll": negative_log_likelihood(labels, probabilities),
    }


def without_temperature(probabilities: FloatArray, temperature: float) -> NDArray[np.float64]:
    """The probabilities before the logits were divided by a temperature: p^T, normalised."""
    with np.errstate(divide="ignore"):
        logits = temperature * np.log(np.asarray(probabilities, np.float64))
    return np.asarray(softmax(logits, axis=1), np.float64)


def fit_temperature(labels: IntArray, logits: FloatArray) -> float:
    """The temperature of the smallest negative log-likelihood, 0.05..20.

    It is 1 where every prediction is right, because the likelihood then grows without end towards a temperature of 0.
    """
    logits = np.asarray(logits, np.float64)
    # Each logit less that of the true class: log-likelihood without a logarithm of 0.
    gaps = logits - logits[np.arange(len(labels)), labels][:, None]
    if (logits.argmax(axis=1) == labels).all():
        return 1.0

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp.reduce(gaps / np.exp(log_temperature), axis=1).mean())

    # One minimum: the loss is convex in the temperature's inverse.
    found = minimize_scalar(loss, bounds=np.log(_TEMPERATURES), method="bounded", options={"xatol": 1e-8})
    return float(np.exp(found.x))


def risk_coverage(labels: IntArray, probabilities: FloatArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The risk-coverage curve: errors among the most confident predictions.

    El-Yaniv and Wiener, "On the Foundations of Noise-free Selective Classification", JMLR 2010. Of equally confident
    predictions, each counts with their mean error, so that their order does not matter.

    Returns:
        Coverage ``[n]``, the share of the images that is predicted: 1/n, 2/n, ... 1; and risk ``[n]``, the share of
        wrong predictions among those.
    """
    confidence, right = top_label(labels, probabilities)
    order = np.argsort(-confidence, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(confidence[order])), len(order) - 1) + 1
    covered = np.arange(1, len(order) + 1)
    wrong = np.interp(covered, np.append(0, ends), np.append(0, np.cumsum(~right[order])[ends - 1]))
    return covered / len(order), wrong / covered


def risk_coverage_area(labels: IntArray, probabilities: FloatArray) -> float:
    """Area under the risk-coverage curve (AURC; Geifman, Uziel and El-Yaniv, ICLR 2019): the mean risk, 0 is best."""
    return float(risk_coverage(labels, probabilities)[1].mean())
