"""A split as a file, ``splits.json``: written with digests, and verified when it is read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from btkeras.checksums import check_file
from btkeras.datasets.dataset import Dataset, Record
from btkeras.errors import DataError
from btkeras.files import digest, json_reason, write_json
from btkeras.splitting import stratified
from btkeras.splitting.splits import SUBSETS, Split

_RESTORE = "Restore it, or start a new run"


def files_digest(records: Sequence[Record]) -> str:
    """Digest of a dataset's file list: the sorted paths and their labels."""
    return digest(f"{record.path}\n{record.label}" for record in stratified.by_path(records))


def save_split(split: Split, dataset: Dataset, target: Path) -> None:
    """Writes ``splits.json``."""
    paths, counts = {}, {}
    for name in SUBSETS:
        paths[name] = [record.path for record in split.subset(name)]
        counter = Counter(record.label for record in split.subset(name))
        counts[name] = {label: counter[label] for label in dataset.classes}
    head: dict[str, Any] = {"group_by": split.group_by} | ({"column": split.column} if split.column else {})
    head |= {"seed": split.seed, "classes": list(dataset.classes), "counts": counts}
    digests = {"dataset_digest": files_digest(dataset.records), "digest": _digest(paths)}
    write_json(target, head | digests | paths | {"groups": dict(split.groups)})


def load_split(source: Path, dataset: Dataset) -> Split:
    """Reads ``splits.json`` for a dataset.

    Raises:
        RunError: If it is of a run, and not as it was written.
        DataError: If the file is no split, was edited, has an image in two subsets, or the dataset's file list is
            not the one that was split.
    """
    document = _read(source)
    names = {name: document[name] for name in SUBSETS}
    if _digest(names) != document["digest"]:
        raise DataError(f"{source} must be as it was written", received="another digest", remedy=_RESTORE)
    records = {record.path: record for record in dataset.records}
    known = Counter(chain(*names.values()))
    if repeated := [path for path, count in known.most_common(1) if count > 1]:
        raise DataError("An image must be in one subset of a split only", received=f"{repeated[0]} ({source})")
    if files_digest(dataset.records) != document["dataset_digest"] or not records.keys() >= known.keys():
        raise DataError(
            f"The dataset must be the one that {source} was made for",
            received=f"{dataset.root}, where {_difference(set(known), set(records))}",
            remedy="Restore the dataset, or start a new run",
        )
    subsets = {name: tuple(records[path] for path in paths) for name, paths in names.items()}
    # Splits of before there were groups have neither.
    groups, group_by = document.get("groups", {}), document.get("group_by", "image")
    return Split(**subsets, seed=document["seed"], groups=groups, group_by=group_by, column=document.get("column", ""))


def _read(source: Path) -> dict[str, Any]:
    check_file(source)
    try:
        document: object = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{source} must be a readable splits.json", received=json_reason(error), remedy=_RESTORE
        ) from error
    types = dict.fromkeys(SUBSETS, list) | {"seed": int, "digest": str, "dataset_digest": str}
    found = document if isinstance(document, dict) else {}
    if "by" in found:
        raise DataError(
            f"{source} must have the current names",
            received="by",
            remedy="`by` was renamed to `group_by`, and its values neighbours and cvind to series and official",
        )
    wrong = [key for key, expected in types.items() if not isinstance(found.get(key), expected)]
    if wrong:
        raise DataError(
            f"{source} must hold the lists {', '.join(SUBSETS)}, a seed, a digest and a dataset_digest",
            received=f"nothing, or something else, as {', '.join(wrong)}",
            remedy=_RESTORE,
        )
    return found


def _digest(subsets: Mapping[str, Sequence[str]]) -> str:
    return digest(f"{name}\n{path}" for name in SUBSETS for path in subsets[name])


def _difference(known: set[str], present: set[str]) -> str:
    for text, paths in (("is missing", known - present), ("is new", present - known)):
        if paths:
            return f"{min(paths)} {text}" + (f" (and {len(paths) - 1} more)" if len(paths) > 1 else "")
    return "labels have changed"
