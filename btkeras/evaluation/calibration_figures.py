"""How far the answers to some pictures can be trusted, as figures and in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.evaluation.calibration import Calibration
from btkeras.metrics.calibration import (
    ESTIMATOR,
    calibrated_error,
    calibration_scores,
    risk_coverage_area,
    without_temperature,
)
from btkeras.metrics.conformal import set_figures

COVERAGES = (0.9, 0.95, 0.99)


def calibration_figures(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating], calibration: Calibration | None
) -> dict[str, Any]:
    """How far the answers to some pictures can be trusted, as JSON-ready numbers.

    Args:
        labels: ``[n]`` class indices.
        probabilities: ``[n, classes]``, of the calibrated network.
        calibration: The network's; None if it was not calibrated.

    Returns:
        ``estimator`` (of the ECE), ``temperature``, ``before`` and ``after`` (``metrics.calibration_scores`` without
        the temperature and with it), ``ece_if_calibrated`` (``mean``, and ``high``, which 5 % exceed: what the
        estimator finds where there is nothing), ``aurc``, and ``conformal``: None, or its ``method`` and, for each
        ``coverage``, the ``threshold`` and what ``metrics.conformal.set_figures`` gives.
    """
    # The same figures as from the file of predictions.
    probabilities = np.asarray(probabilities, np.float64)
    temperature = calibration.temperature if calibration else 1.0
    mean, high = calibrated_error(probabilities)
    return {
        "estimator": ESTIMATOR,
        "temperature": temperature,
        "before": calibration_scores(labels, without_temperature(probabilities, temperature)),
        "after": calibration_scores(labels, probabilities),
        "ece_if_calibrated": {"mean": mean, "high": high},
        "aurc": risk_coverage_area(labels, probabilities),
        "conformal": calibration
        and {
            "method": calibration.method,
            "images": len(calibration.scores),
            "sets": [
                {"coverage": coverage, "threshold": calibration.threshold(coverage)}
                | set_figures(labels, calibration.sets(probabilities, coverage))
                for coverage in COVERAGES
            ],
        },
    }


def calibration_lines(metrics: Mapping[str, Any]) -> list[str]:
    """The figures of an evaluation's ``calibration`` in two lines; none if it has no such figures."""
    figures = metrics.get("calibration")
    if not figures:
        return []
    after, before, fitted = figures["after"], figures["before"], figures["conformal"]
    lines = [
        f"calibration: {'temperature ' + format(figures['temperature'], '.3f') if fitted else 'none'}; ECE "
        f"{100 * after['ece']:.2f} % (before {100 * before['ece']:.2f}, if perfect about "
        f"{100 * figures['ece_if_calibrated']['mean']:.2f}), Brier {after['brier']:.4f} ({before['brier']:.4f}), "
        f"log loss {after['nll']:.4f} ({before['nll']:.4f})"
    ]
    if fitted:
        sets = (
            f"{100 * row['covered']:.1f} % where {100 * row['coverage']:g} % is wanted ({row['mean_size']:.2f} classes)"
            for row in fitted["sets"]
        )
        lines.append(f"prediction sets hold the true class: {', '.join(sets)}")
    return lines
