"""Scores of an exported model's maps against tumour boxes or masks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from btkeras.datasets.dataset import Dataset
from btkeras.errors import ImageError
from btkeras.evaluation.results import EvaluationResult
from btkeras.explain.methods import DEFAULT_METHOD, METHODS
from btkeras.explain.score_rows import (
    Tumors,
    baselines,
    classified_tumors,
    document,
    regions_of,
    score_row,
    with_region,
)
from btkeras.inference.backends import InferenceBackend
from btkeras.inference.explanations import map_method
from btkeras.inference.predictor import Predictor
from btkeras.logging import logger


def score_maps(
    backend: InferenceBackend,
    dataset: Dataset,
    result: EvaluationResult,
    subset: str,
    methods: Sequence[str] = (),
    limit: int | None = None,
) -> dict[str, Any]:
    """Scores maps of an evaluated model, as ``explain.scores.score_explanations`` does without random weights.

    Args:
        backend: The model.
        dataset: The dataset it was evaluated on.
        result: Its predictions there.
        subset: Their name.
        methods: Of ``METHODS``; by default LayerCAM.
        limit: So many tumours at most.

    Returns:
        The content of ``explanations.json``.

    Raises:
        DataError: If there is no correctly classified tumour with a box or mask.
        ConfigError, ModelError: As ``map_method``.
    """
    explain = {name: map_method(backend, name) for name in methods or (DEFAULT_METHOD,)}
    tumors = _tumors(backend, dataset, result, limit)
    rows = baselines(tumors, [])
    for name, maps_of in explain.items():
        logger.info(f"explaining {len(tumors.images):,} images by {name}")
        begin = time.perf_counter()
        maps = maps_of(tumors.images, tumors.labels)
        seconds = 100 * (time.perf_counter() - begin) / len(tumors.images)
        row = score_row(METHODS[name].title, "trained", maps, tumors)
        rows.append(row | {"method": name, "seconds_per_100": round(seconds, 1)})
    return document(dataset, subset, tumors, rows)


def _tumors(backend: InferenceBackend, dataset: Dataset, result: EvaluationResult, limit: int | None) -> Tumors:
    harmonized = backend.harmonize
    known, kind, count = with_region(dataset, result.records, harmonized=harmonized, limit=limit)
    found = Predictor(backend).preprocessor.files([dataset.root / record.path for record in known])
    images = np.stack([image for image in found if not isinstance(image, ImageError)])
    # Predicted again, since of tumours whose kind is not known the result has the kinds' sum only.
    probabilities = backend.predict_all(images).probabilities
    regions = regions_of(dataset, known, images.shape[1:3], kind, harmonized=harmonized)
    return classified_tumors(images, (known, kind, count), regions, backend.classes, probabilities)
