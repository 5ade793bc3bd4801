"""Published splits: the column of a manifest that holds one, and the subset that it gives each image."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from btkeras.datasets.dataset import Record, find_subset
from btkeras.datasets.patients import FOLD, PUBLISHED_PATIENT
from btkeras.datasets.readers.folders import natural
from btkeras.errors import DataError
from btkeras.logging import logger

# As `btkeras prepare` writes them: the folds of FigShare's authors; training and test folders.
OFFICIAL_FOLD, SUBSET = FOLD, "subset"


@dataclass(frozen=True)
class DividedPatients:
    """Patients who have slices in several parts of a split, of ``patients`` with ``images`` that have a part."""

    parts: Mapping[str, tuple[str, ...]]  # of each divided patient, by source and name
    ids: int  # published ids of the divided patients
    slices: int  # of the divided patients
    patients: int
    images: int

    def __str__(self) -> str:
        share = self.slices / self.images if self.images else 0
        slices = f"{self.slices:,} of {self.images:,} slices, {share:.1%}"
        return f"{len(self.parts):,} of {self.patients:,} patients ({self.ids:,} ids; {slices})"


def divided_patients(records: Sequence[Record], part_of: Mapping[str, str]) -> DividedPatients:
    """Finds the patients that a split divides; ``part_of`` has an image's part by its path, the parts in order.

    Images without patient or part do not count. Ids are unique within a source only.
    """
    members: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.patient and record.path in part_of:
            members[f"{record.source} {record.patient}".strip()].append(record)
    order = {part: number for number, part in enumerate(dict.fromkeys(part_of.values()))}
    found = {name: {part_of[record.path] for record in members[name]} for name in sorted(members)}
    parts = {name: tuple(sorted(several, key=order.__getitem__)) for name, several in found.items() if len(several) > 1}
    ids = {(name, r.extra.get(PUBLISHED_PATIENT) or r.patient) for name in parts for r in members[name]}
    images = sum(record.path in part_of for record in records)
    return DividedPatients(parts, len(ids), sum(len(members[name]) for name in parts), len(members), images)


def fold_parts(records: Sequence[Record]) -> dict[str, str]:
    """The part, ``fold N``, of each image that has an ``official_fold``, by path, in the folds' order."""
    folds = {record.path: record.extra[OFFICIAL_FOLD] for record in records if record.extra.get(OFFICIAL_FOLD)}
    return {path: f"fold {folds[path]}" for path in sorted(folds, key=lambda path: natural(folds[path]))}


def published_parts(records: Sequence[Record], column: str) -> dict[str, str]:
    """The part of each image of a published split, as it is, by path; errors as ``published_column``, and for a column
    without folds as ``published_subsets``.
    """
    column = published_column(records, column)
    if column == OFFICIAL_FOLD:
        return fold_parts(records)
    subsets = published_subsets(records, column)
    names = ("train", "validation", "test")
    return {record.path: name for name in names for record in subsets.get(name, [])}


def published_column(records: Sequence[Record], chosen: str = "") -> str:
    """The column with a published split: the ``chosen`` one, or else the one of ``prepare`` that images have.

    Raises:
        DataError: If no image has a value in it, or none is chosen and images have values in both.
    """
    filled = {name for record in records for name, value in record.extra.items() if value}
    if chosen:
        if chosen not in filled:
            found = f"{chosen!r}; the dataset has {', '.join(sorted(filled)) or 'no further columns'}"
            raise DataError("data.split_column must be a column of manifest.csv with values", received=found)
        return chosen
    columns = [name for name in (OFFICIAL_FOLD, SUBSET) if name in filled]
    if not columns:
        raise DataError(
            "An official split needs images with the folds of FigShare's authors, or with a published training and "
            "test part",
            received=f"neither in the columns {OFFICIAL_FOLD} and {SUBSET}",
            remedy="Prepare FigShare's download with its cvind.mat, or a collection with its folders Training and "
            "Testing; name another column of manifest.csv with --split-column, or use --group-by patient",
        )
    if len(columns) > 1:
        raise DataError(
            "There must be one published split",
            received=f"values in the columns {' and '.join(columns)}",
            remedy=f"Say which one: {' or '.join(f'--split-column {name}' for name in columns)}",
        )
    return columns[0]


def published_subsets(records: Sequence[Record], column: str) -> dict[str, list[Record]]:
    """The records of ``train``, ``validation`` (maybe none) and ``test``, as the column says.

    Raises:
        DataError: If an image has no value or another one, or a class is not in every subset that there is.
    """
    unknown = Counter(
        value for record in records if (value := record.extra.get(column, "")) and not find_subset(value, short=True)
    )
    if unknown:
        value, count = unknown.most_common(1)[0]
        more = f" (and {len(unknown) - 1} other values)" if len(unknown) > 1 else ""
        raise DataError(
            "A published split's column must say train, test or validation",
            received=f"{value!r} of {count:,} images{more} in the column {column}",
            remedy=f"Name another column; numbers of folds belong in the column {OFFICIAL_FOLD}",
        )
    subsets: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        subsets[find_subset(record.extra.get(column, ""), short=True)].append(record)
    if without := subsets.pop("", []):
        raise _without_value(without, column, len(records))
    _check_classes(subsets, column)
    return subsets


def _without_value(records: Sequence[Record], column: str, total: int) -> DataError:
    labels = Counter(f"{record.label} of {record.source or 'no source'}" for record in records)
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in labels.most_common(3))
    return DataError(
        "A published split must have a subset for each image",
        received=f"{len(records):,} of {total:,} images without a value in the column {column} ({kinds})",
        remedy="Prepare a dataset without them, or write train or test into their fields in manifest.csv (all slices "
        "of a patient, and of a series, the same)",
    )


def _check_classes(subsets: Mapping[str, Sequence[Record]], column: str) -> None:
    present = {name: {record.label for record in members} for name, members in subsets.items()}
    missing = sorted(
        f"no {label} in {name}"
        for name in ("train", "test", *(name for name in present if name == "validation"))
        for label in set().union(*present.values()) - present.get(name, set())
    )
    if missing:
        raise DataError(
            "Each class must be in every subset of a published split",
            received=f"{', '.join(missing)} by the column {column}",
            remedy="Prepare the whole collection, or use another --group-by",
        )


def warn_divided(records: Sequence[Record]) -> None:
    """Logs which patients published folds divide; the folds are kept as published."""
    divided = divided_patients(records, fold_parts(records))
    if divided.parts:
        logger.warning(
            f"official folds divide {divided}: what is measured with them is too good; --group-by patient keeps "
            "patients together"
        )


def log_divided(subsets: Mapping[str, Sequence[Record]], groups: Mapping[str, str]) -> None:
    """Logs how many groups a published split divides between training and test; it is kept as published."""
    test, others = (
        {groups[record.path] for name in names for record in subsets.get(name, ()) if record.path in groups}
        for names in (("test",), ("train", "validation"))
    )
    if divided := test & others:
        logger.info(
            f"published split: {len(divided):,} groups are in its test part and outside it, {min(divided)!r} among "
            "them; kept as published"
        )
