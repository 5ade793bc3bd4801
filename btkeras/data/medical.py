"""The optional libraries behind DICOM and NIfTI: named when missing, and kept quiet.

pydicom warns of odd headers through ``warnings`` and ``logging``, in words that may quote them; what it cannot use is
an error in any case.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import threading
import warnings
from collections.abc import Iterator
from types import ModuleType

from btkeras.errors import DataError

# Silencing a warning changes the whole process, so two threads must not do it at once. Restricted to these modules,
# since another thread's own silencing could leave ours standing.
_QUIET = r"(pydicom|nibabel|PIL|openjpeg|pylibjpeg|btkeras\.data\.dicom)"
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
