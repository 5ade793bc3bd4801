"""The files that a new dataset leaves out: in its ``left_out.csv``, and in its summary."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from btkeras.datasets.pseudonyms import load_key, pseudonym
from btkeras.datasets.readers.selection import LeftOut

LEFT_OUT = "left_out.csv"

# Names that a line of the summary has.
_NAMES = 3


def write_left_out(root: Path, files: Iterable[LeftOut], *, private: bool) -> None:
    """Writes ``left_out.csv`` (``path,reason``) into a folder, unless there are none.

    If ``private``, paths are pseudonyms with their endings, because names of DICOM files and folders often are a
    patient's.
    """
    rows = [_hidden(file) for file in files] if private else list(files)
    if rows:
        with (root / LEFT_OUT).open("w", newline="", encoding="utf-8") as table:
            csv.writer(table, lineterminator="\n").writerows([("path", "reason"), *rows])


def left_out_lines(files: Sequence[LeftOut], out: Path) -> list[str]:
    """For the terminal: how many files are left out, and for each reason how many and the first names."""
    if not files:
        return []
    what = "files and slices" if any("#" in file.path for file in files) else f"file{'s' * (len(files) > 1)}"
    lines = [f"Left out: {len(files)} {what}, listed in {out / LEFT_OUT}"]
    names: dict[str, list[str]] = defaultdict(list)
    for file in files:
        names[file.kind].append(PurePosixPath(file.path).name)
    for kind, paths in sorted(names.items(), key=lambda item: -len(item[1])):
        more = f" and {len(paths) - _NAMES} more" if len(paths) > _NAMES else ""
        lines.append(f"  {len(paths)} {kind}: {', '.join(paths[:_NAMES])}{more}")
    return lines


def _hidden(file: LeftOut) -> LeftOut:
    hidden = pseudonym(file.path, load_key(), "F") + PurePosixPath(file.path).suffix
    return LeftOut(hidden, file.kind.replace(file.path, hidden))
