"""Out-of-distribution (OOD) scores: how unlike the training slices an image is, by the network's features.

The score is the squared Mahalanobis distance of the layer ``features`` from all training slices: one normal
distribution, its covariance shrunk by Ledoit and Wolf (J. Multivariate Analysis 2004). Of another scanner's slices
74 % lay beyond the validation slices' 99th percentile, by a mean per class (Lee et al., NeurIPS 2018) 43 %, by the
nearest slice 54 %. That one distribution may do better is known (Kamoi and Kobayashi, "Why is the Mahalanobis Distance
Effective for Anomaly Detection?", 2020).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from btkeras.checksums import check_file, recorded_file
from btkeras.decisions.finite import is_finite
from btkeras.errors import RunError

if TYPE_CHECKING:
    from btkeras.runs import Run

# Share of the calibration slices (``abstention.VALIDATION``) whose score is below the threshold.
OOD_PERCENTILE = 0.99
# Directions with a variance of their own: VGG has 4,096 features, whose weak directions share one.
DIRECTIONS = 512
# The least variance of a direction, as a share of the mean, so that float32 can hold the score.
FLOOR = 1e-4
_REMEDY = "Fit it again: btkeras calibrate RUN"

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution of features; beyond its strongest directions, all have one variance, as in probabilistic
    PCA (Tipping and Bishop, J. Royal Statistical Society B 1999).
    """

    mean: Floats  # ``[d]``
    directions: Floats  # ``[d, k]``, orthonormal
    variances: Floats  # ``[k]``, above 0, along these
    rest: float  # the variance of each other direction; 0 if there is none

    @staticmethod
    def fit(features: Floats) -> Gaussian:
        """Fits it to ``[n, d]``."""
        # Imported here because it takes longer than a prediction, which does not need it.
        from sklearn.covariance import ledoit_wolf

        values = np.asarray(features, np.float64)
        mean = values.mean(axis=0)
        covariance, _ = ledoit_wolf(values - mean, assume_centered=True)
        variances, directions = np.linalg.eigh(covariance)
        # Without the floor, 0 if all images have the same features.
        variances = np.maximum(variances, max(FLOOR * float(variances.mean()), 1e-12))
        weak = variances[:-DIRECTIONS]
        rest = float(weak.mean()) if weak.size else 0.0
        return Gaussian(mean, directions[:, -DIRECTIONS:], variances[-DIRECTIONS:], rest)

    def parts(self) -> dict[str, NDArray[np.float32]]:
        """The arguments of ``squared_distance``, float32."""
        parts = {"mean": self.mean, "directions": self.directions, "scales": 1 / np.sqrt(self.variances)}
        if self.rest:
            parts |= {"transposed": self.directions.T, "rest": np.array(1 / self.rest)}
        return {name: part.astype(np.float32) for name, part in parts.items()}


def squared_distance(features: Any, parts: Mapping[str, Any], square_sum: Callable[[Any], Any]) -> Any:
    """Squared Mahalanobis distances ``[n]`` of float32 ``[n, d]``, of arrays or, in an exported model, of tensors.

    ``parts`` are those of ``Gaussian.parts``; ``square_sum`` is the sum of squares over the last axis.
    """
    offsets = features - parts["mean"]
    along = offsets @ parts["directions"]
    distances = square_sum(along * parts["scales"])
    if "rest" not in parts:
        return distances
    # What the directions leave. As a difference of two sums of squares it would have few digits left.
    beyond = offsets - along @ parts["transposed"]
    return distances + square_sum(beyond) * parts["rest"]


@dataclass(frozen=True)
class CalibrationScores:
    """The OOD scores of the calibration slices ``[n]``, sorted, which give a score its percentile."""

    scores: Floats

    @property
    def threshold(self) -> float:
        """The score above which an image is out of distribution."""
        return float(np.quantile(self.scores, OOD_PERCENTILE))

    def percentile(self, scores: Floats) -> NDArray[np.float64]:
        """Percent of the calibration slices with at most these scores, ``[n]`` in 0..100."""
        return 100 * np.searchsorted(self.scores, scores, side="right") / len(self.scores)

    def ood(self, scores: Floats) -> NDArray[np.bool_]:
        """Which scores are above the threshold, ``[n]``."""
        return np.asarray(scores) > self.threshold


@dataclass(frozen=True)
class OODDetector:
    """A run's OOD detector: ``gaussian`` gives the score, ``reference`` its percentile."""

    gaussian: Gaussian
    reference: CalibrationScores

    def score(self, features: Floats) -> NDArray[np.float32]:
        """Scores of features ``[n, d]``: float32 ``[n]``, at least 0, larger is more unlike the training slices."""
        values = np.asarray(features, np.float32)
        scores: NDArray[np.float32] = squared_distance(values, self.gaussian.parts(), lambda x: (x * x).sum(axis=-1))
        return scores


def save_ood(run: Run, ood: OODDetector) -> None:
    """Writes a run's ``ood.npz``, float32."""
    arrays = vars(ood.gaussian) | {"scores": ood.reference.scores}
    with recorded_file(run.ood_file) as temporary:
        np.savez(temporary, **{name: np.asarray(value, np.float32) for name, value in arrays.items()})  # type: ignore[arg-type]


def load_ood(run: Run) -> OODDetector | None:
    """Reads a run's ``ood.npz``; None if there is none. Raises ``RunError`` if it is not as ``save_ood`` writes it."""
    file = run.ood_file
    check_file(file)
    if not file.is_file():
        return None
    try:
        # From memory: of a damaged file, NumPy would leave the handle open.
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
            return _detector(arrays)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise RunError(f"{file} must be as `btkeras calibrate` writes it", received=error, remedy=_REMEDY) from error


def _detector(arrays: Mapping[str, Floats]) -> OODDetector:
    gaussian = Gaussian(arrays["mean"], arrays["directions"], arrays["variances"], float(arrays["rest"]))
    scores = arrays["scores"]
    shape = (*gaussian.mean.shape, *gaussian.variances.shape)
    if gaussian.directions.shape != shape or scores.ndim != 1 or not scores.size:
        raise ValueError("its arrays do not fit together")
    if not is_finite(arrays[name] for name in arrays):
        raise ValueError("numbers that are not finite")
    if not (gaussian.variances > 0).all() or not (np.diff(scores) >= 0).all():
        raise ValueError("variances of 0, or scores that are not sorted")
    return OODDetector(gaussian, CalibrationScores(scores))
