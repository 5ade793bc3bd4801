"""Which slices of which files are meant: the middle one, a certain one, or all."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from btkeras.data.slices import Slices, open_slices
from btkeras.errors import ConfigError, ImageError

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
    def picture_name(self) -> str:
        """What a picture made of it may be called: the file's name, with the slice's number where one was meant."""
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
