"""Quantized models compared with their float32 ones on the validation subset, and evaluated on the test subset.

A quantized network is another network: its prediction sets and OOD percentiles come from its own outputs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.decisions.calibration import METHOD, Calibration, nonconformity_scores
from btkeras.decisions.ood import CalibrationScores
from btkeras.decisions.selective_classifier import Decision, SelectiveClassifier
from btkeras.errors import DataError, ImageError
from btkeras.export.parity import spread
from btkeras.inference.backends import InferenceBackend, ModelOutputs
from btkeras.metrics import negative_log_likelihood, summarize
from btkeras.metrics.comparisons import mcnemar
from btkeras.metrics.intervals import wilson
from btkeras.preprocessing.preprocessor import Preprocessor
from btkeras.runs import Run
from btkeras.training.pipeline import load_images

QUANTIZATIONS = ("int8", "float16")
# Calls of one slice.
_TIMED = 20


@dataclass(frozen=True)
class LabelledSlices:
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

    @classmethod
    def of(cls, kind: str, run: Run, preprocessor: Preprocessor) -> Quantization:
        """Loads the slices; DataError if the run's dataset is gone, or was changed."""
        try:
            dataset = run.dataset()
            records = spread(run.split(dataset).train)
            found = preprocessor.files([dataset.root / record.path for record in records])
            training = np.stack([image for image in found if not isinstance(image, ImageError)])
            return cls(kind, training, subset_slices(run, "validation"), subset_slices(run, "test"))
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


def quantized_calibration(
    kind: str, calibration: Calibration | None, labels: NDArray[np.integer], outputs: ModelOutputs
) -> Calibration | None:
    """The calibration of a quantized network from its outputs for the validation subset.

    The temperature is in the weights, and stays the checkpoint's.
    """
    if calibration is None:
        return None
    scores = tuple(nonconformity_scores(labels, outputs.probabilities).tolist())
    loss = negative_log_likelihood(labels, outputs.probabilities)
    method = f"{METHOD}; scores of the network in {kind}"
    return replace(calibration, scores=scores, nll_after=loss, method=method)


def quantized_ood_calibration(outputs: ModelOutputs) -> CalibrationScores | None:
    """The OOD calibration of a quantized network from its outputs for the validation subset."""
    return None if outputs.ood_scores is None else CalibrationScores(np.sort(outputs.ood_scores))


def compare(
    names: tuple[str, str],
    files: tuple[Path, Path],
    backends: tuple[InferenceBackend, InferenceBackend],
    data: Quantization,
) -> dict[str, Any]:
    """Compares a quantized file with the float32 one of its format; files and backends are float32, then quantized.

    Returns:
        ``format``, ``quantization``, ``images`` (of the validation subset), ``correct``, ``only_float32`` and
        ``only_quantized`` (how many only one of them has right), ``p`` (McNemar's exact test of these),
        ``difference`` (largest of a probability), ``mean_difference``, ``ood`` (out of distribution by its own scores),
        ``ood_differ``, ``sets_differ``, ``decisions_differ``, ``test`` (metrics of the quantized file), ``bytes``,
        ``milliseconds`` (for one slice on this machine, the least of several), ``split``, ``accuracy``,
        ``accuracy_interval`` and ``points_lost``. Without calibration or OOD scores, what needs them is None.
    """
    labels, count = data.validation.labels, len(data.validation.labels)
    outputs = [backend.predict_all(data.validation.images) for backend in backends]
    exact, found = (each.probabilities for each in outputs)
    right, still = (rows.argmax(axis=1) == labels for rows in (exact, found))
    test = mcnemar(right, still)
    before, after = (_decisions(*pair) for pair in zip(backends, outputs, strict=True))
    calibrated = backends[0].calibration is not None
    correct = (int(right.sum()), int(still.sum()))
    return {
        "format": names[0],
        "quantization": names[1],
        "images": count,
        "correct": correct,
        "only_float32": test.only_a,
        "only_quantized": test.only_b,
        "p": test.p,
        "difference": float(np.abs(exact - found).max()),
        "mean_difference": float(np.abs(exact - found).mean()),
        **_ood(backends, outputs),
        "sets_differ": sum(a.set != b.set for a, b in zip(before, after, strict=True)) if calibrated else None,
        "decisions_differ": sum(a.decision != b.decision for a, b in zip(before, after, strict=True)),
        "test": _metrics(backends[1], data.test),
        "bytes": [file.stat().st_size for file in files],
        "milliseconds": _milliseconds(backends, data.validation.images),
        "split": "validation",
        "accuracy": [each / count for each in correct],
        "accuracy_interval": [wilson(each, count) for each in correct],
        "points_lost": 100 * (correct[0] - correct[1]) / count,
    }


def _decisions(backend: InferenceBackend, outputs: ModelOutputs) -> list[Decision]:
    selective = SelectiveClassifier(backend.classes, backend.calibration, backend.ood_calibration)
    return selective.decisions(*outputs, [None] * len(outputs.probabilities))


def _ood(backends: Sequence[InferenceBackend], outputs: Sequence[ModelOutputs]) -> dict[str, Any]:
    found = [
        backend.ood_calibration.ood(each.ood_scores)
        for backend, each in zip(backends, outputs, strict=True)
        if backend.ood_calibration is not None and each.ood_scores is not None
    ]
    if len(found) < len(backends):
        return {"ood": None, "ood_differ": None}
    before, after = found
    return {"ood": (int(before.sum()), int(after.sum())), "ood_differ": int((before != after).sum())}


def _metrics(backend: InferenceBackend, slices: LabelledSlices) -> dict[str, Any]:
    found = summarize(slices.labels, backend.predict_all(slices.images).probabilities, backend.classes)
    images, accuracy = found["images"], found["accuracy"]
    interval = wilson(accuracy * images, images)
    return {"images": images, "accuracy": accuracy, "accuracy_interval": interval, "macro": found["macro"]}


def _milliseconds(backends: Sequence[InferenceBackend], images: NDArray[np.uint8]) -> list[float]:
    """In turns and the least of each, so that other processes count little."""
    times = np.empty((_TIMED, len(backends)))
    for i in range(_TIMED):
        for j, backend in enumerate(backends):
            start = time.perf_counter()
            backend.predict(images[i % len(images)][None])
            times[i, j] = time.perf_counter() - start
    least: list[float] = (1000 * times.min(axis=0)).round(2).tolist()
    return least


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
