"""Which files a user means."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path

from btkeras.data.slices import has_slice_suffix, is_dicom_file
from btkeras.errors import DataError


def expand(arguments: Sequence[str], standard_input: Iterable[str]) -> list[str]:
    """Turns files, folders, glob patterns and ``-`` (a list on standard input, one path a line) into file paths.

    Files are passed on as they are, whatever their name or state: the answer for them will say.

    Raises:
        DataError: If a folder, a pattern or the list holds no picture.
    """
    return [path for argument in arguments for path in _expand_one(argument, standard_input)]


def _expand_one(argument: str, standard_input: Iterable[str]) -> list[str]:
    if argument == "-":
        return _some([line.strip() for line in standard_input if line.strip()], "an empty list")
    path = Path(argument)
    if path.is_dir():
        return _some(sorted(map(str, _pictures(path))), f"the folder {argument} with none")
    if not path.exists() and any(character in argument for character in "*?["):
        return _some(sorted(glob.glob(argument, recursive=True)), f"the pattern {argument}, which fits none")
    return [argument]


def _pictures(folder: Path) -> list[Path]:
    """A folder's pictures; hidden files and folders are no part of it, as in a dataset."""
    files = [file for file in folder.rglob("*") if not any(p.startswith(".") for p in file.relative_to(folder).parts)]
    return [file for file in files if _is_picture(file) and file.is_file()]


def _is_picture(file: Path) -> bool:
    # Scanners and archives give DICOM files no ending, as on their discs.
    return has_slice_suffix(file.name) or (not file.suffix and is_dicom_file(file))


def _some(paths: list[str], where: str) -> list[str]:
    if not paths:
        raise DataError(
            "There must be at least one PNG or JPEG picture, DICOM or NIfTI file to classify", received=where
        )
    return paths
