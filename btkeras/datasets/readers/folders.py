"""What lies in a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from btkeras.errors import DataError


def is_hidden(parts: Iterable[str]) -> bool:
    """Whether a path with these parts is hidden, or is what macOS adds to zips; such files are nobody's images."""
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def natural(name: str) -> list[int | str]:
    """A key that sorts names as people count: 2 before 10."""
    # Text and numbers alternate, so that equal places always compare alike.
    return [int(part) if part.isdecimal() and part.isascii() else part for part in re.split("([0-9]+)", name)]


def files_below(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """All that is no folder in a folder and those below it, in natural order; hidden names are left out.

    Links to folders are followed. A broken link, a pipe or a device is yielded too.

    Raises:
        DataError: If a folder cannot be read, or links to one above it.
    """
    real = folder.resolve()
    if real in above:
        raise DataError("A folder must not link to one above it", received=folder, remedy="Remove the link")
    try:
        with os.scandir(folder) as children:
            entries = sorted(children, key=lambda child: natural(child.name))
    except OSError as error:
        raise DataError("A folder must be readable", received=f"{folder} ({error.strerror})") from error
    for entry in entries:
        if is_hidden([entry.name]):
            continue
        if entry.is_dir():
            yield from files_below(folder / entry.name, above | {real})
        else:
            yield folder / entry.name
