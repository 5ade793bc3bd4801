"""Readers of source files. Here is what all of them give, and the import of the optional libraries behind some."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from btkeras.errors import DataError
from btkeras.preprocessing.decode import ImageArray

VOLUME_SUFFIXES = (".nii", ".nii.gz")
DICOM_SUFFIXES = (".dcm", ".dicom")


class MissingExtraError(DataError):
    """A library of ``btkeras[medical]`` is not installed; no file of its kind can be read."""


def require(module: str, kind: str) -> ModuleType:
    """Imports a module of pydicom or nibabel.

    Args:
        module: Its name.
        kind: The files that it reads.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{kind} files need {module.partition('.')[0]}",
            received=error,
            remedy="Install it: pip install 'btkeras[medical]'",
        ) from error


@dataclass(frozen=True, eq=False)
class Slices:
    """The slices of one file.

    Attributes:
        kind: ``PNG``, ``JPEG``, ``DICOM`` or ``NIfTI``.
        count: How many there are, at least 1.
        image: Returns slice 0 to ``count - 1``, upright, uint8 ``[h, w, 1 or 3]``. Thread-safe; raises ImageError if
            that slice is broken.
        rejection: Why the file says that it is no brain MRI, for example another modality; None if it does not.
        axis: The view of a volume, a key of ``nifti.AXES``; "" where the file holds images.
    """

    kind: str
    count: int
    image: Callable[[int], ImageArray]
    rejection: str | None = None
    axis: str = ""

    @property
    def middle(self) -> int:
        """The number of the middle slice."""
        return self.count // 2
