"""Images that belong together: what an interval must not count as independent, and a fair split must not part."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from btkeras.datasets.dataset import Dataset, Record
from btkeras.errors import DataError
from btkeras.files import digest, write_json
from btkeras.logging import logger
from btkeras.splitting import series

Sets = list[list[str]]


def find_groups(dataset: Dataset) -> dict[str, str]:
    """Groups a dataset's images by patient, or, where the patient is unknown, by equal files.

    Returns:
        Name of the group by path, for the images of groups of two and more; the others stand alone.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for record in dataset.records:
        members[_group(dataset, record)].append(record.path)
    return {path: group for group, paths in members.items() if len(paths) > 1 for path in paths}


def group_records(dataset: Dataset, group_by: str, cache: Path | None = None) -> dict[str, str]:
    """Groups a dataset's images by what a split must not part.

    Whatever ``group_by`` is, slices of a patient that is named stay together: an id is unique within its source.

    - ``image``: as ``find_groups``. A split by image parts these groups; intervals do not.
    - ``duplicate``: also near-duplicates (``btkeras.splitting.duplicates``) of each other, chains of them included.
    - ``neighbours``: also the series of slices that name no patient (``btkeras.splitting.series``).
    - ``patient`` and ``cvind``: patients, and near-duplicates among the images that name none. Those cannot be told
      apart by patient; in the usual datasets they are the tumour-free class, of another collection.

    Args:
        dataset: The images.
        group_by: One of ``btkeras.config.BYS``.
        cache: Folder where what was found in the images is kept between calls; None keeps nothing.

    Returns:
        As ``find_groups``.

    Raises:
        DataError: If no image names what ``group_by`` needs, or, with ``neighbours``, no numbers follow any series.
    """
    if group_by == "image":
        return find_groups(dataset)
    unnamed = [record for record in dataset.records if not record.patient]
    sets = [_patients(dataset)]
    if group_by in ("duplicate", "series"):
        sets.append(_near_duplicates(dataset, dataset.records, cache))
    else:
        _require_ids(dataset, group_by)
        sets.append(_near_duplicates(dataset, unnamed, cache))
    if group_by == "series" and unnamed:
        sets.append(_series(dataset, unnamed, cache))
    groups = _named(dataset, _joined([one for several in sets for one in several]))
    _announce(dataset, group_by, groups, len(unnamed))
    return groups


def count_groups(paths: Iterable[str], groups: dict[str, str]) -> int:
    """Number of groups among images, those that stand alone included."""
    return len({groups.get(path, path) for path in paths})


def _group(dataset: Dataset, record: Record) -> str:
    if record.patient:
        return _patient(record)
    try:
        with (dataset.root / record.path).open("rb") as file:
            return f"file {hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"
    except OSError:
        # A file that cannot be read gets its message where it is decoded.
        return f"file {record.path}"


def _patient(record: Record) -> str:
    # Ids are only unique within their collection.
    return f"patient {record.source} {record.patient}"


def _patients(dataset: Dataset) -> Sets:
    members: dict[str, list[str]] = defaultdict(list)
    for record in dataset.records:
        if record.patient:
            members[_patient(record)].append(record.path)
    return list(members.values())


def _require_ids(dataset: Dataset, group_by: str) -> None:
    if group_by == "patient" and not any(record.patient for record in dataset.records):
        raise DataError(
            "A split by patient needs images that name their patient",
            received=f"{dataset.root}, where none does",
            remedy="Prepare the dataset from FigShare's .mat files or write the column `patient` of manifest.csv; "
            "where slices are numbered patient by patient, --group-by series groups them without ids",
        )
    if group_by == "official" and not any(record.extra.get("official_fold") for record in dataset.records):
        raise DataError(
            "A split by official folds needs images with the folds of FigShare's authors",
            received=f"{dataset.root}, where none has one",
            remedy="Prepare the dataset from FigShare's download with its cvind.mat, or use --group-by patient",
        )


