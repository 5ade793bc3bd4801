"""A run's ``calibration.json``, and whether it fits the run's network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from btkeras.errors import ConfigError, RunError
from btkeras.files import write_json
from btkeras.metrics.conformal import conformal_threshold, prediction_sets
from btkeras.runs import Run, read_json

if TYPE_CHECKING:
    import keras


FILE = "calibration.json"
METHOD = "temperature by negative log-likelihood; split conformal sets, score 1 - p (LAC)"
_REMEDY = "Calibrate it again: btkeras calibrate RUN"


@dataclass(frozen=True)
class Calibration:
    """Attributes:
    temperature: What the logits are divided by; above 1 makes the network less sure of itself.
    scores: Of the true classes of the validation images, 0..1, sorted (see ``metrics.conformal``).
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
        """The conformal score up to which a class is in a set, 0..1; 1 (every class) if the images were too few.

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
        # Imported here because they load Keras, which predicting from a LiteRT or ONNX file does without.
        from btkeras.models.head import temperature_of

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
