"""Pictures that belong together: what an interval must not count as independent, and a fair split must not part."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable

from btkeras.data.records import Dataset, Record


def find_groups(dataset: Dataset) -> dict[str, str]:
    """Groups a dataset's pictures by patient, or, where the patient is unknown, by equal files.

    Returns:
        Name of the group by path, for the pictures of groups of two and more; the others stand alone.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for record in dataset.records:
        members[_group(dataset, record)].append(record.path)
    return {path: group for group, paths in members.items() if len(paths) > 1 for path in paths}


def count_groups(paths: Iterable[str], groups: dict[str, str]) -> int:
    """Number of groups among pictures, those that stand alone included."""
    return len({groups.get(path, path) for path in paths})


def _group(dataset: Dataset, record: Record) -> str:
    if record.patient:
        # Ids are only unique within their collection.
        return f"patient {record.source} {record.patient}"
    try:
        with (dataset.root / record.path).open("rb") as file:
            return f"file {hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"
    except OSError:
        # A file that cannot be read gets its message where it is decoded.
        return f"file {record.path}"
