"""Metrics of an exported model on labelled images: its run's split, or another dataset."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from btkeras.datasets.dataset import Dataset, Record
from btkeras.decisions.selective_classifier import Decision
from btkeras.errors import DataError
from btkeras.evaluation.new_patients import require_scans
from btkeras.evaluation.results import EvaluationResult
from btkeras.evaluation.tumor_or_none import as_tumor_or_none, dataset_of_model
from btkeras.inference.backends import InferenceBackend
from btkeras.inference.model_folder import IMAGE_DIGESTS, image_digest, invalid_model
from btkeras.inference.predictor import Predictor
from btkeras.machine import map_in_threads
from btkeras.splitting.known_slices import KNOWN_SUBSETS
from btkeras.splitting.splits import SUBSETS

ALL = "all"
# Subsets whose near-duplicates are sought; validation slices of the same split are new to the weights.
_SOUGHT: Mapping[str, tuple[str, ...]] = MappingProxyType({"test": ("train",), ALL: KNOWN_SUBSETS})
_Key = tuple[str, str]


def evaluate_exported(
    backend: InferenceBackend,
    dataset: Dataset,
    subset: str = "test",
    *,
    skip_broken: bool = False,
    group_by: str | None = None,
) -> tuple[EvaluationResult, dict[str, Any]]:
    """Evaluates an exported model.

    If the dataset holds the images of the run's split (known by their content, whatever their names), a subset of that
    split is evaluated; if it holds none of them, all images. ``group_by`` asks for metrics per ``patient`` or
    ``series``.

    Returns:
        The result, and its metrics as ``evaluation.evaluate.evaluate_split`` gives them. Near-duplicates are found by
        the model's perceptual hashes; of a model without them ``without_near_duplicates`` is missing.

    Raises:
        DataError: If the dataset holds some of the split's images but not the whole subset, a class that the model
            does not know, an image that cannot be read, or none that names what ``group_by`` asks for.
    """
    dataset = dataset_of_model(dataset, backend.classes, merged=True)
    chosen, name = _chosen(backend.source, dataset, subset)
    require_scans(chosen, group_by)
    if backend.calibration:
        backend.calibration.warn_if_fitted_on(dataset.root)
    predictor = Predictor(backend)
    predictions = list(predictor.predict_files([dataset.root / record.path for record in chosen]))
    broken = [prediction.error for prediction in predictions if prediction.error]
    if broken and not skip_broken:
        raise DataError(
            "Every image of a dataset must be readable",
            received=f"{len(broken)} broken, the first: {broken[0]}",
            remedy="Mend or remove them, or leave them out: --skip-broken",
        )
    if len(broken) == len(chosen):
        raise DataError("A dataset must hold an image that can be read", received=broken[0] if broken else "none")
    records = tuple(record for record, found in zip(chosen, predictions, strict=True) if not found.error)
    found = [prediction for prediction in predictions if not prediction.error]
    probabilities = np.array([[each.probabilities[name] for name in backend.classes] for each in found], np.float32)
    decisions = [Decision(each.decision, each.set, each.ood_percentile, each.reasons) for each in found]
    wanted, pairs = _SOUGHT.get(name, ()), zip(records, found, strict=True)
    near = {record.path: each.near_duplicate for record, each in pairs if each.near_duplicate in wanted}
    known = near if predictor.known and wanted else None
    result = EvaluationResult(records, backend.classes, probabilities, backend.calibration, decisions, known)
    result = as_tumor_or_none(result)
    return result, result.metrics(dataset, name, broken=len(broken))


def _chosen(version: Path, dataset: Dataset, subset: str) -> tuple[list[Record], str]:
    """The images to evaluate, and the subset that they are."""
    known = _split_digests(version)
    digests = list(map_in_threads(lambda record: image_digest(dataset.root / record.path), dataset.records))
    places: dict[_Key, list[Record]] = defaultdict(list)
    for record, digest in zip(dataset.records, digests, strict=True):
        places[record.label, digest].append(record)
    wanted = known[subset]
    missing = sum(max(0, count - len(places.get(key, ()))) for key, count in wanted.items())
    if not missing:
        # Of equal files in several subsets, as many are taken as this subset had.
        found = [record for key, count in wanted.items() for record in places[key][:count]]
        return sorted(found, key=lambda record: record.path), subset
    training = {digest for name in ("train", "validation") for _, digest in known[name]}
    leaked = sum(digest in training for digest in digests)
    if leaked or missing < wanted.total():
        raise DataError(
            f"A dataset must hold the whole {subset} subset of the run's split, or none of its images",
            received=f"{dataset.root}, without {missing:,} of the {wanted.total():,} images of that subset and with "
            f"{leaked:,} of training and validation, which cannot test the model",
            remedy="Give the run's whole dataset, or take these images out",
        )
    return list(dataset.records), ALL


def _split_digests(version: Path) -> dict[str, Counter[_Key]]:
    """How often each image, by label and digest, is in each subset."""
    file = version / IMAGE_DIGESTS
    if not file.is_file():
        raise DataError(
            "An exported model must have its split's image digests to be evaluated",
            received=f"{version} without {IMAGE_DIGESTS}",
            remedy="Evaluate its run, or export it again while the run's dataset is there",
        )
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        return {
            subset: Counter((label, digest) for label, digests in document[subset].items() for digest in digests)
            for subset in SUBSETS
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise invalid_model(file, error) from error
