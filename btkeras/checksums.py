"""A run's files, recorded in its ``manifest.json`` as they are written and checked there as they are read.

A file is recorded before it gets its name, as the next content beside the present one, and once more after that: a
process that is killed in between leaves a file that is one of the two.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from btkeras.errors import RunError
from btkeras.files import atomic_file, read_json, sha256, write_json

_MANIFEST, _CONFIG = "manifest.json", "config.yaml"
_FILES, _NEXT = "files", "next"
# A reader without the run's lock may see a file and its record of two moments; it looks so many times.
_LOOKS = 3
_RESTORE = "Restore it, or start a new run"
_EVALUATE = "Restore it, or write it anew: btkeras evaluate {run}{of}"
_CALIBRATE = "Write it anew: btkeras calibrate {run}"
# The way out by a file's name.
_REMEDIES: Mapping[str, str] = MappingProxyType(
    {
        _CONFIG: "Restore it: a run's settings cannot be changed; start a new run for others",
        "metrics.json": _EVALUATE,
        "predictions.csv": _EVALUATE,
        "decisions.csv": _EVALUATE,
        "calibration.json": _CALIBRATE,
        "ood.npz": _CALIBRATE,
        "image_hashes.npz": "Remove it: evaluate --data writes it anew",
        "history.csv": "Restore it, or remove it: a report then has no learning curves",
        "robustness.json": "Write it anew: btkeras robustness {run}{of}",
        "explanations.json": "Write it anew: btkeras evaluate {run}{of} --explain",
        "dataset.json": "Remove its folder, and evaluate again: btkeras evaluate {run}{of}",
        "audit.json": "Write it anew: btkeras audit DATASET --splits {run}/splits.json",
        "shortcuts.json": "Write it anew: btkeras shortcuts DATASET --model {run}",
        "summary.json": "Write it anew: btkeras cv --resume --out {run}",
        _MANIFEST: "Restore it, or the whole folder, from a copy",
    }
)

_Json = Mapping[str, Any]


@contextlib.contextmanager
def recorded_file(target: Path) -> Iterator[Path]:
    """As ``files.atomic_file``; of a file in the folder of a run, or cross-validation, its only writer records it."""
    folder = _folder_of(target)
    if not folder:
        with atomic_file(target) as temporary:
            yield temporary
        return
    # Imported here because reading does without, and it takes 15 ms.
    from btkeras.locks import writing

    name = target.relative_to(folder).as_posix()
    with writing(folder):
        with atomic_file(target) as temporary:
            yield temporary
            following = _described(temporary)
            _record(folder, name, _present(folder, name) | {_NEXT: following})
        _record(folder, name, following)


def record_files(folder: Path, files: Iterable[Path]) -> None:
    """Records files of a run, or cross-validation, as they are."""
    for file in files:
        _record(folder, file.relative_to(folder).as_posix(), _described(file))


def check_file(file: Path) -> None:
    """Raises ``RunError`` if a run's file was recorded and is another now, or gone."""
    folder = _folder_of(file)
    if not folder:
        return
    name = file.relative_to(folder).as_posix()
    for _ in range(_LOOKS):
        record = _records(folder).get(name, {})
        if not record or _matches(file, record):
            return
    _refuse_manifest(folder)
    raise RunError(f"{file} must be as it was written", received=f"a file {_damage(file, record)}", remedy=remedy(file))


def read_document(file: Path) -> dict[str, Any]:
    """Reads a JSON object of a run's; errors as ``check_file`` and ``files.read_json``."""
    check_file(file)
    return read_json(file, remedy(file))


def remedy(file: Path) -> str:
    """What to do about a file of a run that is damaged."""
    folder, own = _folder_of(file) or file.parent, file.parent
    # Of another dataset or subset, in evaluations/NAME.
    subset = f" --split {own.name}" if own.name in ("train", "validation") else " --data DATASET"
    return _REMEDIES.get(file.name, _RESTORE).format(run=folder, of="" if own == folder else subset)


def _folder_of(file: Path) -> Path | None:
    """The folder of the run, or cross-validation, that a file is in: its own, or one above, as for evaluations/NAME."""
    above = list(file.parents)[:3]
    return next((each for each in above if all((each / name).is_file() for name in (_MANIFEST, _CONFIG))), None)


def _records(folder: Path) -> dict[str, dict[str, Any]]:
    return dict(read_json(folder / _MANIFEST, _REMEDIES[_MANIFEST]).get(_FILES, {}))


def _record(folder: Path, name: str, record: _Json) -> None:
    manifest = read_json(folder / _MANIFEST, _REMEDIES[_MANIFEST])
    files = manifest.get(_FILES, {}) | {name: dict(record)}
    write_json(folder / _MANIFEST, manifest | {_FILES: dict(sorted(files.items()))})


def _present(folder: Path, name: str) -> dict[str, Any]:
    """The record of what a file is now; a killed process may have left that of the next content beside it."""
    record = _records(folder).get(name, {})
    following = record.pop(_NEXT, None)
    file = folder / name
    return following if following and file.is_file() and _described(file) == following else record


def _described(file: Path) -> dict[str, Any]:
    """A file's size, digest and, of CSV, number of rows without the header."""
    found: dict[str, Any] = {"bytes": file.stat().st_size, "sha256": sha256(file)}
    if file.suffix == ".csv":
        found["rows"] = max(file.read_bytes().count(b"\n") - 1, 0)
    return found


def _matches(file: Path, record: _Json) -> bool:
    if not file.is_file():
        # Killed before its first content got its name.
        return "sha256" not in record
    wanted = [each for each in (record, record.get(_NEXT)) if each and each.get("bytes") == file.stat().st_size]
    return bool(wanted) and sha256(file) in [each["sha256"] for each in wanted]


def _damage(file: Path, record: _Json) -> str:
    if not file.is_file():
        return "that is gone"
    found = _described(file)
    if not found["bytes"]:
        return "that is empty"
    for unit in ("rows", "bytes"):
        if found.get(unit, 0) < record.get(unit, 0):
            return f"with {found[unit]:,} of {record[unit]:,} {unit}: it was cut off or edited, or is another run's"
    return "with other content: it was edited, or is another run's"


def _refuse_manifest(folder: Path) -> None:
    """Raises ``RunError`` for the manifest, if most other files do not match it: it is the one that is wrong."""
    records = {name: record for name, record in _records(folder).items() if (folder / name).is_file()}
    wrong = [name for name, record in records.items() if not _matches(folder / name, record)]
    if len(wrong) > max(2, len(records) / 2):
        file = folder / _MANIFEST
        raise RunError(
            f"{file} must be that of the files beside it",
            received=f"one that {len(wrong)} of {len(records)} files differ from, {wrong[0]} among them",
            remedy=remedy(file),
        )
