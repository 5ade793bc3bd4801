"""What was learnt from the validation part of how far a network's probabilities can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from btkeras.errors import ConfigError, RunError
from btkeras.files import write_json
from btkeras.metrics.calibration import (
    ESTIMATOR,
    calibrated_error,
    calibration_scores,
    risk_coverage_area,
    without_temperature,
)
from btkeras.metrics.conformal import conformal_threshold, prediction_sets, set_figures
from btkeras.models.temperature import temperature_of
from btkeras.runs import Run, read_json

FILE = "calibration.json"
METHOD = "temperature by negative log-likelihood; split conformal sets, score 1 - p (LAC)"
COVERAGES = (0.9, 0.95, 0.99)
_REMEDY = "Calibrate it again: btkeras calibrate RUN"


@dataclass(frozen=True)
class Calibration:
    """Attributes:
    temperature: What the logits are divided by; above 1 makes the network less sure of itself.
    scores: Of the true classes of the validation pictures, 0..1, sorted (see ``metrics.conformal``).
    nll_before: Negative log-likelihood of the validation part without the temperature, nats.
    nll_after: The same with it.
    method: In words.
    """

    temperature: float
    scores: tuple[float, ...]
    nll_before: float
    nll_after: float
    method: str = METHOD

    def threshold(self, coverage: float) -> float:
        """The conformal score up to which a class is in a set, 0..1; 1 (every class) if the pictures were too few.

        Raises:
            ConfigError: If the coverage is not above 0 and below 1.
        """
        if not 0 < coverage < 1:
            raise ConfigError("A coverage must be above 0 and below 1", received=coverage, remedy="Give 0.95, say")
        return conformal_threshold(np.array(self.scores), coverage)

    def sets(self, probabilities: NDArray[np.floating], coverage: float) -> NDArray[np.bool_]:
        """Which classes cannot be ruled out, ``[n, classes]``: the true one is among them as often as wanted.

        An empty set means that no class is as probable as the true one nearly always was.

        Args:
            probabilities: ``[n, classes]``, of the calibrated network.
            coverage: Wanted, above 0 and below 1.

        Raises:
            ConfigError: If the coverage is out of range.
        """
        return prediction_sets(probabilities, self.threshold(coverage))

    def to_json(self) -> dict[str, Any]:
        """As an object of ``from_json``."""
        return {
            "method": self.method,
            "temperature": self.temperature,
            "images": len(self.scores),
            "negative_log_likelihood": {"before": self.nll_before, "after": self.nll_after},
            "scores": list(self.scores),
        }

    @staticmethod
    def from_json(document: Mapping[str, Any], where: str = FILE) -> Calibration:
        """Reads what ``to_json`` made.

        Args:
            document: The object.
            where: It comes from, for the message.

        Raises:
            RunError: If it is something else.
        """
        try:
            nll = document["negative_log_likelihood"]
            scores = tuple(map(float, document["scores"]))
            found = Calibration(
                float(document["temperature"]), scores, float(nll["before"]), float(nll["after"]), document["method"]
            )
            # NaN is in no range, and not sorted.
            valid = 0 < found.temperature < np.inf and all(0 <= score <= 1 for score in scores)
            if valid and scores and list(scores) == sorted(scores):
                return found
            reason = "a temperature or scores out of range"
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
        raise RunError(f"{where} must be as `btkeras calibrate` writes it", received=reason, remedy=_REMEDY)


def load_calibration(run: Run, model: keras.Model | None = None) -> Calibration | None:
    """Reads a run's ``calibration.json``; None if it was not calibrated.

    Args:
        run: The run.
        model: Its network, if it shall be checked that this has the temperature that the file speaks of.

    Raises:
        RunError: If the file cannot be read, or does not belong to the network.
    """
    file = run.path / FILE
    found = Calibration.from_json(read_json(file), str(file)) if file.is_file() else None
    if model is not None:
        expected, temperature = found.temperature if found else 1.0, temperature_of(model)
        if not np.isclose(temperature, expected, rtol=1e-6):
            raise RunError(
                f"{FILE} and {run.best_model.name} must be of one calibration",
                received=f"temperature {expected:g} in one and {temperature:g} in the other, in {run.path}",
                remedy=f"Calibrate it again: btkeras calibrate {run.path}",
            )
    return found


def save_calibration(run: Run, calibration: Calibration) -> None:
    """Writes ``calibration.json``."""
    write_json(run.path / FILE, calibration.to_json())


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
