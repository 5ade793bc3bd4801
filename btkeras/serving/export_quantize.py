"""What quantisation costs and saves, measured on the whole validation part."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.metrics.comparisons import mcnemar
from btkeras.metrics.intervals import wilson
from btkeras.serving.export_parity import observe_all
from btkeras.serving.network import Network

QUANTIZATIONS = ("int8", "float16")
# Single slices, as a doctor asks for them.
_TIMED = 20


@dataclass(frozen=True)
class Cost:
    """A quantised file beside the float32 one of its format. Pairs are of float32 and quantised.

    Attributes:
        format: A key of ``exported.FILES``.
        quantization: One of ``QUANTIZATIONS``.
        images: Of the validation part.
        correct: How many each has right.
        only_float32: How many only float32 has right.
        only_quantised: How many only the quantised one has right.
        p: McNemar's exact test of these two.
        difference: Largest difference of a probability.
        outliers: How many each takes for outliers; None without outlier scores.
        bytes: Of the files.
        milliseconds: For one slice on this machine, the least of several.
    """

    format: str
    quantization: str
    images: int
    correct: tuple[int, int]
    only_float32: int
    only_quantised: int
    p: float
    difference: float
    outliers: tuple[int, int] | None
    bytes: tuple[int, int]
    milliseconds: tuple[float, float]

    @property
    def points(self) -> float:
        """Accuracy lost, percentage points."""
        return 100 * (self.correct[0] - self.correct[1]) / self.images

    def to_json(self) -> dict[str, Any]:
        """As an object, with the accuracies and their 95 % intervals."""
        return asdict(self) | {
            "split": "validation",
            "accuracy": [correct / self.images for correct in self.correct],
            "accuracy_interval": [wilson(correct, self.images) for correct in self.correct],
            "points_lost": self.points,
        }


def cost(
    names: tuple[str, str],
    files: tuple[Path, Path],
    networks: tuple[Network, Network],
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
) -> Cost:
    """Measures it.

    Args:
        names: Format and quantisation.
        files: The float32 one, then the quantised.
        networks: Loaded from these.
        images: Prepared slices of the validation part, uint8 ``[n, size, size, channels]``.
        labels: Class indices ``[n]``.
    """
    (exact, exact_scores), (found, scores) = (observe_all(network, images) for network in networks)
    right, still = exact.argmax(axis=1) == labels, found.argmax(axis=1) == labels
    test, reference = mcnemar(right, still), networks[0].reference
    outliers = None
    if reference is not None and exact_scores is not None and scores is not None:
        outliers = (int(reference.outliers(exact_scores).sum()), int(reference.outliers(scores).sum()))
    return Cost(
        *names,
        images=len(labels),
        correct=(int(right.sum()), int(still.sum())),
        only_float32=test.only_a,
        only_quantised=test.only_b,
        p=test.p,
        difference=float(np.abs(exact - found).max()),
        outliers=outliers,
        bytes=(files[0].stat().st_size, files[1].stat().st_size),
        milliseconds=_milliseconds(networks, images),
    )


def _milliseconds(networks: tuple[Network, Network], images: NDArray[np.uint8]) -> tuple[float, float]:
    """In turns and the least of each, so that what else runs on the machine counts little."""
    times = np.empty((_TIMED, 2))
    for i in range(_TIMED):
        for j, network in enumerate(networks):
            start = time.perf_counter()
            network.observe(images[i % len(images)][None])
            times[i, j] = time.perf_counter() - start
    exact, found = (1000 * times.min(axis=0)).round(2).tolist()
    return exact, found