def _near_duplicates(dataset: Dataset, records: Sequence[Record], cache: Path | None) -> Sets:
    if not records:
        return []
    from btkeras.splitting.duplicates import VERSION, find_near_duplicates

    def find() -> dict[str, Any]:
        files = [dataset.root / record.path for record in records]
        names = {str(file): record.path for file, record in zip(files, records, strict=True)}
        found = find_near_duplicates(files, _bar("comparing images"))
        return {"sets": [[names[str(file)] for file in group] for group in found.groups()]}

    found: Sets = _cached(dataset, records, cache, f"near-duplicates-{VERSION}", find)["sets"]
    return found


def _series(dataset: Dataset, records: Sequence[Record], cache: Path | None) -> Sets:
    def find() -> dict[str, Any]:
        sets, unordered = series.find_series(dataset.root, records, _bar("comparing neighbours"))
        return {"sets": sets, "unordered": unordered}

    found = _cached(dataset, records, cache, f"series-{series.VERSION}", find)
    if not found["sets"]:
        raise DataError(
            "A split by series needs slices that are numbered patient by patient",
            received=f"{dataset.root}, where images with neighbouring numbers are no more alike than others",
            remedy="Keep the collection's own file names, or use --group-by duplicate",
        )
    if found["unordered"]:
        folders = ", ".join(found["unordered"])
        logger.info(f"neighbours: numbers follow no patients in {folders}; near-duplicates alone are grouped there")
    return found["sets"]


def _bar(text: str) -> series.Progress:
    return lambda files: tqdm(files, text, unit=" images", file=sys.stderr, leave=False, disable=None)


def _cached(
    dataset: Dataset, records: Sequence[Record], cache: Path | None, name: str, find: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """What ``find`` says of these files, from the cache if they are as they were."""
    if cache is None:
        return find()
    root = str(dataset.root.resolve())
    file = cache / "groups" / f"{digest([name, root, *(_state(dataset, record) for record in records)])[:16]}.json"
    try:
        kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        kept = find()
        try:
            write_json(file, kept)
        except OSError as error:
            logger.info(f"groups are not kept for the next time: {error}")
    return kept


def _state(dataset: Dataset, record: Record) -> str:
    try:
        state = (dataset.root / record.path).stat()
    except OSError:
        return record.path
    # Series are found within a class and a source.
    return f"{record.path}\n{record.label}\n{record.source}\n{state.st_size}\n{state.st_mtime_ns}"


def _joined(sets: Sets) -> Sets:
    """Connected components: sets that share a path become one."""
    position: dict[str, int] = {}
    for one in sets:
        for path in one:
            position.setdefault(path, len(position))
    pairs = [(position[one[0]], position[path]) for one in sets for path in one]
    if not pairs:
        return []
    rows, columns = np.array(pairs).T
    size = len(position)
    graph = coo_array((np.ones(len(pairs)), (rows, columns)), shape=(size, size))
    _, numbers = connected_components(graph, directed=False)
    members: dict[int, list[str]] = defaultdict(list)
    for path, number in zip(position, numbers.tolist(), strict=True):
        members[number].append(path)
    return list(members.values())


def _named(dataset: Dataset, sets: Sets) -> dict[str, str]:
    patients = {record.path: _patient(record) for record in dataset.records if record.patient}
    named: dict[str, str] = {}
    for paths in sets:
        known = {patients[path] for path in paths if path in patients}
        # A group of several patients, or of none, is called by its first image.
        name = known.pop() if len(known) == 1 else f"group {min(paths)}"
        named |= dict.fromkeys(paths, name) if len(paths) > 1 else {}
    return dict(sorted(named.items()))


def _announce(dataset: Dataset, group_by: str, groups: dict[str, str], unnamed: int) -> None:
    paths = [record.path for record in dataset.records]
    alone = len(paths) - len(groups)
    text = f"by {group_by}: {count_groups(paths, groups):,} groups of {len(paths):,} images, {alone:,} of which stand alone"
    if group_by in ("patient", "official") and unnamed:
        text += f"; {unnamed:,} name no patient and are grouped by near-duplicates alone"
    logger.info(text)
