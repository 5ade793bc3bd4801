"""What quantisation costs and saves: on the whole validation part, by which it may be chosen, and on the test part.

A quantised network is another network. Its outlier scores and probabilities are compared with its own on the validation
part, as the float32 network's are with that network's own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.decisions.calibration import METHOD, Calibration
from btkeras.decisions.ood import CalibrationScores
from btkeras.decisions.selective_classifier import Decision, SelectiveClassifier
from btkeras.export.slices import Labelled
from btkeras.inference.backends import InferenceBackend, ModelOutputs
from btkeras.metrics import negative_log_likelihood, summarize
from btkeras.metrics.comparisons import mcnemar
from btkeras.metrics.conformal import nonconformity_scores
from btkeras.metrics.intervals import wilson

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
        only_quantized: How many only the quantised one has right.
        p: McNemar's exact test of these two.
        difference: Largest difference of a probability.
        mean_difference: Of all probabilities.
        ood: How many each takes for outliers, by its own reference; None without outlier scores.
        ood_differ: Of how many only one of them does; None likewise.
        sets_differ: How many have another prediction set, by its own conformal scores; None without calibration.
        decisions_differ: How many get another answer.
        test: The quantised file's ``images``, ``accuracy``, ``accuracy_interval`` and ``macro`` on the test part.
        bytes: Of the files.
        milliseconds: For one slice on this machine, the least of several.
    """

    format: str
    quantization: str
    images: int
    correct: tuple[int, int]
    only_float32: int
    only_quantized: int
    p: float
    difference: float
    mean_difference: float
    ood: tuple[int, int] | None
    ood_differ: int | None
    sets_differ: int | None
    decisions_differ: int
    test: dict[str, Any]
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


def own_calibration(
    quantization: str, calibration: Calibration | None, labels: NDArray[np.integer], observed: ModelOutputs
) -> Calibration | None:
    """What a quantised network's prediction sets are made from; None if its run was not calibrated.

    The temperature is in the weights, and stays.

    Args:
        quantization: One of ``QUANTIZATIONS``.
        calibration: The checkpoint's.
        labels: Class indices ``[n]`` of the validation part.
        observed: What the quantised network answers to it.
    """
    if calibration is None:
        return None
    scores = tuple(nonconformity_scores(labels, observed[0]).tolist())
    loss = negative_log_likelihood(labels, observed[0])
    return replace(
        calibration, scores=scores, nll_after=loss, method=f"{METHOD}; scores of the network in {quantization}"
    )


def own_reference(reference: CalibrationScores | None, observed: ModelOutputs) -> CalibrationScores | None:
    """What a quantised network's outlier scores are compared with; None if its run has no such scores."""
    _, scores = observed
    return None if reference is None or scores is None else CalibrationScores(np.sort(scores))


def cost(
    names: tuple[str, str],
    files: tuple[Path, Path],
    networks: tuple[InferenceBackend, InferenceBackend],
    validation: Labelled,
    test: Labelled,
) -> Cost:
    """Measures it.

    Args:
        names: Format and quantisation.
        files: The float32 one, then the quantised.
        networks: Loaded from these.
        validation: Of the run's split.
        test: Likewise.
    """
    observed = [network.predict_all(validation.images) for network in networks]
    exact, found = (probabilities for probabilities, _ in observed)
    right, still = (rows.argmax(axis=1) == validation.labels for rows in (exact, found))
    compared = mcnemar(right, still)
    differences = np.abs(exact - found)
    before, after = (_decisions(*one) for one in zip(networks, observed, strict=True))
    calibrated = networks[0].calibration is not None
    return Cost(
        *names,
        images=len(validation.labels),
        correct=(int(right.sum()), int(still.sum())),
        only_float32=compared.only_a,
        only_quantized=compared.only_b,
        p=compared.p,
        difference=float(differences.max()),
        mean_difference=float(differences.mean()),
        **_outliers(networks, observed),
        sets_differ=sum(a.set != b.set for a, b in zip(before, after, strict=True)) if calibrated else None,
        decisions_differ=sum(a.decision != b.decision for a, b in zip(before, after, strict=True)),
        test=_figures(networks[1], test),
        bytes=(files[0].stat().st_size, files[1].stat().st_size),
        milliseconds=_milliseconds(networks, validation.images),
    )


def _decisions(network: InferenceBackend, observed: ModelOutputs) -> list[Decision]:
    selective = SelectiveClassifier(network.classes, network.calibration, network.ood_calibration)
    return selective.decisions(*observed, [None] * len(observed[0]))


def _outliers(networks: Sequence[InferenceBackend], observed: Sequence[ModelOutputs]) -> dict[str, Any]:
    found = [
        network.ood_calibration.ood(scores)
        for network, (_, scores) in zip(networks, observed, strict=True)
        if network.ood_calibration is not None and scores is not None
    ]
    if len(found) < len(networks):
        return {"ood": None, "ood_differ": None}
    before, after = found
    return {"ood": (int(before.sum()), int(after.sum())), "ood_differ": int((before != after).sum())}


def _figures(network: InferenceBackend, part: Labelled) -> dict[str, Any]:
    found = summarize(part.labels, network.predict_all(part.images)[0], network.classes)
    images, accuracy = found["images"], found["accuracy"]
    interval = wilson(accuracy * images, images)
    return {"images": images, "accuracy": accuracy, "accuracy_interval": interval, "macro": found["macro"]}


def _milliseconds(
    networks: tuple[InferenceBackend, InferenceBackend], images: NDArray[np.uint8]
) -> tuple[float, float]:
    """In turns and the least of each, so that what else runs on the machine counts little."""
    times = np.empty((_TIMED, 2))
    for i in range(_TIMED):
        for j, network in enumerate(networks):
            start = time.perf_counter()
            network.predict(images[i % len(images)][None])
            times[i, j] = time.perf_counter() - start
    exact, found = (1000 * times.min(axis=0)).round(2).tolist()
    return exact, found
