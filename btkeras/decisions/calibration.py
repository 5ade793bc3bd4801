"""A network's calibration: temperature and conformal scores, and their file ``calibration.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from btkeras.errors import ConfigError, RunError
from btkeras.files import read_json, write_json
from btkeras.metrics.conformal import conformal_threshold, prediction_sets

if TYPE_CHECKING:
    import keras

    from btkeras.runs import Run


METHOD = "temperature by negative log-likelihood; split conformal sets, score 1 - p (LAC)"
COVERAGE = 0.95
_REMEDY = "Calibrate it again: btkeras calibrate RUN"


def check_coverage(coverage: float) -> None:
    """Checks a wanted coverage.

    Raises:
        ConfigError: If it is not above 0 and below 1.
    """
    if not 0 < coverage < 1:
        raise ConfigError("A coverage must be above 0 and below 1", received=coverage, remedy="Give 0.95, say")


@dataclass(frozen=True)
class Calibration:
    """Attributes:
    temperature: Divisor of the logits; above 1 makes the network less confident.
    scores: Conformal scores of the validation images, 0..1, sorted (see ``metrics.conformal``).
    nll_before: Negative log-likelihood of the validation subset without the temperature, nats.
    nll_after: The same with it.
    method: Its description.
    """

    temperature: float
    scores: tuple[float, ...]
    nll_before: float
    nll_after: float
    method: str = METHOD

    def threshold(self, coverage: float) -> float:
        """The conformal score up to which a class is in a prediction set, 0..1; 1 if the images were too few.

        Raises:
            ConfigError: If the coverage is not above 0 and below 1.
        """
        check_coverage(coverage)
        return conformal_threshold(np.array(self.scores), coverage)

    def sets(self, probabilities: NDArray[np.floating], coverage: float) -> NDArray[np.bool_]:
        """Prediction sets, the classes that cannot be ruled out, of probabilities: both ``[n, classes]``.

        The share of sets that hold the true class is ``coverage``, above 0 and below 1. A set may be empty.
        """
        return prediction_sets(probabilities, self.threshold(coverage))

    def to_json(self) -> dict[str, Any]:
        """The content of ``calibration.json``."""
        return {
            "method": self.method,
            "temperature": self.temperature,
            "images": len(self.scores),
            "negative_log_likelihood": {"before": self.nll_before, "after": self.nll_after},
            "scores": list(self.scores),
        }

    @staticmethod
    def from_json(document: Mapping[str, Any], where: str = "calibration.json") -> Calibration:
        """Reads what ``to_json`` made.

        Raises:
            RunError: If it is something else; the message names ``where``.
        """
        try:
            nll = document["negative_log_likelihood"]
            scores = tuple(map(float, document["scores"]))
            found = Calibration(
                float(document["temperature"]), scores, float(nll["before"]), float(nll["after"]), document["method"]
            )
            # NaN is in no range.
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
        model: Its network, to check that it has the temperature of the file.

    Raises:
        RunError: If the file cannot be read, or does not belong to the network.
    """
    file = run.calibration_file
    found = Calibration.from_json(read_json(file), str(file)) if file.is_file() else None
    if model is not None:
        # Imported here because it loads Keras, which predicting from a LiteRT or ONNX file does without.
        from btkeras.models.head import temperature_of

        expected, temperature = found.temperature if found else 1.0, temperature_of(model)
        if not np.isclose(temperature, expected, rtol=1e-6):
            raise RunError(
                f"{file.name} and {run.best_model.name} must be of one calibration",
                received=f"temperature {expected:g} in one and {temperature:g} in the other, in {run.path}",
                remedy=f"Calibrate it again: btkeras calibrate {run.path}",
            )
    return found


def save_calibration(run: Run, calibration: Calibration) -> None:
    """Writes ``calibration.json``."""
    write_json(run.calibration_file, calibration.to_json())
