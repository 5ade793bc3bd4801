"""A network's calibration, its file ``calibration.json``, and prediction sets.

A split conformal prediction set holds the classes that cannot be ruled out at a wanted coverage. The nonconformity
score of a class is 1 - its probability (least ambiguous sets, LAC: Sadinle, Lei and Wasserman, JASA 2019), which gives
the smallest sets on average. A class is in an image's set unless its score is above the finite-sample quantile of the
true classes' scores on other images. If those and the new one are exchangeable, the true class is in the set with at
least the wanted probability, averaged over all images and not within each class (Vovk, Gammerman and Shafer,
"Algorithmic Learning in a Random World"). A set may be empty where the network is right more often than the coverage
asks for; sets that always held the most probable class would then hold a single one, however unsure the network is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from btkeras.checksums import check_file, read_document
from btkeras.decisions.abstention import Abstention
from btkeras.errors import ConfigError, RunError
from btkeras.logging import logger
from btkeras.metrics.classification import FloatArray, IntArray

if TYPE_CHECKING:
    import keras

    from btkeras.runs import Run

METHOD = "temperature by negative log-likelihood; split conformal sets, score 1 - p (LAC)"
COVERAGE = 0.95
# What the scores are of unless a dataset is named.
VALIDATION_SUBSET = "validation slices"
_REMEDY = "Calibrate it again: btkeras calibrate RUN"


def nonconformity_scores(labels: IntArray, probabilities: FloatArray) -> NDArray[np.float64]:
    """Nonconformity scores of the true classes, ``[n]`` in 0..1 and sorted."""
    true = np.asarray(probabilities, np.float64)[np.arange(len(labels)), labels]
    return np.sort(np.clip(1 - true, 0, 1))


def conformal_threshold(scores: FloatArray, coverage: float) -> float:
    """The score up to which a class is in a set: the ceil((n + 1) coverage)-th smallest of n sorted ones.

    It is 1, which every class is within, where n images are too few to promise the coverage.
    """
    # Less a little, for (n + 1) coverage may come out above the whole number that it is.
    rank = math.ceil((len(scores) + 1) * coverage - 1e-9)
    return float(scores[rank - 1]) if rank <= len(scores) else 1.0


def prediction_sets(probabilities: FloatArray, threshold: float) -> NDArray[np.bool_]:
    """Which classes are in each image's set ``[n, classes]``; the threshold is of ``conformal_threshold``."""
    return 1 - np.asarray(probabilities, np.float64) <= threshold


def set_metrics(labels: IntArray, sets: NDArray[np.bool_]) -> dict[str, Any]:
    """Metrics of prediction sets ``[n, classes]``, as JSON-ready fractions; None where there are no images.

    Returns:
        ``covered`` (the true class is in the set), ``covered_by_class`` (the same within each class), ``mean_size``,
        ``empty``, ``single`` (of one class), and ``single_right`` (the share of those that are the true class).
    """
    hit, sizes = sets[np.arange(len(labels)), labels], sets.sum(axis=1)
    single = sizes == 1
    return {
        "covered": float(hit.mean()),
        "covered_by_class": [
            float(hit[labels == i].mean()) if (labels == i).any() else None for i in range(sets.shape[1])
        ],
        "mean_size": float(sizes.mean()),
        "empty": float((sizes == 0).mean()),
        "single": float(single.mean()),
        "single_right": float(hit[single].mean()) if single.any() else None,
    }


def check_coverage(coverage: float) -> None:
    """Raises ``ConfigError`` if a coverage is not above 0 and below 1."""
    if not 0 < coverage < 1:
        raise ConfigError("A coverage must be above 0 and below 1", received=coverage, remedy="Give 0.95, say")


@dataclass(frozen=True)
class Calibration:
    """The content of ``calibration.json``."""

    temperature: float  # divisor of the logits; above 1 makes the network less confident
    scores: tuple[float, ...]  # conformal scores of the images ``data``, 0..1, sorted
    nll_before: float  # negative log-likelihood of the validation subset without the temperature, nats
    nll_after: float  # the same with it
    method: str = METHOD
    abstention: Abstention | None = None  # None of older versions, which abstained by the prediction sets
    data: str = VALIDATION_SUBSET  # or a dataset's name

    def warn_if_fitted_on(self, root: Path) -> None:
        """Warns that figures of a dataset are no test if sets or threshold were fitted on one of its name."""
        name = root.resolve().name
        if name in (self.data, self.abstention and self.abstention.data):
            logger.warning(f"prediction sets and threshold were fitted on {name}: how they do on it is no test")

    def threshold(self, coverage: float) -> float:
        """The conformal score up to which a class is in a prediction set, 0..1; errors as ``check_coverage``."""
        check_coverage(coverage)
        return conformal_threshold(np.array(self.scores), coverage)

    def sets(self, probabilities: NDArray[np.floating], coverage: float) -> NDArray[np.bool_]:
        """Prediction sets of probabilities, both ``[n, classes]``; ``coverage`` of them hold the true class."""
        return prediction_sets(probabilities, self.threshold(coverage))

    def to_json(self) -> dict[str, Any]:
        """The content of ``calibration.json``."""
        return {
            "method": self.method,
            "temperature": self.temperature,
            "images": len(self.scores),
            "data": self.data,
            "negative_log_likelihood": {"before": self.nll_before, "after": self.nll_after},
            "scores": list(self.scores),
            **({"abstention": self.abstention.to_json()} if self.abstention else {}),
        }

    @staticmethod
    def from_json(document: Mapping[str, Any], where: str = "calibration.json") -> Calibration:
        """Reads what ``to_json`` made; raises ``RunError``, which names ``where``, if it is something else."""
        try:
            nll, abstention = document["negative_log_likelihood"], document.get("abstention")
            found = Calibration(
                float(document["temperature"]),
                tuple(map(float, document["scores"])),
                float(nll["before"]),
                float(nll["after"]),
                document["method"],
                Abstention.from_json(abstention) if abstention else None,
                str(document.get("data", VALIDATION_SUBSET)),
            )
            # NaN is in no range.
            valid = 0 < found.temperature < np.inf and all(0 <= score <= 1 for score in found.scores)
            if valid and found.scores and list(found.scores) == sorted(found.scores):
                return found
            reason = "a temperature or scores out of range"
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
        raise RunError(f"{where} must be as `btkeras calibrate` writes it", received=reason, remedy=_REMEDY)


def load_calibration(run: Run, model: keras.Model | None = None) -> Calibration | None:
    """Reads a run's ``calibration.json``; None if it was not calibrated.

    Raises ``RunError`` if the file cannot be read, or if ``model``, the run's network, has another temperature.
    """
    file = run.calibration_file
    check_file(file)
    found = Calibration.from_json(read_document(file), str(file)) if file.is_file() else None
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
