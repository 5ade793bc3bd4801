"""What an exported version has to answer to an image that travels with it, for ``selftest``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from btkeras.decisions.calibration import COVERAGE
from btkeras.decisions.ood import OOD_PERCENTILE
from btkeras.export.slices import phantom_image
from btkeras.files import write_json
from btkeras.inference.backends import InferenceBackend
from btkeras.inference.model_folder import FILES, SELFTEST, SELFTEST_IMAGE
from btkeras.inference.predictor import FilePrediction, Predictor

# By quantisation: of a probability, and of the outlier percentage. Another processor rounds otherwise. LiteRT's three
# sets of kernels differ by 1.3e-6 with float32 weights, by 6e-7 with float16 and by 0.017 in int8, whose activations
# change by whole steps (12 phantom slices, configs/robust.yaml); processors with arithmetic of 16 bits may use it.
_TOLERANCES: Mapping[str | None, tuple[float, float]] = MappingProxyType(
    {None: (1e-3, 1.0), "float16": (5e-3, 1.0), "int8": (0.05, 5.0)}
)


def write_selftest(version: Path, formats: Sequence[str], quantization: str | None) -> dict[str, Any]:
    """Writes ``assets.extra/selftest.png``, a synthetic slice, and ``selftest.json``.

    Args:
        version: Its folder, with all files that a prediction needs.
        formats: Keys of ``exported.FILES``.
        quantization: Of the formats of one file; one of ``export_quantize.QUANTIZATIONS``, or None.

    Returns:
        What ``selftest.json`` holds: the ``coverage`` of sets and, by format in ``formats``, what is expected.
    """
    image = version / SELFTEST_IMAGE
    image.write_bytes(phantom_image())
    expected = {form: _expected(version / FILES[form], image, form, quantization) for form in formats}
    document = {"image": image.name, "coverage": COVERAGE, "formats": expected}
    write_json(version / SELFTEST, document)
    return document


def _expected(file: Path, image: Path, form: str, quantization: str | None) -> dict[str, Any]:
    kind = None if form == "savedmodel" else quantization
    probability, ood_percentile = _TOLERANCES[kind]
    predictor = Predictor(file)
    (answer,) = predictor.predict_files([image])
    return {
        "file": file.name,
        "quantization": kind,
        "decision": answer.decision,
        "set": answer.set,
        "ood_percentile": answer.ood_percentile,
        "probabilities": answer.probabilities,
        "tolerance": {"probability": probability, "ood_percentile": ood_percentile},
        # Whether answers within the tolerance are all the same one.
        "decided": _decided(predictor.backend, answer, probability, ood_percentile),
        "thresholds": thresholds(predictor.backend),
    }


def thresholds(network: InferenceBackend) -> dict[str, float | None]:
    """Beyond which ``ood_score`` an image is an outlier, and from which ``probability`` a class is in a set."""
    calibration, reference = network.calibration, network.ood_calibration
    return {
        "ood_score": reference.threshold if reference else None,
        "probability": 1 - calibration.threshold(COVERAGE) if calibration else None,
    }


def _decided(network: InferenceBackend, answer: FilePrediction, probability: float, ood_percentile: float) -> bool:
    values = np.array([*answer.probabilities.values()])
    limit = thresholds(network)["probability"]
    near_set = limit is not None and bool((np.abs(values - limit) <= probability).any())
    near_outlier = (
        answer.ood_percentile is not None and abs(answer.ood_percentile - 100 * OOD_PERCENTILE) <= ood_percentile
    )
    first, second = np.sort(values)[[-1, -2]]
    return not near_set and not near_outlier and bool(first - second > 2 * probability)
