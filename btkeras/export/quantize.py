"""Quantized models compared with their float32 ones on the validation subset, and evaluated on the test subset.

A quantized network is another network: its prediction sets, OOD percentiles and abstention threshold come from its own
outputs.
"""

from __future__ import annotations

import timeit
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btkeras.decisions.abstention import VALIDATION, Abstention
from btkeras.decisions.calibration import METHOD, VALIDATION_SUBSET, nonconformity_scores
from btkeras.decisions.ood import CalibrationScores
from btkeras.errors import DataError, ImageError
from btkeras.evaluation.calibrate import CalibrationImages, abstention_of, calibration_images
from btkeras.export.parity import spread
from btkeras.inference.backends import InferenceBackend, ModelOutputs, load_backend
from btkeras.inference.predictor import Predictor
from btkeras.metrics import negative_log_likelihood, summarize
from btkeras.metrics.comparisons import mcnemar
from btkeras.metrics.intervals import wilson
from btkeras.preprocessing.preprocessor import Preprocessor
from btkeras.runs import Run
from btkeras.training.pipeline import load_images

QUANTIZATIONS = ("int8", "float16")
# Calls of one slice.
_TIMED = 20


class LabelledSlices(NamedTuple):
    """Network inputs, uint8 ``[n, size, size, channels]``, and class indices ``[n]``."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Quantization:
    """One of ``QUANTIZATIONS``; up to 200 network inputs for the activations' ranges; two subsets to compare on."""

    kind: str
    training: NDArray[np.uint8]
    validation: LabelledSlices
    test: LabelledSlices
    calibration: CalibrationImages  # of the OOD percentiles and the abstention threshold

    @classmethod
    def of(cls, kind: str, run: Run, preprocessor: Preprocessor) -> Quantization:
        """Loads the slices; DataError if the run's dataset is gone, or was changed."""
        try:
            dataset = run.dataset()
            split = run.split(dataset)
            records = spread(split.train)
            found = preprocessor.files([dataset.root / record.path for record in records])
            training = np.stack([image for image in found if not isinstance(image, ImageError)])
            subsets = (subset_slices(run, "validation"), subset_slices(run, "test"))
            return cls(kind, training, *subsets, calibration_images(run, split, dataset))
        except DataError as error:
            raise DataError(
                "Quantization needs the run's dataset, for calibration and comparison",
                received=str(error).rstrip("."),
                remedy="Leave --quantize away, or put the dataset back",
            ) from error


def subset_slices(run: Run, subset: str) -> LabelledSlices:
    """All slices of a subset (of ``splitting.splits.SUBSETS``); DataError if the run's dataset is gone or changed."""
    dataset, config, classes = run.dataset(), run.config(), run.classes()
    records = run.split(dataset).subset(subset)
    cache = load_images(dataset, records, config.data.image_size, config, name=subset)
    labels = np.array([classes.index(records[i].label) for i in cache.usable])
    return LabelledSlices(cache.take(np.arange(len(cache))), labels)


def recalibrated(checkpoint: InferenceBackend, network: InferenceBackend, data: Quantization) -> InferenceBackend:
    """The checkpoint with the calibration of its quantized network, from that one's outputs.

    The temperature is in the weights, and stays the checkpoint's; so do threshold and prediction sets that were fitted
    on a dataset of its own, which is not at hand.
    """
    labels, probabilities = data.validation.labels, network.predict_all(data.validation.images).probabilities
    shifted = network.predict_all(data.calibration.images)
    ood = None if shifted.ood_scores is None else CalibrationScores(np.sort(shifted.ood_scores))
    calibration = checkpoint.calibration and replace(
        checkpoint.calibration,
        nll_after=negative_log_likelihood(labels, probabilities),
        abstention=_abstention(checkpoint.calibration.abstention, data.calibration, shifted, ood),
    )
    if calibration and calibration.data == VALIDATION_SUBSET:
        scores = tuple(nonconformity_scores(labels, probabilities).tolist())
        calibration = replace(calibration, scores=scores, method=f"{METHOD}; scores of the network in {data.kind}")
    return replace(checkpoint, calibration=calibration, ood_calibration=ood)


def _abstention(
    found: Abstention | None, images: CalibrationImages, outputs: ModelOutputs, ood: CalibrationScores | None
) -> Abstention | None:
    """The checkpoint's threshold, or the quantized network's own where the images are at hand."""
    if found is None or found.data != VALIDATION:
        return found
    none = np.zeros(len(images.labels), bool)
    beyond = none if ood is None or outputs.ood_scores is None else ood.ood(outputs.ood_scores)
    return abstention_of(images, outputs.probabilities, beyond, found.data, (found.risk,), found.level)


