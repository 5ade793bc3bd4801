"""Local binary patterns with a classical classifier, which the paper's table 6 compares the networks with.

Ojala et al., "Multiresolution gray-scale and rotation invariant texture classification with local binary patterns":
each pixel is described by the number of neighbours on a circle that are at least as bright. Patterns with more than two
changes around the circle share a bin. An image and the same image turned have the same histogram.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from tqdm import tqdm

from btkeras.errors import DataError, ModelError

# Name of a model -> its classifier.
CLASSIFIERS: Mapping[str, str] = {"lbp_knn": "knn", "lbp_svm": "svm"}

# Radius in pixels -> neighbours.
NEIGHBORS: Mapping[int, int] = {1: 8, 2: 16, 3: 24}
# Number of brighter neighbours, 0 to all of them, and one bin for all that is not uniform.
FEATURES = sum(points + 2 for points in NEIGHBORS.values())

# Candidate settings; among equals the first is taken, so the smoother stand first.
GRIDS: Mapping[str, Sequence[Mapping[str, float]]] = {
    "knn": [{"n_neighbors": k} for k in (9, 7, 5, 3, 1)],
    "svm": [{"C": c, "gamma": gamma} for c in (1.0, 10.0, 100.0, 1000.0) for gamma in (0.005, 0.02, 0.08)],
}
_FOLDS = 5


@dataclass(frozen=True)
class LBPClassifier:
    """A fitted classifier: a key of ``GRIDS``, the best entry there, its validation accuracy (0..1), the estimator."""

    kind: str
    settings: Mapping[str, float]
    validation_accuracy: float
    estimator: Any

    def __str__(self) -> str:
        settings = ", ".join(f"{name}={value:g}" for name, value in self.settings.items())
        return f"{self.kind} with {settings} (validation accuracy {self.validation_accuracy:.4f})"

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Predicts grey images ``[n, height, width, 1]``: ``[n, classes]``, each row with the sum 1.

        ``knn`` gives the neighbours' votes. ``svm`` gives a softmax of the one-against-rest decision values over a
        temperature, which was fitted by cross-validation within the training subset.
        """
        return self.estimator.predict_proba(features(images))


def features(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Histograms of the patterns of grey uint8 images ``[n, height, width, 1]``.

    Returns:
        ``[n, 54]``: 10, 18 and 26 fractions of the pixels, one group a radius, each with the sum 1.

    Raises:
        ModelError: If scikit-image is not installed.
        DataError: If the images are of another shape or type.
    """
    try:
        from skimage.feature import local_binary_pattern
    except ImportError as error:
        remedy = "Install it: pip install 'btkeras[classical]'"
        raise ModelError("Local binary patterns need scikit-image", received=error, remedy=remedy) from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 1:
        received = f"{images.dtype} {images.shape}"
        raise DataError("Images must be uint8 of the shape (n, height, width, 1)", received=received)
    counts = np.empty((len(images), FEATURES))
    for i, image in enumerate(tqdm(images[..., 0], desc="patterns", unit=" images", leave=False, disable=None)):
        histograms = []
        for radius, points in NEIGHBORS.items():
            codes = local_binary_pattern(image, points, radius, method="uniform").astype(int)
            histograms.append(np.bincount(codes.ravel(), minlength=points + 2))
        counts[i] = np.concatenate(histograms)
    return counts / (images.shape[1] * images.shape[2])


def make_classifier(kind: str, settings: Mapping[str, float]) -> Pipeline:
    """Makes a classifier of standardised features, not fitted yet; ``settings`` as an entry of ``GRIDS[kind]``."""
    classifier = KNeighborsClassifier(**settings) if kind == "knn" else SVC(kernel="rbf", **settings)
    return make_pipeline(StandardScaler(), classifier)


def fit_lbp(
    kind: str,
    train: NDArray[np.uint8],
    train_labels: NDArray[np.integer],
    validation: NDArray[np.uint8],
    validation_labels: NDArray[np.integer],
    seed: int = 0,
) -> LBPClassifier:
    """Fits every entry of ``GRIDS[kind]`` on the training subset; the most accurate on the validation subset is taken.

    Args:
        kind: A key of ``GRIDS``.
        train: Grey images, uint8 ``[n, height, width, 1]``.
        train_labels: Their class indices, ``[n]``.
        validation: Images that the settings are chosen on, as ``train``.
        validation_labels: Their class indices.
        seed: Of the folds that ``svm`` fits its temperature on; nothing else is random.

    Raises:
        ModelError: If the kind is unknown or scikit-image is not installed.
        DataError: If a class has fewer than 2 training images, or images are of another shape or type.
    """
    if kind not in GRIDS:
        raise ModelError(f"A classifier must be one of {', '.join(GRIDS)}", received=repr(kind))
    rarest = int(np.bincount(train_labels).min()) if len(train_labels) else 0
    if rarest < 2:
        raise DataError("Each class must have at least 2 training images", received=rarest)
    fitting, held_out = features(train), features(validation)
    # Of a tiny dataset there are no 9 neighbours.
    candidates = [settings for settings in GRIDS[kind] if settings.get("n_neighbors", 1) <= len(fitting)]
    fitted = [make_classifier(kind, settings).fit(fitting, train_labels) for settings in candidates]
    accuracies = [float(classifier.score(held_out, validation_labels)) for classifier in fitted]
    best = int(np.argmax(accuracies))
    estimator: Any = fitted[best]
    if kind == "svm":
        folds = StratifiedKFold(min(_FOLDS, rarest), shuffle=True, random_state=seed)
        estimator = CalibratedClassifierCV(estimator, method="temperature", cv=folds, ensemble=False)
        estimator.fit(fitting, train_labels)
    return LBPClassifier(kind, candidates[best], accuracies[best], estimator)
