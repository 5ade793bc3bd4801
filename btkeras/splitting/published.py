"""Published splits: the column of a manifest that holds one, and the subset that it gives each image."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from btkeras.datasets.dataset import Record, find_subset
from btkeras.errors import DataError
from btkeras.logging import logger

# As `btkeras prepare` writes them: the folds of FigShare's authors; training and test folders.
OFFICIAL_FOLD, SUBSET = "official_fold", "subset"


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