def compare(model_format: str, files: tuple[Path, Path], data: Quantization) -> dict[str, Any]:
    """Compares a quantized file with the float32 one of its format; ``files`` are float32, then quantized.

    Returns:
        ``only_float32`` and ``only_quantized`` are how many slices only one of them has right, ``p`` is McNemar's exact
        test of these, ``difference`` the largest of a probability, ``ood`` how many are out of distribution by a file's
        own scores, ``test`` has metrics of the quantized file, and ``milliseconds`` are for one slice on this machine,
        the least of several. Without calibration or OOD scores, what needs them is None.
    """
    labels, count = data.validation.labels, len(data.validation.labels)
    backends = [load_backend(file) for file in files]
    outputs = [backend.predict_all(data.validation.images) for backend in backends]
    exact, found = (each.probabilities for each in outputs)
    right, still = (rows.argmax(axis=1) == labels for rows in (exact, found))
    test = mcnemar(right, still)
    decisions = [
        Predictor(backend).selective.decisions(*each, [None] * count)
        for backend, each in zip(backends, outputs, strict=True)
    ]
    tested = backends[1].predict_all(data.test.images).probabilities
    pairs = list(zip(*decisions, strict=True))
    calibrated = backends[0].calibration is not None
    correct = (int(right.sum()), int(still.sum()))
    return {
        "format": model_format,
        "quantization": data.kind,
        "images": count,
        "correct": correct,
        "only_float32": test.only_a,
        "only_quantized": test.only_b,
        "p": test.p,
        "difference": float(np.abs(exact - found).max()),
        "mean_difference": float(np.abs(exact - found).mean()),
        **_ood(backends, outputs),
        "sets_differ": sum(a.set != b.set for a, b in pairs) if calibrated else None,
        "decisions_differ": sum(a.decision != b.decision for a, b in pairs),
        "test": with_interval(summarize(data.test.labels, tested, backends[1].classes)),
        "bytes": [file.stat().st_size for file in files],
        "milliseconds": _milliseconds(backends, data.validation.images),
        "split": "validation",
        "accuracy": [each / count for each in correct],
        "accuracy_interval": [wilson(each, count) for each in correct],
        "points_lost": 100 * (correct[0] - correct[1]) / count,
    }


def _ood(backends: Sequence[InferenceBackend], outputs: Sequence[ModelOutputs]) -> dict[str, Any]:
    beyond = [
        backend.ood_calibration.ood(each.ood_scores)
        for backend, each in zip(backends, outputs, strict=True)
        if backend.ood_calibration is not None and each.ood_scores is not None
    ]
    if len(beyond) < len(backends):
        return {"ood": None, "ood_differ": None}
    return {"ood": [int(each.sum()) for each in beyond], "ood_differ": int((beyond[0] != beyond[1]).sum())}


def with_interval(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """``images``, ``accuracy`` and ``macro`` of ``metrics.summarize``, and the accuracy's 95 % interval."""
    images, accuracy = int(metrics["images"]), float(metrics["accuracy"])
    macro = {name: float(value) for name, value in metrics["macro"].items()}
    interval = wilson(accuracy * images, images)
    return {"images": images, "accuracy": accuracy, "accuracy_interval": interval, "macro": macro}


def _milliseconds(backends: Sequence[InferenceBackend], images: NDArray[np.uint8]) -> list[float]:
    """In turns and the least of each, so that other processes count little."""
    times = [
        [timeit.timeit(partial(backend.predict, images[[i % len(images)]]), number=1) for backend in backends]
        for i in range(_TIMED)
    ]
    return [round(1000 * float(least), 2) for least in np.min(times, axis=0)]


def format_comparison(row: Mapping[str, Any]) -> list[str]:
    """A result of ``compare`` as lines of text."""
    (before, after), (low, high) = row["accuracy"], row["accuracy_interval"][1]
    (exact_bytes, found_bytes), (exact_time, found_time) = row["bytes"], row["milliseconds"]
    decisions = f"  another decision for {row['decisions_differ']}"
    if row["sets_differ"] is not None:
        decisions += f"; another prediction set for {row['sets_differ']}"
    if row["ood"]:
        decisions += f"; out of distribution {row['ood'][1]}, float32 {row['ood'][0]}, {row['ood_differ']} not the same"
    return [
        f"{row['format']} in {row['quantization']}, {row['images']:,} slices of the {row['split']} subset:",
        f"  accuracy {100 * after:.2f} % (95 % interval {100 * low:.2f}..{100 * high:.2f}), "
        f"float32 {100 * before:.2f} %: {100 * (after - before):+.2f} points",
        f"  only float32 right {row['only_float32']}, only {row['quantization']} right {row['only_quantized']} "
        f"(McNemar p {row['p']:.2g}); difference of a probability {row['difference']:.2g} at most, "
        f"{row['mean_difference']:.1g} on average",
        decisions,
        f"  test subset: accuracy {100 * row['test']['accuracy']:.2f} % of {row['test']['images']:,}",
        f"  {found_bytes / 1e6:.1f} MB, float32 {exact_bytes / 1e6:.1f} MB; "
        f"{found_time:.1f} ms a slice here, float32 {exact_time:.1f} ms",
    ]
