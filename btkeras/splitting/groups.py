"""Groups of images that are not independent of each other: for splits without leakage and for honest intervals."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

from btkeras.datasets.dataset import Dataset, Record
from btkeras.errors import DataError
from btkeras.files import digest, write_json
from btkeras.logging import logger
from btkeras.splitting import duplicates, series

PathGroups = list[list[str]]


def find_groups(dataset: Dataset) -> dict[str, str]:
    """Groups a dataset's images by patient, or, where the patient is unknown, by equal files.

    Returns:
        Name of the group by path, for the images of groups of two and more; the others stand alone.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for record in dataset.records:
        members[_patient(record) if record.patient else _content(dataset, record)].append(record.path)
    return {path: group for group, paths in members.items() if len(paths) > 1 for path in paths}


def group_records(dataset: Dataset, group_by: str, cache: Path | None = None) -> dict[str, str]:
    """Groups a dataset's images for a split that has no group in two subsets.

    Slices of a named patient are always one group; an id is unique within its source.

    - ``image``: as ``find_groups``. A split by image ignores these groups; intervals do not.
    - ``duplicate``: also near-duplicates (``btkeras.splitting.duplicates``), chains of them included.
    - ``series``: also the series of slices that name no patient (``btkeras.splitting.series``).
    - ``patient`` and ``official``: patients, and near-duplicates among the images that name none; in the usual datasets
      those are the tumour-free class, of another collection.

    ``cache`` is the folder where what was found in the images is kept between calls; None keeps nothing. The result is
    as ``find_groups``.

    Raises:
        DataError: If no image names what ``group_by`` needs, or, with ``series``, no numbers follow any series.
    """
    if group_by == "image":
        return find_groups(dataset)
    _require(dataset, group_by)
    unnamed = [record for record in dataset.records if not record.patient]
    compared = dataset.records if group_by in ("duplicate", "series") else unnamed
    links = near_duplicate_sets(dataset, compared, cache)
    if group_by == "series" and unnamed:
        links += _series(dataset, unnamed, cache)
    groups = _merged(dataset, links)
    count, images = count_groups((record.path for record in dataset.records), groups), len(dataset.records)
    text = (
        f"grouped by {group_by}: {count:,} groups of {images:,} images, {images - len(groups):,} of which stand alone"
    )
    if group_by in ("patient", "official") and unnamed:
        text += f"; {len(unnamed):,} name no patient and are grouped by near-duplicates only"
    logger.info(text)
    return groups


def count_groups(paths: Iterable[str], groups: Mapping[str, str]) -> int:
    """Number of groups among images; one that stands alone counts as one."""
    return len({groups.get(path, path) for path in paths})


def _content(dataset: Dataset, record: Record) -> str:
    try:
        with (dataset.root / record.path).open("rb") as file:
            return f"file {hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"
    except OSError:
        # A file that cannot be read gets its message where it is decoded.
        return f"file {record.path}"


def _patient(record: Record) -> str:
    # Ids are only unique within their collection.
    return f"patient {record.source} {record.patient}"


def _require(dataset: Dataset, group_by: str) -> None:
    if group_by == "patient" and not any(record.patient for record in dataset.records):
        raise DataError(
            "A split by patient needs images that name their patient",
            received=f"{dataset.root}, where none does",
            remedy="Prepare the dataset from FigShare's .mat files or write the column `patient` of manifest.csv; "
            "where slices are numbered patient by patient, --group-by series groups them without ids",
        )


def near_duplicate_sets(dataset: Dataset, records: Sequence[Record], cache: Path | None) -> PathGroups:
    """The paths of each set of near-duplicates among the records; ``cache`` is as of ``group_records``."""

    def find() -> dict[str, Any]:
        paths = {dataset.root / record.path: record.path for record in records}
        found = duplicates.find_near_duplicates(list(paths), _bar("finding duplicates"))
        return {"sets": [[paths[file] for file in group] for group in found.groups()]}

    groups: PathGroups = _cached(dataset, records, cache, f"near-duplicates-{duplicates.VERSION}", find)["sets"]
    return groups


def _series(dataset: Dataset, records: Sequence[Record], cache: Path | None) -> PathGroups:
    def find() -> dict[str, Any]:
        found, unordered = series.find_series(dataset.root, records, _bar("finding series"))
        return {"sets": found, "unordered": unordered}

    found = _cached(dataset, records, cache, f"series-{series.VERSION}", find)
    if not found["sets"]:
        raise DataError(
            "A split by series needs slices that are numbered patient by patient",
            received=f"{dataset.root}, where images with neighbouring numbers are no more alike than others",
            remedy="Keep the collection's own file names, or use --group-by duplicate",
        )
    if found["unordered"]:
        folders = ", ".join(found["unordered"])
        logger.info(f"series: numbers follow no patients in {folders}; only near-duplicates are grouped there")
    groups: PathGroups = found["sets"]
    return groups


def _bar(text: str) -> duplicates.Progress:
    return lambda files: tqdm(files, text, unit=" images", file=sys.stderr, leave=False, disable=None)


def _cached(
    dataset: Dataset, records: Sequence[Record], cache: Path | None, name: str, find: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """The result of ``find`` for these files, from the cache if no file has changed."""
    if cache is None or not records:
        return find()
    root = str(dataset.root.resolve())
    file = cache / "groups" / f"{digest([name, root, *(_state(dataset, record) for record in records)])[:16]}.json"
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = find()
        try:
            write_json(file, found)
        except OSError as error:
            logger.info(f"groups are not cached: {error}")
    return found


def _state(dataset: Dataset, record: Record) -> str:
    try:
        state = (dataset.root / record.path).stat()
    except OSError:
        return record.path
    # Series are found within a class and a source.
    return f"{record.path}\n{record.label}\n{record.source}\n{state.st_size}\n{state.st_mtime_ns}"


def _merged(dataset: Dataset, links: PathGroups) -> dict[str, str]:
    """Merges patients and links that share an image: the name of its group by path."""
    patients = {record.path: _patient(record) for record in dataset.records if record.patient}
    first: dict[str, str] = {}
    pairs = [(first.setdefault(name, path), path) for path, name in patients.items()]
    pairs += [(group[0], path) for group in links for path in group]
    paths = list(dict.fromkeys(chain(*pairs)))
    position = {path: i for i, path in enumerate(paths)}
    groups: dict[str, str] = {}
    for members in duplicates.connected_groups(len(paths), [(position[a], position[b]) for a, b in pairs]):
        found = [paths[i] for i in members]
        names = {patients[path] for path in found if path in patients}
        # A group of several patients, or of none, is called by its first image.
        groups |= dict.fromkeys(found, names.pop() if len(names) == 1 else f"group {min(found)}")
    return dict(sorted(groups.items()))
