"""The figures of an exported model on labelled images: those that its run was tested on, or another dataset's."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from btkeras.datasets.dataset import Dataset, Record
from btkeras.decisions.selective_classifier import SelectiveClassifier, check_files
from btkeras.errors import DataError, ImageError
from btkeras.evaluation.results import EvaluationResult
from btkeras.export.metadata import image_digest
from btkeras.inference.backends.base import InferenceBackend, ModelOutputs
from btkeras.inference.model_folder import IMAGES, not_whole
from btkeras.inference.processing import Postprocessor
from btkeras.machine import threads
from btkeras.splitting.splits import SUBSETS

_BATCH = 32
ALL = "all"


def evaluate_exported(
    network: InferenceBackend, dataset: Dataset, subset: str = "test", *, skip_broken: bool = False
) -> tuple[EvaluationResult, dict[str, Any]]:
    """Shows an exported network labelled images.

    If the dataset holds the images of the split that the network comes from (known by their content, wherever they
    lie and whatever they are called), it is tested on a part of that split; if it holds none of them, on all images.

    Args:
        network: Of an exported version.
        dataset: The images.
        subset: One of ``data.splits.PARTS``.
        skip_broken: Leave out what cannot be read.

    Returns:
        The answers, and the metrics as ``evaluation.evaluate.evaluate_split`` gives them.

    Raises:
        DataError: If the dataset holds some of the split's images but not all of the part, a class that the network
            does not know, or an image that cannot be read.
    """
    _require_classes(network, dataset)
    chosen, name = _chosen(network.source, dataset, subset)
    records, observed, broken = _observe(network, dataset, chosen)
    if broken and not skip_broken:
        raise DataError(
            "Every image of a dataset must be readable",
            received=f"{len(broken)} broken, the first: {broken[0]}",
            remedy="Mend or remove them, or leave them out: --skip-broken",
        )
    selective = SelectiveClassifier(network.classes, network.calibration, network.reference)
    refusals = check_files([dataset.root / record.path for record in records])
    decisions = selective.decisions(*observed, refusals)
    result = EvaluationResult(tuple(records), network.classes, observed[0], network.calibration, decisions)
    facts = {"dataset": str(dataset.root), "split": name, "broken": len(broken)}
    return result, facts | result.metrics()


def _require_classes(network: InferenceBackend, dataset: Dataset) -> None:
    if unknown := set(dataset.classes) - set(network.classes):
        raise DataError(
            f"The dataset's classes must be among the network's ({', '.join(network.classes)})",
            received=", ".join(sorted(unknown)),
        )


@dataclass(frozen=True)
class _Known:
    """How often each image, by its class and digest, is in each part of the split."""

    subsets: dict[str, Counter[tuple[str, str]]]

    @staticmethod
    def read(version: Path) -> _Known | None:
        file = version / IMAGES
        if not file.is_file():
            return None
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            return _Known(
                {
                    subset: Counter((label, digest) for label, found in document[subset].items() for digest in found)
                    for subset in SUBSETS
                }
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise not_whole(file, error) from error

    def learnt_from(self, digests: Sequence[str]) -> int:
        """How many of these images were trained on, or chose the checkpoint."""
        seen = {digest for subset in ("train", "validation") for _, digest in self.subsets[subset]}
        return sum(digest in seen for digest in digests)


def _chosen(version: Path, dataset: Dataset, subset: str) -> tuple[list[Record], str]:
    """The images to be shown, and what they are."""
    known = _Known.read(version)
    if known is None:
        raise DataError(
            "An exported model must know the images of its split to be tested",
            received=f"{version} without {IMAGES}",
            remedy="Evaluate its run, or export it again while the run's dataset is there",
        )
    with ThreadPoolExecutor(threads()) as pool:
        digests = list(pool.map(lambda record: image_digest(dataset, record), dataset.records))
    places: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record, digest in zip(dataset.records, digests, strict=True):
        places[record.label, digest].append(record)
    wanted = known.subsets[subset]
    missing = sum(max(0, count - len(places.get(key, ()))) for key, count in wanted.items())
    if not missing:
        # Equal files of several parts are all the same to the figures: as many are taken as the part had.
        found = [record for key, count in wanted.items() for record in places[key][:count]]
        return sorted(found, key=lambda record: record.path), subset
    learnt = known.learnt_from(digests)
    if learnt or missing < wanted.total():
        raise DataError(
            f"A dataset must hold the whole {subset} part that the network's run split off, or none of its images",
            received=f"{dataset.root}, without {missing:,} of the {wanted.total():,} images of that part and with "
            f"{learnt:,} that the network was trained or chosen on, which cannot test it",
            remedy="Give the run's whole dataset, or take these images out",
        )
    return list(dataset.records), ALL


def _observe(
    network: InferenceBackend, dataset: Dataset, records: Sequence[Record]
) -> tuple[list[Record], ModelOutputs, list[ImageError]]:
    """The readable images, the network's answers to these, and what is wrong with the others."""
    decoder = Postprocessor.of(network).decoder
    images = decoder.files([dataset.root / record.path for record in records])
    usable: list[Record] = []
    broken: list[ImageError] = []
    batch: list[Any] = []
    answers: list[ModelOutputs] = []
    for record, image in zip(records, images, strict=True):
        if isinstance(image, ImageError):
            broken.append(image)
            continue
        usable.append(record)
        batch.append(image)
        if len(batch) == _BATCH:
            answers.append(network.observe(np.stack(batch)))
            batch = []
    if batch:
        answers.append(network.observe(np.stack(batch)))
    if not answers:
        raise DataError("A dataset must hold an image that can be read", received=broken[0] if broken else "none")
    scores = [score for _, score in answers if score is not None]
    return usable, (np.concatenate([rows for rows, _ in answers]), np.concatenate(scores) if scores else None), broken
