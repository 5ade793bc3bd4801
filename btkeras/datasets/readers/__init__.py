"""Readers of source files; here, what all of them share."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from btkeras.errors import DataError, ImageError
from btkeras.preprocessing.decode import ImageArray

# What a dataset stores, and what `predict` and `prepare` read besides; the latter is converted.
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif")
CONVERTED_SUFFIXES = (".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif", ".apng")
VOLUME_SUFFIXES = (".nii", ".nii.gz")
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")


class MissingExtraError(DataError):
    """A library of ``btkeras[medical]`` is not installed or does not work; no file of its kind can be read."""


# What stands between a reader and the package that fails.
_IMPORTING = ("btkeras", "importlib", "pydicom", "pylibjpeg", "nibabel")


def require(module: str, kind: str) -> ModuleType:
    """Imports a module of pydicom or nibabel, which read files of this kind.

    Raises:
        MissingExtraError: If the library is not installed, or it or a package that it imports fails.
    """
    library = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except Exception as error:  # A package that was built for another Python or NumPy raises what it likes.
        failing = failing_package(error)
        if isinstance(error, ImportError) and failing in ("", library):
            rule, remedy = f"{kind} files need {library}", "Install it: pip install 'btkeras[medical]'"
            raise MissingExtraError(rule, received=error, remedy=remedy) from error
        rule = f"{kind} files need {library}, and all packages that it imports must work"
        found = f"{failing or library}, which fails ({describe(error)})"
        raise MissingExtraError(rule, received=found, remedy="Install that package again, or remove it") from error


def failing_package(error: BaseException) -> str:
    """The package whose import failed; if only the importing ones are known the innermost of these, or ""."""
    names = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    packages = [name.partition(".")[0] for name in names]
    name = next((package for package in packages if package not in _IMPORTING), "") or _accused(error)
    return name or next((package for package in reversed(packages) if package in _IMPORTING[2:]), "")


def _accused(error: BaseException) -> str:
    """The package that an error names: the one that is not there, or one without what it should have."""
    if isinstance(error, AttributeError):
        name = error.obj.__name__ if isinstance(error.obj, ModuleType) else ""
    else:
        name = error.name or "" if isinstance(error, ImportError) else ""
    return name.partition(".")[0]


def describe(error: BaseException) -> str:
    """One line on an exception of a library."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}".rstrip(":. ")


def check(valid: object, rule: str, received: str, remedy: str = "") -> None:
    """Raises ImageError unless ``valid``."""
    if not valid:
        raise ImageError(rule, received=received, remedy=remedy)


@dataclass(frozen=True, eq=False)
class Slices:
    """The slices of one file.

    Attributes:
        kind: ``DICOM``, ``NIfTI`` or a kind of ``images.KINDS``.
        count: How many there are, at least 1.
        image: Returns slice 0 to ``count - 1``, upright, uint8 ``[h, w, 1 or 3]``, or raises ImageError. Thread-safe.
        rejection: Why, by its header, the file is no brain MRI; None if it may be one.
        axis: The view of a volume, a key of ``nifti.AXES``; "" where the file holds images.
    """

    kind: str
    count: int
    image: Callable[[int], ImageArray]
    rejection: str | None = None
    axis: str = ""

    @property
    def middle(self) -> int:
        return self.count // 2
