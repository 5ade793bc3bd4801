"""What every reader gives, and the optional libraries behind DICOM and NIfTI."""

from __future__ import annotations

import contextlib
import importlib
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from btkeras.errors import DataError

# Silencing a warning changes the whole process, so two threads must not do it at once. Restricted to these modules,
# since another thread's own silencing could leave ours standing.
_QUIET = r"(pydicom|nibabel|PIL|openjpeg|pylibjpeg|btkeras\.datasets\.readers)"
_LOGS = ("pydicom", "pylibjpeg", "openjpeg")
_lock = threading.RLock()


class MissingExtraError(DataError):
    """A library of ``btkeras[medical]`` is not installed; no file of its kind can be read."""


def require(module: str, kind: str) -> ModuleType:
    """Imports pydicom or nibabel, or a module of theirs.

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


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Lets one thread at a time use pydicom, without its warnings and its log."""
    with _lock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=_QUIET)
        # Those of single modules are below these and take their level.
        logs = {log: log.level for log in map(logging.getLogger, _LOGS)}
        try:
            for log in logs:
                log.setLevel(logging.CRITICAL + 1)
            yield
        finally:
            for log, level in logs.items():
                log.setLevel(level)


ImageArray = NDArray[np.uint8]

VOLUME_SUFFIXES = (".nii", ".nii.gz")
DICOM_SUFFIXES = (".dcm", ".dicom")


@dataclass(frozen=True, eq=False)
class Slices:
    """The slices of one file.

    Attributes:
        kind: ``PNG``, ``JPEG``, ``DICOM`` or ``NIfTI``.
        count: How many there are, at least 1.
        image: Gives slice 0 to ``count - 1``, upright, as ``Decoder.array`` and ``check_slice`` take it: uint8
            ``[h, w, 1 or 3]``. May be called from several threads; raises ImageError if that slice is broken.
        rejection: Why none of them is a brain MRI slice, whatever the pixels say; None if nothing speaks against it.
        axis: The view of a volume, a key of ``nifti.AXES``; "" where the file holds images.
    """

    kind: str
    count: int
    image: Callable[[int], ImageArray]
    rejection: str | None = None
    axis: str = ""

    @property
    def middle(self) -> int:
        """The slice to look at first."""
        return self.count // 2
