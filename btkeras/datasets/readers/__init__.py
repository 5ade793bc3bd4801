"""Readers of source files; here, what all of them share."""

from __future__ import annotations

import importlib
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
    """A library of ``btkeras[medical]`` is not installed; no file of its kind can be read."""


def require(module: str, kind: str) -> ModuleType:
    """Imports a module of pydicom or nibabel, which read files of this kind, or raises MissingExtraError."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        rule, remedy = f"{kind} files need {module.partition('.')[0]}", "Install it: pip install 'btkeras[medical]'"
        raise MissingExtraError(rule, received=error, remedy=remedy) from error


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
