"""Which files a user means."""

from __future__ import annotations

import functools
import glob
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from btkeras.datasets.readers import Slices
from btkeras.datasets.readers.images import has_slice_suffix, is_dicom_file, open_slices
from btkeras.errors import ConfigError, DataError, ImageError

MIDDLE, ALL = "middle", "all"

# Volumes kept open: threads work on neighbouring slices, which are of one file or of two.
_KEPT = 2


@dataclass(frozen=True)
class SliceRef:
    """A slice of a file.

    Attributes:
        path: The file.
        index: From 0; None for the middle one. A file of one slice has no other.
        axis: The view of a NIfTI volume, a key of ``nifti.AXES``; None for the one that was scanned, or axial.
    """

    path: str
    index: int | None = None
    axis: str | None = None

    @property
    def image_name(self) -> str:
        """What an image made of it may be called: the file's name, with the slice's number where one was meant."""
        path = self.path[: -len(".gz")] if self.path.lower().endswith(".nii.gz") else self.path
        return path if self.index is None else f"{Path(path).stem}-{self.index}.png"

    def number(self, slices: Slices) -> int:
        """The slice's number in its opened file.

        Raises:
            ImageError: If it has fewer.
        """
        if slices.count == 1:
            return 0
        number = slices.middle if self.index is None else self.index
        if number >= slices.count:
            raise ImageError(
                f"A slice's number must be 0 to {slices.count - 1}",
                received=f"{number} for {self.path}, which has {slices.count}",
            )
        return number


def references(paths: Sequence[str | Path], wanted: str = MIDDLE, axis: str | None = None) -> list[SliceRef]:
    """Turns files into slices.

    Args:
        paths: The files. Only for ``all`` are they opened, to count; one that cannot be is passed on as it is.
        wanted: ``middle``, ``all``, or a number from 0.
        axis: As for ``SliceRef``.

    Raises:
        ConfigError: If ``wanted`` is something else.
    """
    if wanted == ALL:
        return [ref for path in paths for ref in _all(str(path), axis)]
    number = None
    if wanted != MIDDLE:
        if not (wanted.isascii() and wanted.isdecimal()):
            raise ConfigError(f"A slice must be {MIDDLE}, {ALL} or a number from 0", received=repr(wanted))
        number = int(wanted)
    return [SliceRef(str(path), number, axis) for path in paths]


def opener() -> Callable[[SliceRef], Slices]:
    """Makes a function that opens references' files and keeps the latest open; errors as ``open_slices``."""
    kept = functools.lru_cache(_KEPT)(lambda path, axis: open_slices(path, axis=axis))
    return lambda ref: kept(ref.path, ref.axis)


def _all(path: str, axis: str | None) -> list[SliceRef]:
    try:
        count = open_slices(path, axis=axis).count
    except ImageError:
        # Its answer will say why.
        return [SliceRef(path, None, axis)]
    return [SliceRef(path, index, axis) for index in range(count)] if count > 1 else [SliceRef(path, None, axis)]


def expand(arguments: Sequence[str], standard_input: Iterable[str]) -> list[str]:
    """Turns files, folders, glob patterns and ``-`` (a list on standard input, one path a line) into file paths.

    Files are passed on as they are, whatever their name or state: the answer for them will say.

    Raises:
        DataError: If a folder, a pattern or the list holds no image.
    """
    return [path for argument in arguments for path in _expand_one(argument, standard_input)]


def _expand_one(argument: str, standard_input: Iterable[str]) -> list[str]:
    if argument == "-":
        return _some([line.strip() for line in standard_input if line.strip()], "an empty list")
    path = Path(argument)
    if path.is_dir():
        return _some(sorted(map(str, _images(path))), f"the folder {argument} with none")
    if not path.exists() and any(character in argument for character in "*?["):
        return _some(sorted(glob.glob(argument, recursive=True)), f"the pattern {argument}, which fits none")
    return [argument]


def _images(folder: Path) -> list[Path]:
    """A folder's images; hidden files and folders are no part of it, as in a dataset."""
    files = [file for file in folder.rglob("*") if not any(p.startswith(".") for p in file.relative_to(folder).parts)]
    return [file for file in files if _is_image(file) and file.is_file()]


def _is_image(file: Path) -> bool:
    # Scanners and archives give DICOM files no ending, as on their discs.
    return has_slice_suffix(file.name) or (not file.suffix and is_dicom_file(file))


def _some(paths: list[str], where: str) -> list[str]:
    if not paths:
        raise DataError("There must be at least one PNG or JPEG image, DICOM or NIfTI file to classify", received=where)
    return paths
