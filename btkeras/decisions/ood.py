"""How unlike the training slices an image is, by the network's own features.

The score is the squared Mahalanobis distance of the layer ``features`` from all training slices together: one normal
distribution, its covariance shrunk by Ledoit and Wolf ("A well-conditioned estimator for large-dimensional covariance
matrices", J. Multivariate Analysis 2004). A mean per class (Lee et al., "A Simple Unified Framework for Detecting
Out-of-Distribution Samples and Adversarial Attacks", NeurIPS 2018), the difference of both, and the k nearest training
slices were tried too, and found less of what is no slice of this kind (docs/trust.md, "Refusal"); that one distribution
may do better is known (Kamoi and Kobayashi, "Why is the Mahalanobis Distance Effective for Anomaly Detection?", 2020).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from btkeras.errors import RunError
from btkeras.files import atomic_file

if TYPE_CHECKING:
    from btkeras.runs import Run


FILE = "ood.npz"
# Of the validation slices, this share is as usual as a slice must be to get an answer.
OOD_PERCENTILE = 0.99
# Directions kept one by one; VGG has 4,096 features, and the weak ones may share a variance.
DIRECTIONS = 512
# The least variance of a direction, as a share of their mean, so that float32 can carry the score.
FLOOR = 1e-4
_REMEDY = "Fit it again: btkeras calibrate RUN"

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution of features; beyond its strongest directions, all have one variance (as in probabilistic
    PCA: Tipping and Bishop, J. Royal Statistical Society B 1999).

    Attributes:
        mean: ``[d]``.
        directions: ``[d, k]``, orthonormal.
        variances: ``[k]``, above 0, along these.
        rest: The variance of each other direction; 0 if there is none.
    """

    mean: Floats
    directions: Floats
    variances: Floats
    rest: float

    @staticmethod
    def fit(features: Floats) -> Gaussian:
        """Fits it to ``[n, d]``."""
        # Imported here because it takes longer than an answer, which only needs the reference.
        from sklearn.covariance import ledoit_wolf

        values = np.asarray(features, np.float64)
        mean = values.mean(axis=0)
        covariance, _ = ledoit_wolf(values - mean, assume_centered=True)
        variances, directions = np.linalg.eigh(covariance)
        # Zero, if all images have the very same features.
        variances = np.maximum(variances, max(FLOOR * float(variances.mean()), 1e-12))
        kept, others = slice(-DIRECTIONS, None), variances[:-DIRECTIONS]
        rest = float(others.mean()) if others.size else 0.0
        return Gaussian(mean, directions[:, kept], variances[kept], rest)

    def parts(self) -> dict[str, NDArray[np.float32]]:
        """What ``squared_distance`` computes with, float32."""
        parts = {"mean": self.mean, "directions": self.directions, "scales": 1 / np.sqrt(self.variances)}
        # Nothing is left beyond the directions if they are all.
        parts["rest"] = np.array(1 / self.rest if self.rest else 0.0)
        return {name: part.astype(np.float32) for name, part in parts.items()}


def squared_distance(features: Any, parts: Mapping[str, Any], square_sum: Callable[[Any], Any]) -> Any:
    """Squared Mahalanobis distances, alike with arrays and with tensors, so that an exported model has them too.

    Args:
        features: float32 ``[n, d]``.
        parts: Of ``Gaussian.parts``, as arrays or tensors.
        square_sum: The sum of squares over the last axis.

    Returns:
        float32 ``[n]``.
    """
    offsets = features - parts["mean"]
    along = offsets @ parts["directions"]
    # Never below 0 but by rounding.
    beyond = abs(square_sum(offsets) - square_sum(along))
    return square_sum(along * parts["scales"]) + beyond * parts["rest"]


@dataclass(frozen=True)
class CalibrationScores:
    """The scores that a score is compared with.

    Attributes:
        scores: Of the validation slices, ``[n]``, sorted.
    """

    scores: Floats

    @property
    def threshold(self) -> float:
        """The score above which an image is an outlier."""
        return float(np.quantile(self.scores, OOD_PERCENTILE))

    def percentile(self, scores: Floats) -> NDArray[np.float64]:
        """Percent of the validation slices that are at most as unlike the training slices, ``[n]`` in 0..100."""
        return 100 * np.searchsorted(self.scores, scores, side="right") / len(self.scores)

    def ood(self, scores: Floats) -> NDArray[np.bool_]:
        """Which scores are beyond the threshold, ``[n]``."""
        return np.asarray(scores) > self.threshold


@dataclass(frozen=True)
class OODDetector:
    """What tells a run's outliers: ``gaussian`` gives the score, ``reference`` its meaning."""

    gaussian: Gaussian
    reference: CalibrationScores

    def score(self, features: Floats) -> NDArray[np.float32]:
        """Scores of features ``[n, d]``: float32 ``[n]``, at least 0, larger is more unlike the training slices."""
        values = np.asarray(features, np.float32)
        scores: NDArray[np.float32] = squared_distance(values, self.gaussian.parts(), lambda x: (x * x).sum(axis=-1))
        return scores

    def percentile(self, scores: Floats) -> NDArray[np.float64]:
        """As ``Reference.percentile``."""
        return self.reference.percentile(scores)


def save_ood(target: Path, ood: OODDetector) -> None:
    """Writes ``ood.npz``, float32."""
    gaussian = ood.gaussian
    arrays = {
        "mean": gaussian.mean,
        "directions": gaussian.directions,
        "variances": gaussian.variances,
        "rest": gaussian.rest,
        "scores": ood.reference.scores,
    }
    with atomic_file(target) as temporary:
        np.savez(temporary, **{name: np.asarray(value, np.float32) for name, value in arrays.items()})  # type: ignore[arg-type]


def load_ood(run: Run) -> OODDetector | None:
    """Reads a run's ``ood.npz``; None if there is none.

    Raises:
        RunError: If it is not as ``fit_outliers`` writes it.
    """
    file = run.path / FILE
    if not file.is_file():
        return None
    try:
        # From memory: of a damaged file, NumPy would leave the handle open.
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
            return _outliers(arrays)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise RunError(f"{file} must be as `btkeras calibrate` writes it", received=error, remedy=_REMEDY) from error


def _outliers(arrays: Mapping[str, Floats]) -> OODDetector:
    gaussian = Gaussian(arrays["mean"], arrays["directions"], arrays["variances"], float(arrays["rest"]))
    scores = arrays["scores"]
    count, kept = gaussian.directions.shape
    if gaussian.mean.shape != (count,) or gaussian.variances.shape != (kept,) or scores.ndim != 1 or not scores.size:
        raise ValueError("its arrays do not fit together")
    if not (gaussian.variances > 0).all() or not (np.diff(scores) >= 0).all():
        raise ValueError("variances of 0, or scores that are not sorted")
    return OODDetector(gaussian, CalibrationScores(scores))
