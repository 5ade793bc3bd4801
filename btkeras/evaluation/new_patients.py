"""Metrics for new patients: scores with intervals that draw patients, and decisions per patient or series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.datasets.dataset import Record
from btkeras.datasets.scans import SCANS, scan_name
from btkeras.decisions.scan_decision import scan_decision_metrics
from btkeras.decisions.selective_classifier import Decision
from btkeras.errors import DataError
from btkeras.metrics import Resampling
from btkeras.metrics.groups import group_metrics
from btkeras.metrics.intervals import recall_metrics
from btkeras.metrics.scores import score_metrics
from btkeras.metrics.tumor_classes import tumor_class_metrics

_NEEDED = {
    "patient": "Write the column `patient` of manifest.csv, or prepare the images with it: btkeras prepare --patients",
    "series": "Prepare the DICOM or NIfTI files: `btkeras prepare` writes the columns `series` and `slice`",
}
_NO_GROUPS: Mapping[str, str] = MappingProxyType({})


def require_scans(records: Sequence[Record], group_by: str | None) -> None:
    """Raises ``DataError`` if no image names its patient, or its series; None asks for neither."""
    if group_by and not any(scan_name(record, group_by) for record in records):
        rule = f"Metrics per {group_by} need images that name their {group_by}"
        raise DataError(rule, received=f"{len(records):,} images, of which none does", remedy=_NEEDED[group_by])


def new_patient_metrics(
    records: Sequence[Record],
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    classes: Sequence[str],
    groups: Mapping[str, str] = _NO_GROUPS,
    decisions: Sequence[Decision] | None = None,
) -> dict[str, Any]:
    """Metrics with intervals, of images and of decisions on patients and scans, JSON-ready.

    Args:
        records: ``n`` images.
        labels: ``[n]`` class indices.
        probabilities: ``[n, classes]``.
        classes: Names, in the order of the indices.
        groups: Group of an image by path, such as its near-duplicates', where it names no patient.
        decisions: ``n`` of the slices, if they are known.

    Returns:
        ``macro_recall`` of the classes that occur, ``auc``, ``ece``, ``brier`` (``metrics.scores.score_metrics``);
        ``intervals`` of these and of the accuracy, which draw patients, or else groups, or else images;
        ``tumor_classes``; ``per_patient`` and ``per_series`` (``metrics.groups.group_metrics``; with decisions also
        ``selective``, of ``decisions.scan_decision.scan_decision_metrics``), None if not known.
    """
    names = {name: [scan_name(record, name) for record in records] for name in SCANS}
    drawn = [
        (patient, True) if patient else (groups.get(record.path, record.path), record.path in groups)
        for patient, record in zip(names["patient"], records, strict=True)
    ]
    number = {key: i for i, key in enumerate(dict.fromkeys(drawn))}
    members, resampling = np.array([number[key] for key in drawn]), Resampling()
    scores, intervals = score_metrics(labels, probabilities, members, resampling)
    recalls = recall_metrics(labels, probabilities.argmax(axis=1), members, classes, resampling)
    scans = {name: group_metrics(labels, probabilities, names[name], classes, resampling) for name in SCANS}
    outcomes = [decision.decision for decision in decisions or ()]
    for name, found in scans.items():
        if found and decisions is not None:
            found["selective"] = scan_decision_metrics(labels, probabilities, outcomes, names[name], classes)
    return {
        "macro_recall": recalls["macro_recall"],
        **scores,
        "intervals": {**recalls["intervals"], **intervals, "groups": len(number)},
        "tumor_classes": tumor_class_metrics(labels, probabilities, members, classes, resampling),
        **{f"per_{name}": found for name, found in scans.items()},
    }
