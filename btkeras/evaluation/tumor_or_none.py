"""Kinds of tumours as one class, where either a model or a dataset does not know them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from btkeras.datasets.classes import KINDS, NO_TUMOR, TUMOR
from btkeras.datasets.dataset import Dataset
from btkeras.errors import DataError
from btkeras.evaluation.results import EvaluationResult
from btkeras.logging import logger


def dataset_of_model(dataset: Dataset, classes: Sequence[str], *, merged: bool = False) -> Dataset:
    """A dataset with the classes that a model knows: to one of ``tumor``, kinds of tumours are that.

    ``merged`` says that ``tumor`` may stay for a model of kinds, for ``as_tumor_or_none``. Raises ``DataError`` if the
    model does not know another of the dataset's classes.
    """
    kinds = sorted(KINDS.intersection(dataset.classes).difference(classes))
    if TUMOR in classes and kinds:
        _log(kinds, "the model does not know kinds")
        records = (replace(each, label=TUMOR) if each.label in kinds else each for each in dataset.records)
        dataset = Dataset(dataset.root, tuple(records))
    only_kinds = NO_TUMOR in classes and {*classes} - {NO_TUMOR} <= KINDS
    unknown_kinds = only_kinds and TUMOR in dataset.classes
    if unknown_kinds and not merged:
        raise DataError(
            f"The kind of each tumour must be known here, since the model tells apart {', '.join(classes)}",
            received=f"{TUMOR} in {dataset.root}",
            remedy="Name the kinds, use a model of tumour or none, or see what `btkeras evaluate --data` says of them",
        )
    dataset.require_classes([*classes, TUMOR] if unknown_kinds else classes)
    return dataset


def as_tumor_or_none(result: EvaluationResult) -> EvaluationResult:
    """A result on images of ``tumor``, where the model knows kinds of tumours: their probabilities are added.

    What is uncertain or rejected stays so, and the others are decided as the more probable of the two. The calibration,
    whose prediction sets are of the kinds, is left out. Any other result stays as it is.
    """
    if TUMOR in result.classes or not any(record.label == TUMOR for record in result.records):
        return result
    kinds = [name for name in result.classes if name != NO_TUMOR]
    _log(kinds, "of these images it is not known which kind they show")
    meant = {name: name if name == NO_TUMOR else TUMOR for name in result.classes}
    members = np.array([[meant[name] == merged for merged in (NO_TUMOR, TUMOR)] for name in result.classes])
    # A sum of float32 may exceed 1 by its rounding.
    probabilities = np.minimum(result.probabilities @ members.astype(result.probabilities.dtype), 1)
    labels = [TUMOR if row[1] > row[0] else NO_TUMOR for row in probabilities]
    decisions = result.decisions and [
        replace(
            each,
            decision=label if each.decision in meant else each.decision,
            set=each.set and tuple(dict.fromkeys(meant[name] for name in each.set)),
        )
        for each, label in zip(result.decisions, labels, strict=True)
    ]
    return replace(
        result, classes=(NO_TUMOR, TUMOR), probabilities=probabilities, calibration=None, decisions=decisions
    )


def _log(kinds: Sequence[str], reason: str) -> None:
    logger.info(f"{', '.join(kinds)} count as {TUMOR}: {reason}")
