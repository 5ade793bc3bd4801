"""Which files, and which of their slices, a user means."""

from __future__ import annotations

import functools
import glob
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from btkeras.datasets.readers import Slices, check
from btkeras.datasets.readers.archives import file_on_disk
from btkeras.datasets.readers.dicom_identity import DicomIdentity
from btkeras.datasets.readers.dicom_series import identity_in, in_series_order, left_out_of_series, place_slices
from btkeras.datasets.readers.folders import files_below, is_hidden, natural
from btkeras.datasets.readers.formats import open_slices
from btkeras.datasets.readers.selection import LeftOut, left_out_text, why_left_out
from btkeras.errors import ConfigError, DataError, ImageError

MIDDLE, ALL = "middle", "all"
# Threads work on neighbouring slices, which are of one volume or of two.
_OPEN_VOLUMES = 2


@dataclass(frozen=True)
class SliceRef:
    """A slice of a file.

    Attributes:
        path: The file.
        index: From 0; None for the middle one. Without effect in a file of one slice.
        axis: The view of a NIfTI volume, a key of ``nifti.AXES``; None for the one that was scanned, or axial.
        channel: Which of several volumes in a NIfTI file, from 0; None of a file with one.
    """

    path: str
    index: int | None = None
    axis: str | None = None
    channel: int | None = None

    @property
    def image_name(self) -> str:
        """Name for an image made of it: the file's, with the slice's number where one was given."""
        path = self.path[: -len(".gz")] if self.path.lower().endswith(".nii.gz") else self.path
        return path if self.index is None else f"{Path(path).stem}-{self.index}.png"

    def number(self, slices: Slices) -> int:
        """The slice's number in its opened file; ImageError if it has fewer."""
        if slices.count == 1:
            return 0
        number = slices.middle if self.index is None else self.index
        rule, received = f"A slice's number must be 0 to {slices.count - 1}", f"{number} for {self.path}"
        check(number < slices.count, rule, f"{received}, which has {slices.count}")
        return number


Opener = Callable[[SliceRef], Slices]


def opener() -> Opener:
    """Makes a function that opens slices' files and keeps the latest open; errors as ``open_slices``."""
    cached = functools.lru_cache(_OPEN_VOLUMES)(
        lambda path, axis, channel: open_slices(path, axis=axis, channel=channel)
    )
    return lambda ref: cached(ref.path, ref.axis, ref.channel)


def references(
    paths: Sequence[str | Path], which: str = MIDDLE, axis: str | None = None, channel: int | None = None
) -> list[SliceRef]:
    """Turns files into slices; ConfigError unless ``which`` is ``middle``, ``all`` or a number from 0.

    Files are only opened for ``all``, to count slices; one that cannot be is passed on.
    """
    if which == ALL:
        return [ref for path in paths for ref in _all_slices(SliceRef(str(path), None, axis, channel))]
    if which != MIDDLE and not (which.isascii() and which.isdecimal()):
        raise ConfigError(f"A slice must be {MIDDLE}, {ALL} or a number from 0", received=repr(which))
    index = None if which == MIDDLE else int(which)
    return [SliceRef(str(path), index, axis, channel) for path in paths]


def _all_slices(ref: SliceRef) -> list[SliceRef]:
    # The prediction of a file that cannot be opened will have the error.
    with suppress(ImageError):
        if (count := open_slices(ref.path, axis=ref.axis, channel=ref.channel).count) > 1:
            return [replace(ref, index=index) for index in range(count)]
    return [ref]


class ChosenFiles(NamedTuple):
    """Paths of files to classify, what lay beside them and is not read, and whose the DICOM files are."""

    paths: list[str]
    left_out: list[LeftOut]
    identities: dict[str, DicomIdentity]


def choose_files(arguments: Sequence[str], standard_input: Iterable[str]) -> ChosenFiles:
    """Turns files, folders, glob patterns and ``-`` (a list on standard input, one path a line) into file paths.

    Of folders and patterns, files that hold slices are taken (``selection.why_left_out``), each once and in natural
    order, but DICOM files as their series are (``dicom_series``), without localizers and repeats; what is hidden does
    not count. A file that is named itself, also in a list, is always taken.

    Raises:
        DataError: If a folder, a pattern or the list holds no image.
    """
    chosen = ChosenFiles([], [], {})
    for argument in arguments:
        path = Path(argument)
        if argument == "-":
            paths = [line.strip() for line in standard_input if line.strip()]
            _check_any(paths, "an empty list")
            _take(paths, chosen)
        elif path.is_dir():
            _choose(files_below(path), path, f"the folder {argument}", chosen)
        elif not path.exists() and _is_pattern(argument):
            fixed = itertools.takewhile(lambda part: not _is_pattern(part), path.parts)
            _choose(_matches(argument), Path(*fixed), f"the pattern {argument}", chosen)
        else:
            _take([argument], chosen)
    return chosen


def _is_pattern(text: str) -> bool:
    return any(character in text for character in "*?[")


def _take(paths: Sequence[str], chosen: ChosenFiles) -> None:
    chosen.paths.extend(paths)
    chosen.identities.update(_identities(paths))


def _identities(paths: Sequence[str]) -> dict[str, DicomIdentity]:
    found = {path: identity_in(path, file_on_disk(Path(path), path).head) for path in paths}
    return {path: identity for path, identity in found.items() if identity}


def _matches(pattern: str) -> Iterator[Path]:
    """The files that fit a pattern, and those in folders that do; hidden ones only where the pattern names them."""
    named = Path(pattern).parts
    for path in sorted(map(Path, glob.glob(pattern, recursive=True)), key=lambda path: natural(str(path))):
        if not is_hidden(part for part in path.parts if part not in named):
            yield from files_below(path) if path.is_dir() else (path,)


def _choose(files: Iterable[Path], folder: Path, where: str, chosen: ChosenFiles) -> None:
    """Sorts files below a folder into those that are read and the others."""
    found, left_out = [], []
    for file in dict.fromkeys(files):
        if why := why_left_out(file, os.path.relpath(file, folder)):
            left_out.append(LeftOut(str(file), why))
        else:
            found.append(str(file))
    identities = _identities(found)
    unwanted = left_out_of_series(identities)
    left_out += [LeftOut(path, why) for path, why in unwanted.items()]
    found = [path for path in found if path not in unwanted]
    _check_any(found, f"{where} with none" + (f" ({left_out_text(left_out)})" if left_out else ""))
    kept = {path: identity for path, identity in identities.items() if path not in unwanted}
    chosen.paths.extend(in_series_order(found, place_slices(kept)))
    chosen.left_out.extend(left_out)
    chosen.identities.update(kept)


def _check_any(paths: Sequence[str], received: str) -> None:
    if not paths:
        raise DataError("There must be at least one image, DICOM or NIfTI file to classify", received=received)
