"""Which files, and which of their slices, a user means."""

from __future__ import annotations

import functools
import glob
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from btkeras.datasets.readers import Slices, check
from btkeras.datasets.readers.formats import has_slice_suffix, is_dicom_file, open_slices
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
    """

    path: str
    index: int | None = None
    axis: str | None = None

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
    cached = functools.lru_cache(_OPEN_VOLUMES)(lambda path, axis: open_slices(path, axis=axis))
    return lambda ref: cached(ref.path, ref.axis)


def references(paths: Sequence[str | Path], which: str = MIDDLE, axis: str | None = None) -> list[SliceRef]:
    """Turns files into slices; ConfigError unless ``which`` is ``middle``, ``all`` or a number from 0.

    Files are only opened for ``all``, to count slices; one that cannot be is passed on.
    """
    if which == ALL:
        return [ref for path in paths for ref in _all_slices(str(path), axis)]
    if which != MIDDLE and not (which.isascii() and which.isdecimal()):
        raise ConfigError(f"A slice must be {MIDDLE}, {ALL} or a number from 0", received=repr(which))
    index = None if which == MIDDLE else int(which)
    return [SliceRef(str(path), index, axis) for path in paths]


def _all_slices(path: str, axis: str | None) -> list[SliceRef]:
    # The prediction of a file that cannot be opened will have the error.
    with suppress(ImageError):
        if (count := open_slices(path, axis=axis).count) > 1:
            return [SliceRef(path, index, axis) for index in range(count)]
    return [SliceRef(path, None, axis)]


def expand(arguments: Sequence[str], standard_input: Iterable[str]) -> list[str]:
    """Turns files, folders, glob patterns and ``-`` (a list on standard input, one path a line) into file paths.

    DataError if a folder, a pattern or the list holds no image.
    """
    return [path for argument in arguments for path in _expand(argument, standard_input)]


def _expand(argument: str, standard_input: Iterable[str]) -> list[str]:
    path = Path(argument)
    if argument == "-":
        paths, received = [line.strip() for line in standard_input if line.strip()], "an empty list"
    elif path.is_dir():
        paths, received = sorted(map(str, _images(path))), f"the folder {argument} with none"
    elif not path.exists() and any(character in argument for character in "*?["):
        paths, received = sorted(glob.glob(argument, recursive=True)), f"the pattern {argument}, which fits none"
    else:
        return [argument]
    if not paths:
        raise DataError(
            "There must be at least one PNG or JPEG image, DICOM or NIfTI file to classify", received=received
        )
    return paths


def _images(folder: Path) -> list[Path]:
    """A folder's images without hidden files and folders, as in a dataset."""
    files = [file for file in folder.rglob("*") if not any(p.startswith(".") for p in file.relative_to(folder).parts)]
    # Scanners and archives write DICOM files without suffix.
    wanted = [file for file in files if has_slice_suffix(file.name) or (not file.suffix and is_dicom_file(file))]
    return [file for file in wanted if file.is_file()]
